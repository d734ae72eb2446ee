"""The page: one PyWebIO session a visitor, which hears what was pressed and shows the next view.

The words stand in `web/texts.json`, the markup in `web/pages/` (tornado templates, which escape what they are
given), the handling of files and canvases in `web/page.js` and `web/viewer.js`. What the browser says is
checked before use: it may say anything.
"""

import json
import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from functools import cache
from pathlib import Path
from typing import Any

import tornado.template
from pywebio import config
from pywebio.output import put_html, use_scope
from pywebio.session import defer_call, eval_js, get_current_session, info, run_js

import scans
import views
from desk import Busy, Cancelled, Desk, Person, Result, Ticket, Upload, failure

log = logging.getLogger("scanwise")

WEB = Path(__file__).resolve().parent / "web"
LANGUAGES = {"en": "English", "zh": "中文"}
STEPS = ("read", "prepare", "check", "predict")
KINDS = {"fit": "fit", "doubtful": "doubtful", "cannot be judged": "unfit"}
IN_BROWSER = ("upload.failed", "lost", "reload")  # texts that scripts need on every page
IN_VIEWER = ("viewer.", "map.", "region.", "warning.")  # and in the viewer


@cache
def tables() -> dict[str, dict[str, str]]:
    """The words by language and key: the page's own, and those that it shares with the report."""
    found: dict[str, dict[str, str]] = {}
    for name in ("report.json", "texts.json"):
        for language, words in json.loads((WEB / name).read_text(encoding="utf-8")).items():
            found.setdefault(language, {}).update(words)
    return found


class Texts:
    """The words of one language; English where one is missing."""

    def __init__(self, language: str):
        self.tables = tables()
        self.language = language if language in self.tables else "en"

    def has(self, key: str) -> bool:
        return key in self.tables["en"]

    def __call__(self, key: str, **values: Any) -> str:
        words = self.tables[self.language].get(key) or self.tables["en"][key]
        return words.format(**values) if values else words

    def some(self, *starts: str) -> dict[str, str]:
        return {key: self(key) for key in self.tables["en"] if key.startswith(starts)}


def language_of(accepted: str) -> str:
    """The page's language for what the browser prefers."""
    return "zh" if accepted.lower().startswith("zh") else "en"


class Visit:
    """One open page."""

    def __init__(self, desk: Desk, person: Person, language: str, example: Path | None):
        self.desk, self.person, self.example = desk, person, example
        self.t = Texts(language)
        self.loader = tornado.template.Loader(str(WEB / "pages"), autoescape="xhtml_escape")
        self.weights = next(iter(desk.diagnosers))
        self.view: Callable[[], None] = self.start
        self.results: list[Result] = []
        self.opened: Result | None = None
        self.sent: list[Upload] = []  # what was asked last, for "try again"
        self.refused: list[Result] = []

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        actions = {
            "language": self.on_language, "choose": self.on_choose, "example": self.on_example,
            "uploaded": self.on_uploaded, "again": self.on_again, "open": self.on_open, "back": self.on_back,
            "anyway": self.on_anyway, "new": self.on_new,
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
            t=self.t, language=self.t.language, languages=LANGUAGES.items())
        with use_scope("head", clear=True):
            put_html(html.decode())
        run_js("scanwise.speak(language, words)", language={"zh": "zh-CN"}.get(self.t.language, self.t.language),
               words={key: self.t(key) for key in IN_BROWSER})

    # --- what was pressed --------------------------------------------------------------------------------

    def on_language(self, value: Any) -> None:
        if value in LANGUAGES:
            self.t = Texts(value)
            self.head()
            self.view()

    def on_choose(self, value: Any) -> None:
        if isinstance(value, str) and value in self.desk.diagnosers:
            self.weights = value
            self.view()

    def on_example(self, value: Any) -> None:
        if self.example is not None:
            self.judge([Upload(self.example, self.example.name, ours=False)])

    def on_uploaded(self, value: Any) -> None:
        """Files that arrived, by their keys, and those that were refused on the way, in the person's order."""
        files = value.get("files") if isinstance(value, dict) else None
        if not isinstance(files, list):
            return
        uploads, self.refused = [], []
        for file in files[:self.person.FILES]:
            if not isinstance(file, dict):
                continue
            upload = self.person.uploads.get(str(file.get("id")))
            if upload is not None:
                uploads.append(upload)
            elif isinstance(file.get("error"), dict):
                error = {key: str(file["error"].get(key, ""))[:500] for key in ("code", "message")}
                name = scans.safe_name(str(file.get("name", ""))[:255])
                self.refused.append(Result("", Upload(Path(), name, ours=False), self.weights,
                                           {"file": name, "error": error}))
        if uploads or self.refused:
            self.judge(uploads)

    def on_again(self, value: Any) -> None:
        if self.sent:
            self.judge(self.sent)

    def on_open(self, value: Any) -> None:
        self.opened = next((result for result in self.results if result.id and result.id == value), None)
        if self.opened is not None:
            self.view = self.result
            self.view()

    def on_back(self, value: Any) -> None:
        if len(self.results) > 1:
            self.view = self.table
            self.view()

    def on_anyway(self, value: Any) -> None:
        if self.opened is not None and not self.opened.refused:
            self.judge([self.opened.upload], anyway=True)

    def on_new(self, value: Any) -> None:
        self.person.clear()
        self.results, self.opened, self.sent, self.refused = [], None, [], []
        self.view = self.start
        self.view()

    # --- judging -----------------------------------------------------------------------------------------

    def judge(self, uploads: list[Upload], anyway: bool = False) -> None:
        """Put the files in the queue, show how it goes, and show the result, the table or the refusal."""
        self.sent = uploads
        heard = {"file": 0, "step": ""}
        weights = self.weights

        def work(ticket: Ticket) -> list[Result]:
            answers = []
            for number, upload in enumerate(uploads):
                def step(name: str, number: int = number) -> None:
                    heard.update(file=number, step=name)
                    if ticket.stop.is_set():
                        raise Cancelled

                answers.append(self.desk.answer(upload, weights, anyway, step))
            return answers

        try:
            ticket = self.person.submit(work)
        except Busy as busy:
            number = busy.number
            self.view = lambda: self.show("busy", number=number)
            self.view()
            return
        self.show("work", steps=STEPS)
        answers = self.watch(ticket, heard, len(uploads))
        for result in answers:
            self.person.results[result.id] = result
        if self.person.closed:  # it closed between the job's end and this line
            self.desk.forget([result.id for result in answers])
            return
        if anyway and len(self.results) > 1:
            self.results = [answers[0] if result is self.opened else result for result in self.results]
        else:
            self.results = answers + self.refused
        self.opened = answers[0] if answers else self.results[0]
        self.view = self.table if len(self.results) > 1 and not anyway else self.result
        self.view()

    def watch(self, ticket: Ticket, heard: dict[str, Any], count: int) -> list[Result]:
        """Tell the page of each change until the job is done."""
        said = None
        while True:
            wait_for([ticket.future], timeout=0.05)
            if ticket.future.done():
                break
            if self.desk.pool.waits(ticket):
                place = self.desk.pool.ahead(ticket) + 1
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
            return ticket.future.result()
        except (Cancelled, CancelledError):
            return []

    # --- the views ---------------------------------------------------------------------------------------

    def start(self) -> None:
        weights = self.desk.diagnosers[self.weights].weights
        choices = [(name, f"{self.study_title(d.study)} · {d.weights.header.get('title', name)}")
                   for name, d in self.desk.diagnosers.items()]
        study = weights.study
        self.show("start", study=self.study_title(study),
                  question=self.of_study("question", study, study.question), choices=choices, weights=self.weights, formats=" ".join(scans.READERS),
                  limit=self.desk.uploads.limit >> 20, example=self.example is not None,
                  title=weights.header.get("title", weights.name), measured=self.measured(weights.header))

    def result(self) -> None:
        result = self.opened
        if result is None or result.refused:
            self.refusal(result)
            return
        record = result.record
        weights = self.desk.diagnosers[result.weights].weights
        study, label = weights.study, record["label"]
        calibration = weights.header.get("calibration") or {}
        chances = record["probabilities"] or {}
        bars = [{"code": code, "name": self.class_name(study, code), "percent": 100 * chances[code],
                 "top": code == label, "in": code in record["set"]} for code in study.by_severity if chances]
        level = f"{record['level']:.0%}"
        note = self.t("result.set.note", miss=f"{1 - record['level']:.0%}") if calibration.get("scores") else \
            self.t("result.set.raw")
        ends = (study.by_severity[0], study.by_severity[-1])
        self.show(
            "result", key=result.id, file=self.file_name(result), back=len(self.results) > 1, label=label,
            name=self.class_name(study, label) if label else None, verdict=record["gate"]["verdict"],
            kind=KINDS[record["gate"]["verdict"]], judged_anyway=record["gate"]["judged_anyway"],
            reasons=[self.reason(finding) for finding in result.findings], level=level,
            answers=[(code, self.class_name(study, code)) for code in record["set"] or ()],
            set_note=note, calibrated="temperature" in calibration, ordered=study.ordered, bars=bars,
            severity=record["severity"], ends=ends, methods=views.methods(),
            viewer_texts=json.dumps(self.t.some(*IN_VIEWER)),
            details=self.details(result), card=weights.header.get("card"),
        )

    def table(self) -> None:
        rows = []
        for result in self.results:
            record = result.record
            if result.refused:
                rows.append({"id": result.id, "file": record["file"], "name": None, "code": "", "chance": None,
                             "why": self.error_title(record["error"]["code"]), "kind": "unfit",
                             "verdict": self.t("table.refused")})
                continue
            study, label, verdict = self.desk.diagnosers[result.weights].study, record["label"], \
                record["gate"]["verdict"]
            rows.append({
                "id": result.id, "file": self.file_name(result), "code": label,
                "name": self.class_name(study, label) if label else None, "why": self.t("result.none"),
                "chance": 100 * record["probabilities"][label] if label else None, "kind": KINDS[verdict],
                "verdict": self.t(f"verdict.{verdict}"),
            })
        self.show("table", rows=rows)

    def refusal(self, result: Result | None) -> None:
        error = result.record["error"] if result else {"code": "missing", "message": ""}
        code = error["code"] if self.t.has(f"remedy.{error['code']}") else "other"
        english = self.t.language == "en"
        words = error["message"] if english and error["message"] else self.t(f"remedy.{code}")
        self.show("refusal", heading=self.error_title(error["code"]), file=result.record["file"] if result else "",
                  words=words, detail="" if english else error["message"], number=error.get("id"),
                  back=len(self.results) > 1)

    # --- words -------------------------------------------------------------------------------------------

    def of_study(self, what: str, study: Any, otherwise: str) -> str:
        key = f"{what}.{study.key}"
        return self.t(key) if self.t.has(key) else otherwise

    def study_title(self, study: Any) -> str:
        return self.of_study("study", study, study.title)

    def class_name(self, study: Any, code: str) -> str:
        key = f"class.{study.key}.{code}"
        if self.t.has(key):
            return self.t(key)
        return next(label.name for label in study.labels if label.code == code)

    def error_title(self, code: str) -> str:
        return self.t(f"error.{code}" if self.t.has(f"error.{code}") else "error.other")

    def reason(self, finding: Any) -> str:
        key = f"reason.{finding.code}"
        return self.t(key, **finding.values) if self.t.has(key) else finding.text

    def file_name(self, result: Result) -> str:
        return result.record["file"] if result.upload.ours else self.t("result.example")

    def measured(self, header: dict[str, Any]) -> str:
        """The first score that the weights carry, in a sentence, or that there is none."""
        scores = header.get("scores") or {}
        for name, score in (scores.get("metrics") or {}).items():
            return self.t("start.measured", metric=self.metric(name), value=interval(score),
                          subjects=scores.get("subjects", "?"), cohort=scores.get("cohort", "?"))
        return self.t("start.untrained")

    def metric(self, name: str) -> str:
        return self.t(f"metric.{name}") if self.t.has(f"metric.{name}") else name

    def details(self, result: Result) -> list[tuple[str, list[tuple[str, str]]]]:
        """Four short lists: the file, the grid, the time, the network."""
        t, facts, record = self.t, result.facts, result.record
        weights = self.desk.diagnosers[result.weights].weights
        header, contract = weights.header, weights.contract
        yes = {True: t("fact.yes"), False: t("fact.no")}
        read = [(t("fact.file"), self.file_name(result)), (t("fact.format"), facts.get("format"))]
        read += [(t("fact.shape"), " × ".join(map(str, facts.get("shape", ()))))]
        if facts.get("spacing"):
            read.append((t("fact.spacing"), " × ".join(f"{mm:g}" for mm in facts["spacing"]) + " mm"))
        if result.record and contract.kind == "volume":
            read.append((t("fact.orientation"), facts["orientation"] if facts.get("affine_known") else
                         t("fact.unknown")))
            read.append((t("fact.oblique"), yes[bool(facts.get("oblique"))]))
        read.append((t("fact.dtype"), facts.get("dtype")))
        read += [(t("fact.modality"), facts["modality"])] if facts.get("modality") else []
        read += [(t("fact.repaired"), f"{facts['repaired']:,}")] if facts.get("repaired") else []
        grid = " × ".join(map(str, contract.shape))
        spacing = " × ".join(f"{mm:g}" for mm in contract.spacing)
        prepared = [(t("fact.grid"), f"{grid}{f' · {spacing} mm' if spacing else ''}"),
                    (t("fact.place"), t(f"place.{contract.place}")),
                    (t("fact.scale"), t(f"scale.{contract.scale}"))]
        seconds, versions = record["seconds"], record["versions"]
        times = [(t(f"step.{step}"), t("seconds", value=f"{spent:.2f}")) for step, spent in seconds.items()]
        times.append((t("fact.total"), t("seconds", value=f"{sum(seconds.values()):.2f}")))
        times.append((t("fact.versions"), " · ".join(f"{name} {value}" for name, value in versions.items())))
        network = [(t("fact.weights"), header.get("title", weights.name)),
                   (t("fact.sha"), f"{weights.sha256[:16]}…"), (t("fact.use"), weights.study.use)]
        trained = (header.get("training") or {}).get("data")
        network += [(t("fact.trained"), trained)] if trained else []
        scores = (header.get("scores") or {}).get("metrics") or {}
        network += [(t("fact.scores"), ", ".join(
            f"{self.metric(name)} {interval(score)}" for name, score in scores.items()) or t("fact.noscores"))]
        return [(t("details.scan"), read), (t("details.prepared"), prepared), (t("details.time"), times),
                (t("details.network"), network)]


def interval(score: dict[str, Any]) -> str:
    """A score with its interval; a dash where one could not be had."""
    value, low, high = ("–" if score.get(key) is None else f"{score[key]:.2f}" for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def application(desk: Desk, example: Path | None) -> Callable[[], None]:
    """What PyWebIO runs for each page that opens."""

    @config(title="Scanwise", description="Upload a scan, see what a network makes of it and why.",
            css_file=["/web/style.css"], js_file=["/web/viewer.js", "/web/page.js"], manifest=False)
    def visit() -> None:
        person = desk.enter()
        session = get_current_session()
        person.on_close = lambda: session.close(nonblock=True)
        defer_call(person.close)
        try:
            language = eval_js("scanwise.hello(token)", token=person.token)
            known = language if language in LANGUAGES else language_of(str(info.user_language))
            Visit(desk, person, known, example).run()
        except Exception as error:
            if not session.closed():
                number = failure(error)
                run_js("scanwise.broken(number)", number=number)
        finally:
            person.close()

    return visit
