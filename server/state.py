"""What the server keeps between requests: the bounded pool, loaded weights, pages and results.

It knows nothing of HTTP or of pages; `http`, `uploads` and `page` ask it, and it asks `diagnosis`. Everything
that comes from a person lives in the folder that `folder` looks after.
"""

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import prometheus_client as prometheus

import model
from diagnosis.anatomy.norms import NOBODY, Norms, NormsError, Person
from diagnosis.anatomy.segment import SegmenterWeights
from diagnosis.diagnoser import BESIDE, NONE, Diagnoser, Diagnosis, error_record, open_norms, open_segmenter
from networks.dropout import PASSES
from scans.scan import ScanError
from server.access.callers import OPEN, Caller
from server.audit import AuditError, AuditLog
from server.folder import Upload, Uploads

log = logging.getLogger("scanwise")


class Busy(Exception):
    """The queue is full; `number` is the place that this one would have had."""

    def __init__(self, number: int):
        super().__init__(f"busy: {number - 1} are before you; try again in a few seconds")
        self.number = number


class Cancelled(Exception):
    """Whoever asked has left."""


@dataclass(frozen=True, eq=False)
class Result:
    """One answered file: what its page shows, without the voxels, which `ServerState.diagnosis` brings back."""

    id: str
    upload: Upload
    weights: str
    record: dict[str, Any]
    findings: tuple[Any, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    prepared: dict[str, Any] = field(default_factory=dict)
    series: str | None = None  # the DICOM series that was asked for, of several
    scan: str | None = None  # the upload's hash, where a log wants it
    caller: Caller = OPEN  # whose it is
    born: float = field(default_factory=time.monotonic)

    @property
    def refused(self) -> bool:
        return "error" in self.record

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The series there are to choose from."""
        return self.record["error"].get("series", []) if self.refused else self.record.get("series", [])


class Job:
    """A place in the queue."""

    def __init__(self) -> None:
        self.future: Future = Future()
        self.stop = threading.Event()


class Pool:
    """As many workers as the device bears, and a queue that ends."""

    def __init__(self, workers: int, room: int):
        self.workers, self.room = workers, room
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="scan")
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._closed = False

    def submit(self, work: Callable[[Job], Any]) -> Job:
        job = Job()
        with self._lock:
            if self._closed:
                raise Busy(1)
            taken = len(self._waiting) + len(self._running)
            if taken >= self.workers + self.room:
                raise Busy(taken - self.workers + 1)
            self._waiting.append(job)
            inner = self._executor.submit(self._run, job, work)
        job.future = inner
        inner.add_done_callback(lambda _: self._forget(job))  # also when it was cancelled before its turn
        return job

    def _run(self, job: Job, work: Callable[[Job], Any]) -> Any:
        with self._lock:  # both at once: in between, it would hold no place
            self._waiting.remove(job)
            self._running.append(job)
        try:
            if job.stop.is_set():
                raise Cancelled
            return work(job)
        finally:
            with self._lock:
                self._running.remove(job)

    def _forget(self, job: Job) -> None:
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)

    def ahead(self, job: Job) -> int:
        """How many wait before this one; 0 once it is being worked on, or next."""
        with self._lock:
            return self._waiting.index(job) if job in self._waiting else 0

    def waits(self, job: Job) -> bool:
        with self._lock:
            return job in self._waiting

    @property
    def length(self) -> int:
        with self._lock:
            return len(self._waiting)

    @property
    def full(self) -> bool:
        with self._lock:
            return len(self._waiting) + len(self._running) >= self.workers + self.room

    def close(self) -> None:
        """Cancel what waits and tell what runs to stop; `idle` says when it has."""
        with self._lock:
            self._closed = True
            jobs = [*self._waiting, *self._running]
        for job in jobs:
            job.stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def idle(self) -> bool:
        with self._lock:
            return not self._running


class PageSession:
    """One open page: its uploads, its results, its jobs. All of it goes when the page closes."""

    FILES = 200

    def __init__(self, state: "ServerState", caller: Caller = OPEN):
        self.token = secrets.token_urlsafe(24)
        self.state, self.caller = state, caller
        self.uploads: dict[str, Upload] = {}
        self.results: dict[str, Result] = {}
        self.jobs: list[Job] = []
        self.table: list[Result] = []  # what the page shows together, refusals among it
        self.on_close: Callable[[], None] | None = None
        self.closed = False
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> str | None:
        """Keep a received file; None when the page has gone meanwhile."""
        key = secrets.token_urlsafe(8)
        with self._lock:
            if self.closed:
                return None
            self.uploads[key] = upload
        return key

    def submit(self, work: Callable[[Job], Any]) -> Job:
        job = self.state.pool.submit(work)
        self.jobs = [old for old in self.jobs if not old.future.done()] + [job]
        if self.closed:
            job.stop.set()
        return job

    def keep(self, job: Job, result: Result, diagnosis: Diagnosis | None) -> Result:
        """Keep an answer as its worker makes it; Cancelled where the page no longer wants it."""
        with self._lock:
            if self.closed or job.stop.is_set():
                raise Cancelled
            self.results[result.id] = kept = self.state.kept(result, diagnosis)
        return kept

    def clear(self) -> None:
        """Forget every scan and result; jobs still at work are stopped and their files go when they end."""
        for job in self.jobs:
            job.stop.set()
            job.future.cancel()
        with self._lock:
            uploads = list(self.uploads.values())
            self.uploads.clear()
            results = list(self.results)
            self.results.clear()
            self.table = []
        self.state.forget(results)
        for upload in uploads:
            self.state.uploads.remove(upload)
            for job in self.jobs:
                job.future.add_done_callback(self.state.uploads.remover(upload))

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self.clear()
        self.state.pages.pop(self.token, None)
        if self.on_close:
            self.on_close()


class ServerState:
    """Everything above, together; one a server."""

    KEPT = 3  # diagnoses with their voxels in memory, about 130 MB each

    def __init__(
        self,
        weights: Path,
        uploads: Uploads,
        pool: Pool,
        device: str = "auto",
        keep: float = 3600,
        segmenter: str | Path = BESIDE,
        norms: str | Path = BESIDE,
        precision: str = "auto",
        audit: AuditLog | None = None,
    ):
        self.uploads, self.pool, self.keep, self.audit = uploads, pool, keep, audit
        self.unrecorded: str | None = None  # why nothing can be answered now, where the log cannot be written
        self.stopping = False
        self.waiting: set[Any] = set()  # the loop's futures of work that a request waits for
        self.arriving: set[Any] = set()  # handlers whose body is still on its way
        self.broken: list[str] = []
        self.diagnosers = self._load(weights, device, precision, segmenter, norms)
        self.pages: dict[str, PageSession] = {}
        self.results: dict[str, Result] = {}
        self.progress: dict[str, float] = {}  # of a heat map, by result
        self._diagnoses: OrderedDict[str, Diagnosis] = OrderedDict()
        self._lock = threading.Lock()
        self.registry = prometheus.CollectorRegistry()
        self._count()

    def _load(
        self, folder: Path, device: str, precision: str, segmenter: str | Path, norms: str | Path
    ) -> dict[str, Diagnoser]:
        """Every weights file of the folder, by its name; a broken one is told in words and left out."""
        loaded = {}
        measuring: SegmenterWeights | str = NONE
        comparing: Norms | str = NONE
        try:
            opened = open_segmenter(segmenter, folder, device)
            measuring = opened or NONE
            comparing = open_norms(norms, folder, opened) or NONE
        except (model.WeightsError, NormsError) as error:
            self.broken.append(str(error))
        for path in model.list_weights(folder):
            try:
                diagnoser = Diagnoser(path, device, precision, segmenter=measuring, norms=comparing)
            except model.WeightsError as error:
                self.broken.append(str(error))
                continue
            except Exception as error:  # unforeseen: this file must not keep the others from being served
                self.broken.append(f"{path.name}: cannot be opened; error id {failure(error)} is in the log")
                continue
            loaded[diagnoser.weights.name] = diagnoser
        return loaded

    def _count(self) -> None:
        self.judged = prometheus.Counter(
            "scanwise_scans", "Scans answered", ["study", "outcome"], registry=self.registry
        )
        buckets = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
        self.spent = prometheus.Histogram(
            "scanwise_step_seconds", "Seconds a step took", ["step"], buckets=buckets, registry=self.registry
        )
        for name, words, value in [
            ("scanwise_queue_length", "Scans that wait", lambda: self.pool.length),
            ("scanwise_pages_open", "Pages that are open", lambda: len(self.pages)),
            ("scanwise_uploads_held", "Uploaded files on disk", lambda: self.uploads.count),
            ("scanwise_uploads_bytes", "Bytes held by uploads or promised to them", lambda: self.uploads.taken),
        ]:
            prometheus.Gauge(name, words, registry=self.registry).set_function(value)

    def enter(self, caller: Caller = OPEN) -> PageSession:
        session = PageSession(self, caller)
        self.pages[session.token] = session
        return session

    def for_study(self, study: str | None, weights: str | None = None) -> str | None:
        """The weights for a study's key, a weights file's name, or both; the first where nothing was named."""
        for name, diagnoser in self.diagnosers.items():
            names = (None, "", name, Path(name).stem)
            if weights in names and study in (*names, diagnoser.study.key):
                return name
        return None

    def judge(
        self,
        upload: Upload,
        weights: str,
        anyway: bool = False,
        passes: int = 0,
        progress: Callable[[str], None] = lambda step: None,
        series: str | None = None,
        person: Person = NOBODY,
    ) -> tuple[dict, Diagnosis | None]:
        """The record of one file, and its diagnosis unless it was refused."""
        study = self.diagnosers[weights].study.key
        try:
            diagnosis = self.diagnosers[weights](
                upload.path,
                upload.name,
                series=series,
                judge_anyway=anyway,
                passes=passes,
                person=person,
                progress=progress,
            )
        except ScanError as error:
            self.judged.labels(study, "refused").inc()
            if error.code == "missing" and upload.ours:
                error = self.gone(upload)
            return error_record(upload.name, error), None
        except Cancelled:
            raise
        except Exception as error:  # unforeseen: the log has it all, the person gets the id
            number = failure(error)
            self.judged.labels(study, "failed").inc()
            words = f"something went wrong here; tell whoever runs this server the error id {number}"
            return {"file": upload.name, "error": {"code": "internal", "message": words, "id": number}}, None
        self.judged.labels(study, diagnosis.verdict).inc()
        for step, seconds in diagnosis.seconds.items():
            self.spent.labels(step).observe(seconds)
        return diagnosis.record(), diagnosis

    def kept(self, result: Result, diagnosis: Diagnosis | None) -> Result:
        """Keep a result, and what its page will ask for next."""
        if diagnosis is not None:
            result = replace(
                result,
                findings=tuple(diagnosis.findings),
                facts=dict(diagnosis.scan.facts),
                prepared=dict(diagnosis.prepared.facts) | {"notes": list(diagnosis.prepared.notes)},
            )
        with self._lock:
            self.results[result.id] = result
        if diagnosis is not None:
            self._keep(result.id, diagnosis)
        return result

    def note(self, caller: Caller, *events: dict[str, Any]) -> None:
        """Write down what is about to be answered, where there is a log; AuditError where that fails."""
        if self.audit is None:
            return
        try:
            self.audit.write(caller, *events)
        except AuditError as error:
            log.error("%s", error)
            self.unrecorded = "the audit log cannot be written"
            raise
        self.unrecorded = None

    def _keep(self, key: str, diagnosis: Diagnosis) -> None:
        with self._lock:
            if key in self.results:  # else its page closed meanwhile
                self._diagnoses[key] = diagnosis
                self._diagnoses.move_to_end(key)
            while len(self._diagnoses) > self.KEPT:
                self._diagnoses.popitem(last=False)

    def diagnosis(self, result: Result) -> Diagnosis:
        """The diagnosis with its voxels: from memory, or judged again from the file. Slow; not for the loop."""
        with self._lock:
            diagnosis = self._diagnoses.get(result.id)
        if diagnosis is None:
            record = result.record
            diagnosis = self.diagnosers[result.weights](
                result.upload.path,
                record["file"],
                series=result.series,
                judge_anyway=record["gate"]["judged_anyway"],
                passes=PASSES if record["intervals"] else 0,
                person=Person(**(record["person"] or {})),
            )
            self._keep(result.id, diagnosis)
        return diagnosis

    def forget(self, results: list[str]) -> None:
        with self._lock:
            for key in results:
                self.results.pop(key, None)
                self._diagnoses.pop(key, None)
                self.progress.pop(key, None)

    def gone(self, upload: Upload) -> ScanError:
        """What is true of a file that arrived here and is not there any more."""
        words = f"no longer kept; this server keeps files for at most {self.keep / 60:g} min, so send it again"
        return ScanError("gone", f"{upload.name}: {words}")

    def keep_house(self) -> None:
        """What `--keep` promises: files and results alike. Nothing that goes wrong here may stop the server."""
        try:
            self.uploads.keep_house(self.keep)
            if self.audit is not None:
                self.audit.settle()
            with self._lock:
                now = time.monotonic()
                old = [key for key, result in self.results.items() if now - result.born > self.keep]
            self.forget(old)
        except Exception as error:  # unforeseen: told in /healthz, found in the log
            self.uploads.trouble = f"housekeeping failed; error id {failure(error)}"

    # --- the end -----------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Answer everybody who still waits that the server stops; their handlers say it in words."""
        self.stopping = True
        for handler in list(self.arriving):
            handler.stop()
        for future in list(self.waiting):
            future.cancel()
        self.pool.close()

    def close(self) -> None:
        self.stopping = True
        for session in list(self.pages.values()):
            session.close()
        self.pool.close()
        self.uploads.close()
        if self.audit is not None:
            self.audit.close()


def failure(error: BaseException) -> str:
    """Log an unforeseen error in full; the short id that the person sees finds it there."""
    number = secrets.token_hex(4)
    log.error("error %s", number, exc_info=error)
    return number
