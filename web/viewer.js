/* The slice viewer: three linked planes of one uint8 volume on canvases, with a heat map over it.
 *
 * The volume's axes run right, front, up (x, y, z in C order). A pane says which axis it cuts, which axes lie
 * across and down it, and in which direction they run; everything else follows from that.
 */
(() => {
  "use strict";
  const PANES = {
    // across: patient's right on the left of the screen (radiological); down: from the front or the top
    axial: { cuts: 2, across: 0, down: 1, sides: ["R", "L"], ends: ["A", "P"], flips: true },
    coronal: { cuts: 1, across: 0, down: 2, sides: ["R", "L"], ends: ["S", "I"], flips: true },
    sagittal: { cuts: 0, across: 1, down: 2, sides: ["A", "P"], ends: ["S", "I"], flips: false },
    image: { cuts: 2, across: 0, down: 1, sides: ["", ""], ends: ["", ""], flips: false, forward: true },
  };
  /** The 256 colours of a heat map, from little to much. */
  const palette = (stops) => Array.from({ length: 256 }, (_, value) => {
    const at = value / 255;
    const next = Math.max(1, stops.findIndex((stop) => stop[0] >= at));
    const [from, to] = [stops[next - 1], stops[next]];
    const share = (at - from[0]) / (to[0] - from[0]);
    return [1, 2, 3].map((i) => from[i] + share * (to[i] - from[i]));
  });

  async function unpack(url, signal = null) {
    const answer = await fetch(url, { credentials: "same-origin", signal });
    if (!answer.ok) {
      const said = await answer.json().catch(() => null);
      throw new Error(said && said.error ? said.error.message : String(answer.status));
    }
    const buffer = await answer.arrayBuffer();
    const length = new DataView(buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    return { ...head, data: new Uint8Array(buffer, 4 + length) };
  }

  class Pane {
    constructor(viewer, name) {
      this.viewer = viewer;
      this.name = name;
      Object.assign(this, PANES[name]);
      const { shape, spacing } = viewer.volume;
      this.width = shape[this.across];
      this.height = shape[this.down];
      this.depth = shape[this.cuts];
      this.buffer = document.createElement("canvas");
      this.buffer.width = this.width;
      this.buffer.height = this.height;
      this.pixels = new ImageData(this.width, this.height);
      this.aspect = (this.width * spacing[this.across]) / (this.height * spacing[this.down]);
      this.build();
    }

    build() {
      const t = this.viewer.texts;
      const title = t[`viewer.${this.name}`];
      this.box = document.createElement("figure");
      this.box.className = `pane ${this.name}`;
      this.box.style.setProperty("--aspect", this.aspect);
      this.box.innerHTML = `<figcaption><span></span> <output></output><button type="button"></button></figcaption>
        <div class="stage"><canvas tabindex="0" role="img"></canvas>
        <b class="left"></b><b class="right"></b><b class="top"></b><b class="bottom"></b></div>
        <input type="range" min="0">`;
      const part = (what) => this.box.querySelector(what);
      this.canvas = part("canvas");
      this.output = part("output");
      this.slider = part("input");
      this.letters = { left: part(".left"), right: part(".right"), top: part(".top"), bottom: part(".bottom") };
      part("figcaption span").textContent = title;
      const enlarge = part("button");
      enlarge.textContent = "⤢";
      enlarge.title = t["viewer.enlarge"];
      enlarge.setAttribute("aria-label", `${t["viewer.enlarge"]}: ${title}`);
      enlarge.setAttribute("aria-pressed", "false");
      enlarge.onclick = () => {
        const on = this.box.classList.toggle("large");
        enlarge.setAttribute("aria-pressed", String(on));
        this.viewer.panes.forEach((pane) => pane.fit());
        this.viewer.draw();
      };
      this.canvas.setAttribute("aria-label", this.viewer.volume.kind === "image" ? t["viewer.pane.image"]
        : t["viewer.pane"].replace("{plane}", title));
      this.slider.max = this.depth - 1;
      this.slider.hidden = this.depth === 1;
      this.slider.setAttribute("aria-label", t["viewer.slice"].replace("{plane}", title));
      this.slider.oninput = () => this.viewer.move(this.cuts, Number(this.slider.value));
      this.canvas.addEventListener("wheel", (event) => {
        if (this.depth === 1) return;
        event.preventDefault();
        this.viewer.move(this.cuts, this.viewer.at[this.cuts] - Math.sign(event.deltaY));
      }, { passive: false });
      this.canvas.addEventListener("pointerdown", (event) => this.hold(event));
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      this.letters.left.ariaHidden = this.letters.right.ariaHidden = "true";
    }

    /** Whether the screen's left-to-right runs against the axis. */
    get turned() {
      if (this.forward) return false;
      return this.flips ? this.viewer.radiological : true; // sagittal: the face looks left
    }

    hold(event) {
      const start = [event.clientX, event.clientY, this.viewer.brightness, this.viewer.contrast];
      const windowing = event.shiftKey || event.button === 2;
      const go = (now) => {
        if (windowing) {
          this.viewer.window(start[2] + (start[1] - now.clientY) / 2, start[3] + (now.clientX - start[0]) / 2);
          return;
        }
        const frame = this.canvas.getBoundingClientRect();
        const clip = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
        const column = clip((now.clientX - frame.left) / frame.width, this.width);
        const row = clip((now.clientY - frame.top) / frame.height, this.height);
        this.viewer.place({ [this.across]: this.turned ? this.width - 1 - column : column,
          [this.down]: this.height - 1 - row });
      };
      this.canvas.setPointerCapture(event.pointerId);
      const stop = () => {
        this.canvas.removeEventListener("pointermove", go);
      };
      this.canvas.addEventListener("pointermove", go);
      this.canvas.addEventListener("pointerup", stop, { once: true });
      this.canvas.addEventListener("pointercancel", stop, { once: true });
      go(event);
    }

    key(event) {
      const step = event.shiftKey ? 10 : 1;
      const sideways = this.turned ? -step : step;
      const moves = {
        ArrowLeft: [this.across, -sideways], ArrowRight: [this.across, sideways], ArrowUp: [this.down, step],
        ArrowDown: [this.down, -step], PageUp: [this.cuts, step], PageDown: [this.cuts, -step],
      };
      if (event.key === "Home") this.viewer.centre();
      else if (moves[event.key]) this.viewer.move(moves[event.key][0], this.viewer.at[moves[event.key][0]] + moves[event.key][1]);
      else return;
      event.preventDefault();
    }

    fit() {
      const width = this.canvas.clientWidth || 300;
      const scale = Math.min(2, window.devicePixelRatio || 1);
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round((width / this.aspect) * scale);
    }

    draw() {
      const { volume, map, at, table } = this.viewer;
      const strides = [volume.shape[1] * volume.shape[2], volume.shape[2], 1];
      const [stepX, stepY] = [strides[this.across], strides[this.down]];
      const base = at[this.cuts] * strides[this.cuts];
      const out = this.pixels.data;
      const heat = map && this.viewer.mapOn ? map.data : null;
      const { opacity, threshold, style, colours, air } = this.viewer;
      let to = 0;
      for (let row = 0; row < this.height; row++) {
        const line = base + (this.height - 1 - row) * stepY;
        for (let column = 0; column < this.width; column++, to += 4) {
          const from = line + (this.turned ? this.width - 1 - column : column) * stepX;
          const grey = table[volume.data[from]];
          let red = grey;
          let green = grey;
          let blue = grey;
          if (heat && heat[from] > threshold) {
            const colour = colours[heat[from]];
            // the weak fades in, so that the threshold is no hard edge; over air the map is only hinted at
            const strength = (heat[from] - threshold) / (255 - threshold);
            const share = opacity * (style.faintest + (1 - style.faintest) * strength)
              * (volume.data[from] < air ? style.over_air : 1);
            red += share * (colour[0] - red);
            green += share * (colour[1] - green);
            blue += share * (colour[2] - blue);
          }
          out[to] = red;
          out[to + 1] = green;
          out[to + 2] = blue;
          out[to + 3] = 255;
        }
      }
      this.buffer.getContext("2d").putImageData(this.pixels, 0, 0);
      const context = this.canvas.getContext("2d");
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.buffer, 0, 0, this.canvas.width, this.canvas.height);
      this.viewer.outlines?.draw(this, context);
      if (this.viewer.cross && this.depth > 1) this.drawCross(context);
      this.label();
    }

    drawCross(context) {
      const { at } = this.viewer;
      const across = this.turned ? this.width - 1 - at[this.across] : at[this.across];
      const x = ((across + 0.5) / this.width) * this.canvas.width;
      const y = ((this.height - 0.5 - at[this.down]) / this.height) * this.canvas.height;
      const gap = 9 * Math.min(2, window.devicePixelRatio || 1);
      context.strokeStyle = "rgba(94, 200, 230, 0.75)";
      context.lineWidth = Math.min(2, window.devicePixelRatio || 1);
      context.beginPath();
      for (const [from, to] of [[[0, y], [x - gap, y]], [[x + gap, y], [this.canvas.width, y]],
        [[x, 0], [x, y - gap]], [[x, y + gap], [x, this.canvas.height]]]) {
        context.moveTo(...from);
        context.lineTo(...to);
      }
      context.stroke();
    }

    label() {
      const known = this.viewer.volume.oriented;
      const sides = this.flips && !this.viewer.radiological ? [...this.sides].reverse() : this.sides;
      const words = { left: sides[0], right: sides[1], top: this.ends[0], bottom: this.ends[1] };
      for (const [where, letter] of Object.entries(words)) this.letters[where].textContent = known ? letter : "";
      this.output.textContent = this.depth > 1 ? `${this.viewer.at[this.cuts] + 1} / ${this.depth}` : "";
      this.slider.value = this.viewer.at[this.cuts];
    }
  }

  class Viewer {
    constructor(section, volume) {
      this.section = section;
      this.texts = JSON.parse(section.dataset.texts);
      this.volume = volume;
      this.key = section.dataset.key;
      this.radiological = localStorage.getItem("scanwise.display") !== "neurological";
      this.cross = true;
      this.brightness = this.contrast = 0;
      this.mapOn = localStorage.getItem("scanwise.map") !== "off";
      this.map = null;
      this.style = JSON.parse(section.dataset.style); // the report's own, so that both show a map alike
      this.colours = palette(this.style.stops);
      this.air = this.style.air * 255;
      this.opacity = this.style.opacity;
      this.threshold = Math.round(this.style.threshold * 255);
      this.maps = {};
      const names = volume.kind === "image" ? ["image"] : ["axial", "coronal", "sagittal"];
      this.panes = names.map((name) => new Pane(this, name));
      const host = section.querySelector("#panes");
      host.replaceChildren(...this.panes.map((pane) => pane.box));
      host.dataset.count = this.panes.length;
      this.window(0, 0, false);
      this.centre(false);
      this.bind();
      this.resize = new ResizeObserver(() => {
        this.panes.forEach((pane) => pane.fit());
        this.draw();
      });
      this.resize.observe(host);
      this.panes.forEach((pane) => pane.fit());
      this.draw();
    }

    find(id) { return this.section.querySelector(`#${id}`); }

    bind() {
      const display = this.find("display");
      display.value = this.radiological ? "radiological" : "neurological";
      display.onchange = () => {
        this.radiological = display.value === "radiological";
        localStorage.setItem("scanwise.display", display.value);
        this.draw();
      };
      if (this.volume.kind === "image") {
        display.closest("label").hidden = true;
        this.find("cross").closest("label").hidden = true;
        this.find("map-peak")?.setAttribute("hidden", "");
      }
      const slide = () => this.window(Number(this.find("brightness").value), Number(this.find("contrast").value));
      this.find("brightness").oninput = this.find("contrast").oninput = slide;
      this.find("cross").onchange = (event) => { this.cross = event.target.checked; this.draw(); };
      this.find("reset").onclick = () => { this.window(0, 0, false); this.centre(); };
      this.section.querySelector("#panes").oncontextmenu = (event) => event.preventDefault();
      if (this.find("outlines")) this.outlines = new window.scanwiseOutlines(this, unpack);
      if (!this.find("map-on")) return;
      this.find("map-on").checked = this.mapOn;
      this.find("map-on").onchange = (event) => {
        this.mapOn = event.target.checked;
        localStorage.setItem("scanwise.map", this.mapOn ? "on" : "off");
        if (this.mapOn) this.askMap();
        this.draw();
      };
      this.find("map-method").onchange = this.find("map-class").onchange = () => this.askMap();
      this.find("map-opacity").oninput = (event) => { this.opacity = event.target.value / 100; this.draw(); };
      this.find("map-threshold").oninput = (event) => {
        this.threshold = Math.round(event.target.value * 2.55);
        this.drawBar();
        this.draw();
      };
      this.find("map-peak").onclick = () => this.peak();
      this.drawBar();
      this.askMap();
    }

    /** Move to where the map is strongest. */
    peak() {
      if (!this.map) return;
      const where = this.map.data.reduce((best, value, at, all) => (value > all[best] ? at : best), 0);
      const [, tall, deep] = this.volume.shape;
      this.place({ 0: Math.floor(where / (tall * deep)), 1: Math.floor(where / deep) % tall, 2: where % deep });
    }

    drawBar() {
      const context = this.find("map-bar").getContext("2d");
      for (let x = 0; x < 200; x++) {
        const value = Math.round((x / 199) * 255);
        context.fillStyle = value <= this.threshold ? "rgba(128,128,128,.25)" : `rgb(${this.colours[value].map(Math.round)})`;
        context.fillRect(x, 0, 1, 10);
      }
    }

    /** Fetch the chosen map, or take it from those already fetched. */
    async askMap() {
      const [method, code] = [this.find("map-method").value, this.find("map-class").value];
      const query = `method=${encodeURIComponent(method)}&code=${encodeURIComponent(code)}`;
      for (const link of document.querySelectorAll("a[data-map]")) {
        link.href = `/results/${this.key}/map.${link.dataset.map}?${query}`;
      }
      if (!this.mapOn) return;
      this.asked = query;
      const said = this.find("map-said");
      if (this.fetching) this.fetching.abort();
      if (!this.maps[query]) {
        this.fetching = new AbortController();
        said.textContent = this.texts["map.working"];
        said.className = "small map-said";
        const stop = this.follow();
        try {
          this.maps[query] = await unpack(`/results/${this.key}/map?${query}`, this.fetching.signal);
        } catch (error) {
          if (this.asked === query) {
            this.map = null;
            said.textContent = `${this.texts["map.failed"]} ${error.message}`;
            said.className = "small map-said bad";
            this.draw();
          }
          return;
        } finally { stop(); }
      }
      if (this.asked !== query || !this.section.isConnected) return;
      this.map = this.maps[query];
      this.section.dataset.map = query;
      said.textContent = "";
      this.regions(this.map.regions);
      if (this.map.warnings.length) {
        said.textContent = this.map.warnings.map((code) => this.texts[`warning.${code}`]).join(" ");
        said.className = "small map-said bad";
      }
      this.draw();
    }

    /** Show how far a slow map is, until the returned function is called. */
    follow() {
      const bar = this.find("map-progress");
      const timer = setInterval(async () => {
        const answer = await fetch(`/results/${this.key}/progress`).then((r) => r.json()).catch(() => ({}));
        if (typeof answer.done === "number" && answer.done > 0) {
          bar.hidden = false;
          bar.firstElementChild.style.width = `${Math.round(100 * answer.done)}%`;
        }
      }, 700);
      return () => { clearInterval(timer); bar.hidden = true; };
    }

    /** The regions in which the map lies, as the server ranked and wrote them. */
    regions(rows) {
      this.find("map-where").hidden = !rows.length;
      this.find("map-regions").replaceChildren(...rows.slice(0, 6).map(([name, share, shown]) => {
        const row = document.createElement("div");
        const [title, value] = [document.createElement("dt"), document.createElement("dd")];
        title.textContent = this.texts[`region.${name}`];
        value.textContent = shown;
        row.style.setProperty("--share", `${100 * share}%`);
        row.append(title, value);
        return row;
      }));
    }

    /** The middle of the grid, or of what there is to see where the grid's middle is empty. */
    centre(draw = true) {
      const { shape, data } = this.volume;
      const [, tall, deep] = shape;
      this.at = shape.map((count) => Math.floor(count / 2));
      if (data[(this.at[0] * tall + this.at[1]) * deep + this.at[2]] < this.air) {
        const sums = [0, 0, 0];
        let seen = 0;
        for (let i = 0; i < data.length; i += 5) {
          if (data[i] < 4 * this.air) continue;
          sums[0] += Math.floor(i / (tall * deep));
          sums[1] += Math.floor(i / deep) % tall;
          sums[2] += i % deep;
          seen += 1;
        }
        if (seen) this.at = sums.map((sum) => Math.round(sum / seen));
      }
      if (draw) this.draw();
    }

    move(axis, value) { this.place({ [axis]: value }); }

    place(where) {
      for (const [axis, value] of Object.entries(where)) {
        this.at[axis] = Math.min(this.volume.shape[axis] - 1, Math.max(0, value));
      }
      this.draw();
    }

    window(brightness, contrast, draw = true) {
      const clip = (value) => Math.max(-100, Math.min(100, Math.round(value)));
      this.brightness = clip(brightness);
      this.contrast = clip(contrast);
      this.find("brightness").value = this.brightness;
      this.find("contrast").value = this.contrast;
      const gain = 2 ** (this.contrast / 40);
      const middle = 110 - this.brightness;
      this.table = Uint8ClampedArray.from({ length: 256 }, (_, value) => (value - middle) * gain + middle + this.brightness);
      if (draw) this.draw();
    }

    /** Once a frame, however many things ask for it. */
    draw() {
      if (this.drawing) return;
      this.drawing = requestAnimationFrame(() => {
        this.drawing = null;
        this.panes.forEach((pane) => pane.draw());
        this.outlines?.tell();
        this.section.dataset.drawn = Number(this.section.dataset.drawn || 0) + 1;
      });
    }

    close() {
      if (this.fetching) this.fetching.abort();
      this.resize.disconnect();
    }
  }

  let open = null;
  window.scanwiseViewer = {
    async open(section) {
      if (open) open.close();
      open = null;
      const texts = JSON.parse(section.dataset.texts);
      const said = section.querySelector("#viewer-said");
      try {
        const volume = await unpack(`/results/${section.dataset.key}/volume`);
        if (!section.isConnected) return;
        open = new Viewer(section, volume);
        said.textContent = volume.kind === "volume" && !volume.oriented ? texts["viewer.unoriented"] : "";
        section.dataset.ready = "yes";
      } catch (error) {
        said.textContent = `${texts["viewer.failed"]} ${error.message}`;
        said.classList.add("bad");
        section.dataset.ready = "failed";
      }
    },
    get current() { return open; },
  };
})();
