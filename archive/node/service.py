"""The node itself: what was received is judged study by study, and the results are handed to the outboxes."""

import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import prometheus_client as prometheus

from archive.node.incoming import Incoming, Study
from archive.node.outbox import Outbox
from archive.results import results, to_bytes
from diagnosis.diagnoser import Diagnoser, Diagnosis
from scans.scan import ScanError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOOK = 0.2  # seconds between two looks at whether a study is complete
BOUNDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Counters:
    """What happened, for Prometheus; the names are those of the server's /metrics."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.judged = prometheus.Counter(
            "scanwise_scans", "Scans answered", ["study", "outcome"], registry=self.registry
        )
        self.spent = prometheus.Histogram(
            "scanwise_step_seconds", "Seconds a step took", ["step"], buckets=BOUNDS, registry=self.registry
        )
        self.instances = prometheus.Counter(
            "scanwise_instances", "DICOM instances that were offered", ["outcome"], registry=self.registry
        )

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        prometheus.Gauge(name, words, registry=self.registry).set_function(value)

    def instance(self, outcome: str) -> None:
        self.instances.labels(outcome).inc()


class Folder:
    """The node's own folder, for this process alone."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise ValueError(f"{path}: cannot be used ({error.strerror}); choose another with --folder") from error
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._lock.close()
                raise ValueError(f"{path}: another node uses it; stop that one, or choose another") from error

    def close(self) -> None:
        self._lock.close()


class Node:
    """Judges complete studies one after another until it is stopped."""

    def __init__(
        self,
        diagnoser: Diagnoser,
        incoming: Incoming,
        outboxes: list[Outbox],
        tell: Callable[[str], None],
        counters: Counters | None = None,
        language: str = "en",
    ):
        self.diagnoser, self.incoming, self.outboxes = diagnoser, incoming, outboxes
        self.tell, self.counters, self.language = tell, counters or Counters(), language
        self.count = 0
        self.stopping = threading.Event()
        self.counters.gauge("scanwise_studies_waiting", "Studies on their way", lambda: len(incoming.studies))
        self.counters.gauge(
            "scanwise_results_waiting",
            "Results that wait for an archive",
            lambda: sum(len(box.waiting) for box in outboxes),
        )

    def why_full(self) -> str | None:
        return "results wait for the archive" if any(box.full for box in self.outboxes) else None

    def run(self, look: Callable[[], None] = lambda: None) -> None:
        """Judge until stopped; `look` is called again and again."""
        while not self.stopping.wait(LOOK):
            look()
            self.step()

    def step(self) -> None:
        """Judge every study that is complete, drop those that stay in pieces."""
        for study, whole in self.incoming.due():
            if self.stopping.is_set() and whole:
                return  # it stays on disk, and is judged when the node starts again
            self.count += 1
            self.tell(f"study {self.count}: {len(study.sizes)} images, {self.answer(study, whole)}")

    def answer(self, study: Study, whole: bool) -> str:
        """What became of a study, in words without a name; all that was received of it is deleted."""
        began = time.perf_counter()
        try:
            if not whole or self.incoming.known(study):
                self._counted("again" if whole else "broken off")
                self.incoming.done(study, answered=False)
                return "answered before" if whole else "dropped: the sender broke off and did not come again"
            diagnosis = self.judge(study)
            made = self.hand_on(diagnosis)
        except ScanError as error:
            self._counted("refused")
            self.incoming.done(study, answered=True)
            return f"refused ({error.code})"
        except OSError as error:
            self._counted("postponed")
            self.incoming.again(study)
            return f"waits: the disk does not take its results ({error.strerror})"
        except Exception as error:  # unforeseen: the next study must be judged all the same
            self._counted("failed")
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.incoming.done(study, answered=False)
            return f"not answered: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
        self.incoming.done(study, answered=True)
        spent = time.perf_counter() - began
        return f"{in_words(diagnosis)}; {made} results in {spent:.1f} s"

    def judge(self, study: Study) -> Diagnosis:
        """The diagnosis of the study's best series, chosen as in any folder of DICOM files."""
        diagnosis = self.diagnoser(study.folder, "study")
        self._counted(diagnosis.verdict)
        for step, seconds in diagnosis.seconds.items():
            self.counters.spent.labels(step).observe(seconds)
        return diagnosis

    def hand_on(self, diagnosis: Diagnosis) -> int:
        """Put the results into every outbox; how many there are."""
        heat_map = self.diagnoser.explain(diagnosis) if diagnosis.label else None
        bodies = {kind: to_bytes(one) for kind, one in results(diagnosis, heat_map, self.language).items()}
        for box in self.outboxes:
            box.put(self.count, bodies)
        return len(bodies)

    def _counted(self, outcome: str) -> None:
        self.counters.judged.labels(self.diagnoser.study.key, outcome).inc()


def in_words(diagnosis: Diagnosis) -> str:
    chances = diagnosis.probabilities or {}
    said = f"{diagnosis.label} {100 * chances[diagnosis.label]:.0f} %" if diagnosis.label else "no class"
    return f"{said}, {diagnosis.verdict}"
