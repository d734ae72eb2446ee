"""The page: one PyWebIO session a visitor, which hears what was pressed and shows the next view.

The words come from `words`, the markup stands in `web/pages/` (tornado templates, which escape what they are
given), the handling of files and canvases in `web/page.js` and `web/viewer.js`. What the browser says is
checked before use: it may say anything.
"""

import json
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

import tornado.template
from pywebio import config
from pywebio.output import put_html, use_scope
from pywebio.session import defer_call, eval_js, get_current_session, info, run_js

from networks.dropout import PASSES
from reports.wording import LANGUAGES, WEB, Texts, language_of, percent, span
from scans.read import READERS, safe_name
from server import payloads
from server.details import details, file_name
from server.state import Busy, Cancelled, Job, PageSession, Result, ServerState, Upload, failure

log = logging.getLogger("scanwise")

STEPS = ("read", "prepare", "check", "predict")
KINDS = {"fit": "fit", "doubtful": "doubtful", "cannot be judged": "unfit"}
IN_BROWSER = ("upload.failed", "lost", "reload")  # texts that scripts need on every page
IN_VIEWER = ("viewer.", "map.", "region.", "warning.")  # and in the viewer


class Visit:
    """One open page."""

    def __init__(self, state: ServerState, session: PageSession, language: str, examples: dict[str, Path | None]):
        self.state, self.session, self.examples = state, session, examples
        self.t = Texts(language)
        self.loader = tornado.template.Loader(str(WEB / "pages"), autoescape="xhtml_escape")
        self.weights = next(iter(state.diagnosers))
        self.view: Callable[[], None] = self.start
        self.results: list[Result] = []
        self.opened: Result | None = None
        self.sent: list[Upload | Result] = []  # what was asked last, refused uploads among it, for "try again"
        self.wishes: dict[str, Any] = {}  # and how

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        actions = {
            "language": self.on_language,
            "choose": self.on_choose,
            "example": self.on_example,
            "uploaded": self.on_uploaded,
            "again": self.on_again,
            "open": self.on_open,
            "back": self.on_back,
            "anyway": self.on_anyway,
            "uncertainty": self.on_uncertainty,
            "new": self.on_new,
        }
        self.head()
        self.view()
        while True:
            event = eval_js("scanwise.next()")
            if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
                continue
            action = actions.get(event["kind"])
            if action is not None:
                action(event.get("value"))

    def show(self, template: str, **values: Any) -> None:
        html = self.loader.load(f"{template}.html").generate(t=self.t, language=self.t.language, **values)
        with use_scope("page", clear=True):
            put_html(html.decode())
        run_js("scanwise.shown(name)", name=template)

    def head(self) -> None:
        html = self.loader.load("head.html").generate(
            t=self.t, language=self.t.language, languages=LANGUAGES.items()
        )
        with use_scope("head", clear=True):
            put_html(html.decode())
        run_js(
            "scanwise.speak(language, words)",
            language={"zh": "zh-CN"}.get(self.t.language, self.t.language),
            words={key: self.t(key) for key in IN_BROWSER},
        )

    # --- what was pressed --------------------------------------------------------------------------------

    def on_language(self, value: Any) -> None:
        if value in LANGUAGES:
            self.t = Texts(value)
            self.head()
            self.view()

    def on_choose(self, value: Any) -> None:
        if isinstance(value, str) and value in self.state.diagnosers:
            self.weights = value
            self.view()

    def on_example(self, value: Any) -> None:
        example = self.examples.get(self.weights)
        if example is not None:
            self.judge([Upload(example, example.name, ours=False)])

    def on_uploaded(self, value: Any) -> None:
        """Files that arrived, by their keys, and those that were refused on the way, in the person's order."""
        files = value.get("files") if isinstance(value, dict) else None
        if not isinstance(files, list):
            return
        sent: list[Upload | Result] = []
        for file in files[: self.session.FILES]:
            if not isinstance(file, dict):
                continue
            upload = self.session.uploads.get(str(file.get("id")))
            if upload is not None:
                sent.append(upload)
            elif isinstance(file.get("error"), dict):
                error = {key: str(file["error"].get(key, ""))[:500] for key in ("code", "message")}
                name = safe_name(str(file.get("name", ""))[:255])
                sent.append(
                    Result(
                        secrets.token_urlsafe(8),
                        Upload(Path(), name, ours=False),
                        self.weights,
                        {"file": name, "error": error},
                    )
                )
        if sent:
            self.judge(sent)

    def on_again(self, value: Any) -> None:
        if self.sent:
            self.judge(self.sent, **self.wishes)

    def on_open(self, value: Any) -> None:
        self.opened = next((result for result in self.results if result.id == value), None)
        if self.opened is not None:
            self.view = self.result
            self.view()

    def on_back(self, value: Any) -> None:
        if len(self.results) > 1:
            self.view = self.table
            self.view()

    def on_anyway(self, value: Any) -> None:
        if self.opened is not None and not self.opened.refused:
            self.judge([self.opened.upload], anyway=True, instead=True)

    def on_uncertainty(self, value: Any) -> None:
        opened = self.opened
        if opened is not None and not opened.refused and not self.state.diagnosers[opened.weights].no_passes:
            anyway = opened.record["gate"]["judged_anyway"]
            self.judge([opened.upload], anyway=anyway, passes=PASSES, instead=True)

    def on_new(self, value: Any) -> None:
        self.session.clear()
        self.results, self.opened, self.sent = [], None, []
        self.view = self.start
        self.view()

    # --- judging -----------------------------------------------------------------------------------------

    def judge(
        self, sent: list[Upload | Result], anyway: bool = False, passes: int = 0, instead: bool = False
    ) -> None:
        """Put the files in the queue, show how it goes, and show the result, the table or the refusal.

        `instead`: the one answer takes the place of the opened result.
        """
        self.sent, self.wishes = sent, {"anyway": anyway, "passes": passes, "instead": instead}
        uploads = [file for file in sent if isinstance(file, Upload)]
        heard = {"file": 0, "step": ""}
        weights = self.opened.weights if instead and self.opened else self.weights

        def work(job: Job) -> list[Result]:
            answers = []
            for number, upload in enumerate(uploads):

                def step(name: str, number: int = number) -> None:
                    heard.update(file=number, step=name if name in STEPS else heard["step"])
                    if job.stop.is_set():
                        raise Cancelled

                answers.append(self.state.answer(upload, weights, anyway, passes, step))
            return answers

        try:
            job = self.session.submit(work)
        except Busy as busy:
            number = busy.number
            self.view = lambda: self.show("busy", number=number)
            self.view()
            return
        self.show("work", steps=STEPS)
        answers = self.watch(job, heard, len(uploads))
        for result in answers:
            self.session.results[result.id] = result
        if self.session.closed:  # it closed between the job's end and this line
            self.state.forget([result.id for result in answers])
            return
        if len(answers) < len(uploads):  # stopped
            self.on_new(None)
            return
        judged = iter(answers)
        if instead:
            self.results = [next(judged) if result is self.opened else result for result in self.results]
        else:
            self.results = [next(judged) if isinstance(file, Upload) else file for file in sent]
        self.opened = answers[0] if instead else self.results[0]
        self.view = self.table if len(self.results) > 1 and not instead else self.result
        self.view()

    def watch(self, job: Job, heard: dict[str, Any], count: int) -> list[Result]:
        """Tell the page of each change until the job is done."""
        said = None
        while True:
            wait_for([job.future], timeout=0.05)
            if job.future.done():
                break
            if self.state.pool.waits(job):
                place = self.state.pool.ahead(job) + 1
                state = {"said": self.t("work.queue", number=place), "step": "", "done": 0}
            else:
                at = STEPS.index(heard["step"]) if heard["step"] in STEPS else 0
                done = (heard["file"] + (at + 0.5) / len(STEPS)) / count
                file = self.t("work.file", number=heard["file"] + 1, total=count) if count > 1 else ""
                state = {"said": file, "step": STEPS[at], "done": done}
            if state != said:
                run_js("scanwise.work(state)", state=state)
                said = state
        try:
            return job.future.result()
        except (Cancelled, CancelledError):
            return []

    # --- the views ---------------------------------------------------------------------------------------

    def start(self) -> None:
        weights = self.state.diagnosers[self.weights].weights
        choices = [
            (name, f"{self.t.study_title(d.study)} · {self.t.weights_title(d.weights)}")
            for name, d in self.state.diagnosers.items()
        ]
        study = weights.study
        self.show(
            "start",
            study=self.t.study_title(study),
            question=self.t.of_study("question", study, study.question),
            choices=choices,
            weights=self.weights,
            formats=" ".join(READERS),
            limit=self.state.uploads.limit >> 20,
            example=self.examples.get(self.weights) is not None,
            title=self.t.weights_title(weights),
            measured=self.t.measured(weights.header),
        )

    def result(self) -> None:
        result = self.opened
        if result is None or result.refused:
            self.refusal(result)
            return
        record = result.record
        weights = self.state.diagnosers[result.weights].weights
        study, label = weights.study, record["label"]
        calibration = weights.header.get("calibration") or {}
        chances = record["probabilities"] or {}
        bars = [
            {
                "code": code,
                "name": self.t.class_name(study, code),
                "percent": 100 * chances[code],
                "shown": percent(chances[code]),
                "top": code == label,
                "in": code in record["set"],
            }
            for code in study.by_severity
            if chances
        ]
        for bar in bars if record["intervals"] else ():
            low, high = record["intervals"][bar["code"]]
            bar |= {"low": 100 * low, "width": 100 * (high - low), "range": span(low, high)}
        if calibration.get("scores"):
            promise = self.t("set.promise", level=f"{record['level']:.0%}")
            note = self.t("result.set.note", miss=f"{1 - record['level']:.0%}")
        else:
            promise, note = "", self.t("result.set.raw")
        ends = (study.by_severity[0], study.by_severity[-1])
        self.show(
            "result",
            key=result.id,
            file=file_name(self.t, result),
            back=len(self.results) > 1,
            label=label,
            name=self.t.class_name(study, label) if label else None,
            verdict=record["gate"]["verdict"],
            kind=KINDS[record["gate"]["verdict"]],
            judged_anyway=record["gate"]["judged_anyway"],
            reasons=[self.t.reason(finding) for finding in result.findings],
            promise=promise,
            answers=[(code, self.t.class_name(study, code)) for code in record["set"] or ()],
            set_note=note,
            calibrated="temperature" in calibration,
            ordered=study.ordered,
            bars=bars,
            drops=not self.state.diagnosers[result.weights].no_passes,
            passes=PASSES,
            intervals=bool(record["intervals"]),
            severity=record["severity"],
            ends=ends,
            methods=payloads.methods(),
            volume=weights.contract.kind == "volume",
            viewer_texts=json.dumps(self.t.some(*IN_VIEWER)),
            by=self.t.weights_title(weights),
            details=details(self.t, result, weights),
            card=weights.header.get("card"),
        )

    def table(self) -> None:
        rows = []
        for result in self.results:
            record = result.record
            if result.refused:
                rows.append(
                    {
                        "id": result.id,
                        "file": record["file"],
                        "name": None,
                        "code": "",
                        "chance": None,
                        "why": self.t.error_title(record["error"]["code"]),
                        "kind": "unfit",
                        "verdict": self.t("table.refused"),
                    }
                )
                continue
            study, label, verdict = (
                self.state.diagnosers[result.weights].study,
                record["label"],
                record["gate"]["verdict"],
            )
            rows.append(
                {
                    "id": result.id,
                    "file": file_name(self.t, result),
                    "code": label,
                    "name": self.t.class_name(study, label) if label else None,
                    "why": self.t("result.none"),
                    "chance": 100 * record["probabilities"][label] if label else None,
                    "shown": percent(record["probabilities"][label]) if label else "",
                    "kind": KINDS[verdict],
                    "verdict": self.t(f"table.{verdict}"),
                }
            )
        self.show("table", rows=rows)

    def refusal(self, result: Result | None) -> None:
        error = result.record["error"] if result else {"code": "missing", "message": ""}
        code = error["code"] if self.t.has(f"remedy.{error['code']}") else "other"
        english = self.t.language == "en"
        file = result.record["file"] if result else ""
        message = error["message"].removeprefix(f"{file}: ")
        message = message[:1].upper() + message[1:]
        words = message if english and message else self.t(f"remedy.{code}")
        self.show(
            "refusal",
            heading=self.t.error_title(error["code"]),
            file=file,
            words=words,
            detail="" if english else message,
            number=error.get("id"),
            back=len(self.results) > 1,
        )


def application(state: ServerState, examples: dict[str, Path | None]) -> Callable[[], None]:
    """What PyWebIO runs for each page that opens."""

    @config(
        title="Scanwise",
        description="Upload a scan, see what a network makes of it and why.",
        css_file=["/web/style.css"],
        js_file=["/web/viewer.js", "/web/page.js"],
        manifest=False,
    )
    def visit() -> None:
        session = state.enter()
        webio = get_current_session()
        session.on_close = lambda: webio.close(nonblock=True)
        defer_call(session.close)
        try:
            language = eval_js("scanwise.hello(token)", token=session.token)
            known = language if language in LANGUAGES else language_of(str(info.user_language))
            Visit(state, session, known, examples).run()
        except Exception as error:
            if not webio.closed():
                number = failure(error)
                run_js("scanwise.broken(number)", number=number)
        finally:
            session.close()

    return visit
