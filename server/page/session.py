"""The page: one PyWebIO session a visitor, which hears what was pressed and shows the next view.

What a view shows is put together in `views`, the words come from `reports.wording`, the markup stands in
`web/pages/` (tornado templates, which escape what they are given), the handling of files and canvases in
`web/page.js` and `web/viewer.js`. What the browser says is checked before use: it may say anything.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pywebio import config
from pywebio.output import put_html, use_scope
from pywebio.session import defer_call, eval_js, get_current_session, info, run_js

from diagnosis.anatomy.norms import NOBODY, NormsError, Person, person
from networks.dropout import PASSES
from reports.html import templates
from reports.wording import Texts, language_of, languages
from scans.read import APART, READERS, safe_name
from server.access.callers import PASSWORD
from server.answers import Asked, results
from server.page.views import refusal_view, result_view, table_row, verdict_groups
from server.state import Busy, Cancelled, Job, PageSession, Result, ServerState, Upload, failure
from studies import STUDIES

LOOK, LOOK_QUEUED = 0.05, 0.25  # seconds between two looks at how a scan goes, and at its place in the queue
IN_BROWSER = (
    "upload.failed",
    "upload.nothing",
    "upload.slices",
    "lost",
    "reload",
)  # texts that scripts need on every page


@dataclass(frozen=True)
class Request:
    """What a visitor asked for: files to judge, and how."""

    files: list[Upload | Result] = field(default_factory=list)  # refused uploads keep their place as results
    anyway: bool = False
    passes: int = 0
    series: str | None = None  # of a folder's the one that was asked for
    person: Person = NOBODY
    instead: Result | None = None  # the one answer takes this result's place

    @property
    def uploads(self) -> list[Upload]:
        return [file for file in self.files if isinstance(file, Upload)]


@dataclass
class Progress:
    """How far a job is, as its worker thread last said."""

    file: int = 0
    steps: tuple[str, ...] = ("read",)
    step: str = "read"

    def share(self, count: int) -> float:
        return (self.file + (self.steps.index(self.step) + 0.5) / len(self.steps)) / count


class Visit:
    """One open page."""

    def __init__(self, state: ServerState, session: PageSession, language: str, examples: dict[str, Path | None]):
        self.state, self.session, self.examples = state, session, examples
        self.t = Texts(language)
        self.weights = next(iter(state.diagnosers))
        self.view: Callable[[], None] = self.start
        self.results: list[Result] = []
        self.opened: Result | None = None
        self.asked = Request()  # what was asked last, for "try again"

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
            "series": self.on_series,
            "person": self.on_person,
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
        html = templates().load(f"{template}.html").generate(t=self.t, language=self.t.language, **values)
        with use_scope("page", clear=True):
            put_html(html.decode())
        run_js("scanwise.shown(name)", name=template)

    def head(self) -> None:
        html = (
            templates()
            .load("head.html")
            .generate(
                t=self.t,
                language=self.t.language,
                languages=languages().items(),
                leave=self.session.caller == PASSWORD,
            )
        )
        with use_scope("head", clear=True):
            put_html(html.decode())
        run_js(
            "scanwise.speak(language, words)",
            language=self.t("language.tag"),
            words={key: self.t(key) for key in IN_BROWSER},
        )

    # --- what was pressed --------------------------------------------------------------------------------

    def on_language(self, value: Any) -> None:
        if isinstance(value, str) and value in languages():
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
            self.judge(Request([Upload(example, example.name, ours=False)]))

    def on_uploaded(self, value: Any) -> None:
        """Files that arrived, by their keys, and those that were refused on the way, in the person's order."""
        files = value.get("files") if isinstance(value, dict) else None
        if not isinstance(files, list):
            return
        sent = [self.received(file) for file in files[: self.session.FILES] if isinstance(file, dict)]
        known = [file for file in sent if file is not None]
        if known:
            self.judge(Request(known))

    def received(self, file: dict[str, Any]) -> Upload | Result | None:
        """A file that the browser says it has sent: its upload, or its refusal; None for neither."""
        upload = self.session.uploads.get(str(file.get("id")))
        if upload is not None or not isinstance(file.get("error"), dict):
            return upload
        error = {key: str(file["error"].get(key, ""))[:500] for key in ("code", "message")}
        name = safe_name(str(file.get("name", ""))[:255])
        nothing = Upload(Path(), name, ours=False)
        return Result(secrets.token_urlsafe(8), nothing, self.weights, {"file": name, "error": error})

    def on_again(self, value: Any) -> None:
        if self.asked.files:
            self.judge(self.asked)

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
            self.judge(replace(self.once_more(self.opened), anyway=True))

    def on_uncertainty(self, value: Any) -> None:
        opened = self.opened
        if opened is None or opened.refused or self.state.diagnosers[opened.weights].why_no_uncertainty:
            return
        self.judge(replace(self.once_more(opened), passes=PASSES))

    def on_series(self, value: Any) -> None:
        """Another series of the same folder, which takes the place of the one shown."""
        opened = self.opened
        if opened is not None and opened.upload.ours and value in [one["key"] for one in opened.listed]:
            self.judge(Request([opened.upload], series=str(value), instead=opened))

    def on_person(self, value: Any) -> None:
        """Age and sex, for centiles; the browser has checked them, so what makes no sense is not from there."""
        opened = self.opened
        if opened is None or opened.refused or not isinstance(value, dict):
            return
        try:
            who = person(str(value.get("age", ""))[:20], str(value.get("sex", ""))[:20])
        except NormsError:
            return
        self.judge(replace(self.once_more(opened), person=who))

    def once_more(self, result: Result) -> Request:
        """The same question about the same file, to be asked with a change."""
        record = result.record
        return Request(
            [result.upload],
            record["gate"]["judged_anyway"],
            PASSES if record["intervals"] else 0,
            result.series,
            Person(**(record["person"] or {})),
            instead=result,
        )

    def on_new(self, value: Any) -> None:
        self.session.clear()
        self.results, self.opened, self.asked = [], None, Request()
        self.view = self.start
        self.view()

    # --- judging -----------------------------------------------------------------------------------------

    def judge(self, request: Request) -> None:
        """Put the files in the queue, show how it goes, and show the result, the table or the refusal."""
        weights = request.instead.weights if request.instead else self.weights
        self.asked, progress = request, Progress(steps=self.state.diagnosers[weights].steps)
        try:
            job = self.session.submit(self.work(request, weights, progress))
        except Busy as busy:
            number = busy.number
            self.view = lambda: self.show("busy", number=number)
            self.view()
            return
        self.show("work", steps=progress.steps)
        answers = self.watch(job, progress, len(request.uploads))
        if self.session.closed:
            return
        if len(answers) < len(request.uploads):  # stopped
            self.on_new(None)
        else:
            self.keep(request, answers)
            self.view()

    def work(self, request: Request, weights: str, progress: Progress) -> Callable[[Job], list[list[Result]]]:
        """What a worker does for a request: the answers to each upload, telling the progress of each step."""
        asked = Asked(weights, request.anyway, request.passes, request.series, request.person, self.session.caller)

        def run(job: Job) -> list[list[Result]]:
            answers = []
            for number, upload in enumerate(request.uploads):
                progress.file = number

                def step(name: str) -> None:
                    progress.step = name if name in progress.steps else progress.step
                    if job.stop.is_set():
                        raise Cancelled

                answers.append(results(self.session, job, upload, asked, step))
            return answers

        return run

    def watch(self, job: Job, progress: Progress, count: int) -> list[list[Result]]:
        """Tell the page of each change until the job is done; nothing where it was stopped."""
        shown = None
        while not job.future.done():
            state = self.progress_of(job, progress, count)
            if state != shown:
                run_js("scanwise.work(state)", state=state)
                shown = state
            wait_for([job.future], timeout=LOOK_QUEUED if self.state.pool.waits(job) else LOOK)
        try:
            return job.future.result()
        except (Cancelled, CancelledError):
            return []

    def progress_of(self, job: Job, progress: Progress, count: int) -> dict[str, Any]:
        if self.state.pool.waits(job):
            place = self.state.pool.ahead(job) + 1
            return {"said": self.t("work.queue", number=place), "step": "", "done": 0}
        file = self.t("work.file", number=progress.file + 1, total=count) if count > 1 else ""
        return {"said": file, "step": progress.step, "done": progress.share(count)}

    def keep(self, request: Request, answers: list[list[Result]]) -> None:
        """Put the answers among the results, each in its file's place, and choose what to show."""
        if request.instead:
            ((self.opened, *_),) = answers
            self.results = [self.opened if result is request.instead else result for result in self.results]
            self.view = self.result
            return
        judged = iter(answers)
        found = [next(judged) if isinstance(file, Upload) else [file] for file in request.files]
        self.results = [result for each in found for result in each]
        self.opened = self.results[0]
        self.view = self.table if len(self.results) > 1 else self.result

    # --- the views ---------------------------------------------------------------------------------------

    def start(self) -> None:
        weights = self.state.diagnosers[self.weights].weights
        choices = [
            (name, f"{self.t.study_title(d.study)} · {self.t.weights_title(d.weights)}")
            for name, d in self.state.diagnosers.items()
        ]
        study, there = weights.study, {d.study.key for d in self.state.diagnosers.values()}
        self.show(
            "start",
            study=self.t.study_title(study),
            question=self.t.question(study),
            choices=choices,
            missing=[self.t.study_title(one) for key, one in STUDIES.items() if key not in there],
            weights=self.weights,
            formats=" ".join(READERS),
            apart=" ".join(APART),
            volumes=weights.contract.kind == "volume",
            limit=self.state.uploads.limit >> 20,
            example=self.examples.get(self.weights) is not None,
            title=self.t.weights_title(weights),
            measured=self.t.first_score(weights.header),
        )

    def result(self) -> None:
        if self.opened is None:
            self.start()
            return
        back = len(self.results) > 1
        if self.opened.refused:
            self.show("refusal", back=back, **refusal_view(self.t, self.opened))
        else:
            diagnoser = self.state.diagnosers[self.opened.weights]
            self.show("result", back=back, **result_view(self.t, self.opened, diagnoser))

    def table(self) -> None:
        rows = [table_row(self.t, result, self.state.diagnosers[result.weights]) for result in self.results]
        self.session.table = list(self.results)
        self.show("table", rows=rows, groups=verdict_groups(self.t, rows), token=self.session.token)


def application(state: ServerState, examples: dict[str, Path | None]) -> Callable[[], None]:
    """What PyWebIO runs for each page that opens."""

    @config(
        title="Scanwise",
        description="Upload a scan, see what a network makes of it and why.",
        css_file=["/web/style.css"],
        js_file=["/web/outlines.js", "/web/viewer.js", "/web/folder.js", "/web/table.js", "/web/page.js"],
        manifest=False,
    )
    def visit() -> None:
        session = state.enter(info.request.caller)
        webio = get_current_session()
        session.on_close = lambda: webio.close(nonblock=True)
        defer_call(session.close)
        try:
            language = eval_js("scanwise.hello(token)", token=session.token)
            known = language if language in languages() else language_of(str(info.user_language))
            Visit(state, session, known, examples).run()
        except Exception as error:
            if not webio.closed():
                number = failure(error)
                run_js("scanwise.broken(number)", number=number)
        finally:
            session.close()

    return visit
