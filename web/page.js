/* What the page's session cannot do itself: say what was pressed, send files with progress, show steps. */
(() => {
  "use strict";
  const events = [];
  const waiting = [];
  let words = {};
  let token = "";
  let request = null; // the upload under way
  let taking = false; // what was dropped is being gathered
  if (window.jQuery) window.jQuery.fx.off = true; // PyWebIO fades its output in otherwise

  const emit = (kind, value = null) => {
    const event = { kind, value };
    if (waiting.length) waiting.shift()(event);
    else if (events.length < 8) events.push(event);
  };
  const find = (id) => document.getElementById(id);

  function hello(key) {
    token = key;
    addEventListener("pagehide", (event) => {
      if (!event.persisted) navigator.sendBeacon(`/bye/${token}`);
    });
    const session = window.WebIO && WebIO._state && WebIO._state.CurrentSession;
    if (session) session.on_session_close(() => banner(words.lost, words.reload));
    const kept = localStorage.getItem("scanwise.language");
    return kept || (navigator.language || "en").slice(0, 2);
  }

  function banner(text, action) {
    if (find("lost")) return;
    const box = document.createElement("div");
    box.id = "lost";
    box.className = "lost";
    box.setAttribute("role", "alert");
    box.append(text || "The connection to the server was lost. ");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button primary";
    button.textContent = action || "Load the page again";
    button.onclick = () => location.reload();
    box.append(button);
    document.body.append(box);
  }

  function bar(element, share) {
    if (!element) return;
    const percent = Math.round(100 * share);
    element.firstElementChild.style.width = `${percent}%`;
    element.setAttribute("aria-valuenow", percent);
  }

  function shown(name) {
    const root = document.documentElement;
    root.dataset.view = name;
    root.dataset.turn = Number(root.dataset.turn || 0) + 1;
    const content = find("content");
    if (content && root.dataset.turn > 1) {
      content.focus({ preventScroll: true });
      scrollTo({ top: 0 });
      if (find("measures")?.open) find("measures").scrollIntoView();
    }
    const series = find("series");
    if (series && series.open) thumbnails(series);
    const viewer = find("viewer");
    if (viewer) window.scanwiseViewer.open(viewer);
  }

  /* A small picture of each series, once somebody looks. */
  async function thumbnails(box) {
    if (box.dataset.asked) return;
    box.dataset.asked = "yes";
    const answer = await fetch(`/results/${box.dataset.key}/series`);
    if (!answer.ok) return;
    const pictures = await answer.json();
    for (const image of box.querySelectorAll("[data-series]")) {
      if (pictures[image.dataset.series]) image.src = pictures[image.dataset.series];
    }
    box.dataset.shown = "yes";
  }

  function work(state) {
    for (const step of document.querySelectorAll("#steps li")) {
      const order = step.compareDocumentPosition(document.querySelector(`#steps [data-step="${state.step}"]`) || step);
      step.className = step.dataset.step === state.step ? "now" :
        order & Node.DOCUMENT_POSITION_FOLLOWING ? "done" : "";
      if (step.className === "now") {
        step.setAttribute("aria-current", "step");
        if (find("work-said").textContent !== step.innerText) find("work-said").textContent = step.innerText;
      } else step.removeAttribute("aria-current");
    }
    if (find("work-file")) find("work-file").textContent = state.said;
    bar(find("work-bar"), state.done);
  }

  /* --- files --------------------------------------------------------------------------------------------- */

  function put(file, heard) {
    return new Promise((resolve) => {
      request = new XMLHttpRequest();
      request.open("PUT", `/uploads/${token}`);
      request.setRequestHeader("X-File-Name", encodeURIComponent(file.name.slice(-200)));
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = (event) => heard(event.loaded);
      request.onload = () => {
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch { answer = { error: { code: "other" } }; }
        resolve(answer);
      };
      request.onerror = () => resolve({ lost: true });
      request.onabort = () => resolve({ aborted: true });
      request.send(file);
    });
  }

  /* Gather what was given, in time for the event that gave it, and send it. */
  async function take(given) {
    const drop = find("drop");
    if (!drop || request || taking) return;
    taking = true;
    try {
      const wishes = { apart: drop.dataset.apart.split(" "), volumes: !!drop.dataset.volumes,
        slices: words["upload.slices"] };
      const groups = await given;
      const files = await window.scanwiseFolder.sendable(groups, wishes);
      if (files.length) await send(files);
      else if (groups.some((group) => group.folder)) fail(words["upload.nothing"]);
    } catch (error) {
      console.error(`what was given cannot be gathered: ${error}`);
      fail(words["upload.failed"]);
    } finally {
      taking = false;
    }
  }

  function fail(text) {
    const box = find("send-failed");
    if (!box) return;
    box.textContent = text;
    box.hidden = false;
  }

  async function send(files) {
    if (!files.length || !find("drop") || request) return;
    const total = files.reduce((sum, file) => sum + file.size, 0);
    const megabytes = (bytes) => (bytes / 1048576).toFixed(1);
    find("send-failed").hidden = true;
    find("drop").hidden = true;
    find("sending").hidden = false;
    const back = () => {
      request = null;
      if (!find("drop")) return;
      find("sending").hidden = true;
      find("drop").hidden = false;
      find("files").value = "";
      if (find("folder")) find("folder").value = "";
    };
    let before = 0;
    const done = [];
    for (const file of files) {
      find("sending-name").textContent = file.name;
      const answer = await put(file, (loaded) => {
        bar(find("sending-bar"), total ? (before + loaded) / total : 1);
        const say = find("sending-done");
        say.textContent = say.dataset.text.replace("{done}", megabytes(before + loaded))
          .replace("{total}", megabytes(total));
      });
      if (answer.aborted) return back();
      if (answer.lost) {
        back();
        fail(find("send-failed").dataset.text);
        return;
      }
      before += file.size;
      done.push({ name: file.name, id: answer.id || null, error: answer.error || null });
    }
    request = null;
    emit("uploaded", { files: done });
  }

  document.addEventListener("change", (event) => {
    if (event.target.id === "files") take([{ name: "", files: [...event.target.files] }]);
    if (event.target.id === "folder") take(window.scanwiseFolder.chosen(event.target.files));
    if (event.target.dataset.do === "choose") emit("choose", event.target.value);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    if (find("drop")) find("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget && find("drop")) find("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!find("drop")) return;
    find("drop").classList.remove("over");
    take(window.scanwiseFolder.dropped(event.dataTransfer));
  });

  document.addEventListener("toggle", (event) => {
    if (event.target.id === "series" && event.target.open) thumbnails(event.target);
  }, true);

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-do]");
    if (!target || target.tagName === "SELECT") return;
    const { do: what, value } = target.dataset;
    if (what === "skip") {
      event.preventDefault();
      if (find("content")) find("content").focus();
    } else if (what === "person") {
      const age = find("person-age");
      if (age.reportValidity()) emit(what, { age: age.value, sex: find("person-sex").value });
    } else if (what === "abort") {
      if (request) request.abort();
    } else {
      if (what === "language") localStorage.setItem("scanwise.language", value);
      emit(what, value ?? null);
    }
  });

  window.scanwise = {
    hello, shown, work,
    next: () => new Promise((resolve) => (events.length ? resolve(events.shift()) : waiting.push(resolve))),
    speak: (language, given) => {
      words = given;
      document.documentElement.lang = language;
    },
    broken: (number) => banner(`Something went wrong here; error id ${number}. `, words.reload),
  };
})();
