"""One scan in, one `Diagnosis` out: the page, the HTTP API and the command line all ask the same `Diagnoser`.

It reads, checks, predicts and, when asked, explains; it draws nothing and serves nothing.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import model
from diagnosis import agreement, gate, likeness
from diagnosis.anatomy import normalise, segment, structures
from diagnosis.anatomy.measures import INTRACRANIAL_ML, NOT_ASSESSED, Value, measure
from diagnosis.anatomy.norms import FILE as NORMS
from diagnosis.anatomy.norms import NOBODY, Norms, Person
from diagnosis.anatomy.norms import load as load_norms
from diagnosis.maps.explain import ExplainError, Map, explain
from networks import dropout
from networks.forward import Forward
from scans.arrays import NAME, from_array, is_array
from scans.prepare import Prepared, prepare
from scans.processes import read
from scans.read import safe_name
from scans.scan import Scan, ScanError
from studies import HEAD, NOTICE, Study

VERSION = "1.0.0"
BESIDE, NONE = "beside", "none"  # which segmenter: the one in the folder of the class weights, or none at all


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Everything one scan was answered with; `record` is its JSON form."""

    file: str
    weights: model.Weights
    label: str | None  # None where the scan cannot be judged
    probabilities: dict[str, float] | None
    set: list[str] | None
    level: float  # the coverage that the set was asked for
    findings: tuple[gate.Finding, ...]
    judged_anyway: bool
    seconds: dict[str, float]
    scan: Scan = field(repr=False)
    prepared: Prepared = field(repr=False)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)  # such as an attention over levels, by name
    intervals: dict[str, tuple[float, float]] | None = None  # of the probabilities, where passes were asked for
    base: torch.Tensor | None = field(default=None, repr=False)  # what the network's base made of the scan
    value: float | None = None  # of a study of a number, whose name is then the label
    interval: tuple[float, float] | None = None  # that holds the true number as often as `level` says
    measures: dict[str, Value] | None = None  # by name, as in MEASURES; None where nothing was measured
    seen: Prepared | None = field(default=None, repr=False)  # by the network; None where no brain was outlined
    segmentation: segment.Segmentation | None = field(default=None, repr=False)  # what was measured
    segmenter: segment.SegmenterWeights | None = field(default=None, repr=False)  # what measured it
    person: Person = NOBODY  # as far as told
    norms: Norms | None = field(default=None, repr=False)  # that the measures were compared with
    precision: str = "fp32"  # that the network computed in

    @property
    def verdict(self) -> str:
        return gate.verdict(self.findings)

    @property
    def name(self) -> str | None:
        names = {label.code: label.name for label in self.weights.study.labels}
        return names[self.label] if self.label else None

    @property
    def severity(self) -> float | None:
        """Expected severity, 0 to 1, where the study's classes have an order."""
        return expected_severity(self.weights.study, self.probabilities)

    def record(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "study": self.weights.study.key,
            "weights": {"name": self.weights.name, "sha256": self.weights.sha256},
            "precision": self.precision,
            "label": self.label,
            "name": self.name,
            "probabilities": self.probabilities,
            "intervals": self.intervals and {code: list(ends) for code, ends in self.intervals.items()},
            "set": self.set,
            "value": self.value,
            "interval": self.interval and list(self.interval),
            "level": self.level,
            "severity": self.severity,
            "shares": self.shares,
            "measures": self.measures and {name: value.record() for name, value in self.measures.items()},
            "not_assessed": list(NOT_ASSESSED) if self.measures else None,
            "segmenter": self.segmenter and {"name": self.segmenter.name, "sha256": self.segmenter.sha256},
            "acquisition": self.scan.acquisition and self.scan.acquisition.record(),
            "series": [one.record() for one in self.scan.series],
            "person": None if self.person == NOBODY else {"age": self.person.age, "sex": self.person.sex},
            "norms": self.norms and self.norms.record(self.person),
            "gate": {
                "verdict": self.verdict,
                "reasons": [finding.text for finding in self.findings],
                "judged_anyway": self.judged_anyway,
            },
            "seconds": {step: round(spent, 4) for step, spent in self.seconds.items()},
            "versions": versions(),
            "notice": NOTICE,
        }


def expected_severity(study: Study, probabilities: dict[str, float] | None) -> float | None:
    """From 0 to 1; None where there is no answer, or no order of the study's classes."""
    if probabilities is None or not study.ordered:
        return None
    return sum(probabilities[label.code] * (label.severity or 0.0) for label in study.labels)


def versions() -> dict[str, str]:
    return {
        "scanwise": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def error_record(file: str, error: ScanError) -> dict[str, Any]:
    """What takes the place of a diagnosis for a file that was refused."""
    reason: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.series:
        reason["series"] = [one.record() for one in error.series]
    return {"file": file, "error": reason}


class Diagnoser:
    """A loaded weights file, ready to judge scans from several threads at once.

    `segmenter` measures heads beside it: a loaded one, a file, BESIDE for the one that lies in the folder of the
    weights, where one does, or NONE. Studies that place no heads on its grid are not measured, but weights that
    judge what is outlined get it on whichever grid they have. `norms` likewise.
    """

    def __init__(
        self,
        weights: str | Path,
        device: str = "auto",
        precision: str = "auto",
        segmenter: segment.SegmenterWeights | str | Path = BESIDE,
        norms: Norms | str | Path = BESIDE,
    ):
        self.weights = model.load(weights, device)
        found = open_segmenter(segmenter, Path(weights).parent, device)
        contract = self.weights.contract
        self.segmenter = found if contract.outlined or segment.fits(contract) else None
        check_segmenter(self.weights, self.segmenter)
        self.norms = open_norms(norms, Path(weights).parent, self.segmenter)
        self.forward = Forward(self.weights.network, precision)
        check_fits(self.weights, self.forward)
        self._explaining = threading.Lock()  # gradients and hooks are not for two at once

    @property
    def study(self):
        return self.weights.study

    @property
    def steps(self) -> tuple[str, ...]:
        """What `progress` hears of in turn, where nothing is refused and no intervals are asked for."""
        measure = () if self.segmenter is None else ("measure",)
        return ("read", "prepare", "check", *measure, "predict")

    @property
    def why_no_uncertainty(self) -> str | None:
        """Why `passes` cannot be asked for, in words; None where they can."""
        if self.study.target:
            return f"{self.weights.name}: gives a number with an interval of its own; ask without uncertainty"
        if self.forward.passes is not None:
            return None
        return (
            f"{self.weights.name}: {type(self.weights.network).__name__} has no dropout behind its "
            "convolutions, so there are no intervals to give; ask without uncertainty"
        )

    def __call__(
        self,
        file: Any,
        name: str | None = None,
        *,
        series: str | None = None,
        judge_anyway: bool = False,
        level: float = model.LEVEL,
        passes: int = 0,
        person: Person = NOBODY,
        progress: Callable[[str], None] = lambda step: None,
    ) -> Diagnosis:
        """Judge one scan: a file, its bytes with a name, a `Scan`, a nibabel image, or (voxels, affine).

        `progress` hears of each step as it begins; ScanError says why a file is refused.

        Of several DICOM series in a folder, zip or tar the best is read, or the one whose number is `series`.
        While a file is being read `progress` hears of that again and again: what it raises ends the reading too.
        With `passes` the probabilities get intervals, from so many passes with dropout on the same convolutions.
        """
        if passes and self.why_no_uncertainty:
            raise model.WeightsError(self.why_no_uncertainty)
        seconds: dict[str, float] = {}

        @contextmanager
        def step(key: str) -> Iterator[None]:
            progress(key)
            start = time.perf_counter()
            yield
            seconds[key] = time.perf_counter() - start

        with step("read"):
            if is_array(file):
                scan = from_array(file, safe_name(name or NAME))
            elif isinstance(file, Scan):
                scan = file
            else:
                scan = read(file, name, series, cancelled=lambda: progress("read"))
        with step("prepare"):
            prepared = prepare(scan, self.weights.contract)
        with step("check"):
            findings = gate.before(scan, prepared, self.weights)
        placed = gate.verdict(findings) != gate.UNFIT and "no-affine" not in prepared.notes
        segmentation = measures = outlined = None
        by_outlines, on_its_grid = self.weights.contract.outlined, segment.fits(self.weights.contract)
        if self.segmenter is not None and placed:  # what is no head, or lies turned, is never measured
            with step("measure"):
                head = prepared if on_its_grid else prepare(scan, HEAD)
                found = segment.segment(self.segmenter, head)
                measures, doubts = measured(found)
                if by_outlines and measures:
                    mean = structures.mean_of(self.weights.contract, self.segmenter)
                    whole = structures.structures(head, found, mean)
                    outlined = whole and structures.on_grid_of(self.weights.contract, whole)
            if measures and on_its_grid:
                segmentation = found
            else:
                measures = None
            findings += doubts
        seen = outlined if by_outlines else prepared
        if seen is None and (judge_anyway or gate.verdict(findings) != gate.UNFIT):  # else it has its reason
            findings.append(gate.Finding(gate.UNFIT, "no-brain"))
        label = probabilities = answers = intervals = base = value = reach = None
        shares: dict[str, dict[str, float]] = {}
        if seen and (judge_anyway or gate.verdict(findings) != gate.UNFIT):
            with step("predict"):
                base = self.forward.base(seen.tensor[None])
                logits, features = self.forward.answer(base)
            finite = all(bool(part.isfinite().all()) for part in (logits, features))
            findings += gate.after(features[0], self.weights) if finite else [gate.NOT_FINITE]
            if finite and (judge_anyway or gate.verdict(findings) != gate.UNFIT):
                if self.study.target:
                    label = self.study.codes[0]
                    value, reach = self._number(float(logits[0, 0]), level)
                else:
                    label, probabilities, answers = self._read_out(logits, level)
                    findings += self._against(probabilities, measures)
                if passes:
                    with step("uncertainty"):
                        intervals = self._intervals(base, passes)
                shares = self.weights.network.shares(features)
        shown = name or (str(file) if isinstance(file, str | Path) else "scan")
        return Diagnosis(
            file=safe_name(shown),
            weights=self.weights,
            label=label,
            probabilities=probabilities,
            set=answers,
            level=level,
            findings=tuple(findings),
            judged_anyway=judge_anyway,
            seconds=seconds,
            scan=scan,
            prepared=prepared,
            seen=seen,
            shares=shares,
            intervals=intervals,
            base=base,
            value=value,
            interval=reach,
            measures=self.norms.placed(measures, person) if measures and self.norms else measures,
            segmentation=segmentation,
            segmenter=self.segmenter if measures else None,
            person=person,
            norms=self.norms if measures else None,
            precision=self.forward.precision,
        )

    def _read_out(self, logits: torch.Tensor, level: float) -> tuple[str, dict[str, float], list[str]]:
        codes, values = self.study.codes, self._probabilities(logits)[0]
        answers = model.prediction_set(values, codes, self.weights.header.conformal_scores, level)
        return codes[int(values.argmax())], dict(zip(codes, map(float, values), strict=True)), answers

    def _against(self, probabilities: dict[str, float], measures: dict[str, Value] | None) -> list[gate.Finding]:
        severity = expected_severity(self.study, probabilities)
        segmenter = self.segmenter.sha256 if self.segmenter else ""
        return agreement.disagreement(severity, measures, self.weights.header.anatomy, segmenter)

    def _number(self, output: float, level: float) -> tuple[float, tuple[float, float] | None]:
        value = self.study.target.value(output)
        width = model.half_width(self.weights.header.conformal_scores, level)
        return value, None if width is None else (value - width, value + width)

    def _probabilities(self, logits: torch.Tensor) -> np.ndarray:
        return model.probabilities(logits, self.weights.header.temperature)

    def _intervals(self, base: torch.Tensor, passes: int) -> dict[str, tuple[float, float]] | None:
        if self.forward.passes is None:
            return None
        chances = self._probabilities(self.forward.passes(base, passes))  # (passes, K)
        if not np.isfinite(chances).all():
            return None
        return dict(zip(self.study.codes, dropout.intervals(chances), strict=True))

    def explain(
        self,
        diagnosis: Diagnosis,
        method: str = "grad-cam",
        code: str | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Map:
        """A heat map of what moved the answer, for the predicted class unless `code` is given."""
        target, seen = code or diagnosis.label or self.study.codes[0], diagnosis.seen
        if seen is None:
            if self.weights.contract.outlined:
                raise ExplainError("nothing-outlined", f"{diagnosis.file}: {structures.NO_BRAIN}")
            seen = diagnosis.prepared
        with self._explaining:
            made = explain(self.weights, seen, target, method, progress, diagnosis.base)
        return laid_back(made, seen, diagnosis.prepared) if self.weights.contract.normalised else made


def laid_back(made: Map, seen: Prepared, prepared: Prepared) -> Map:
    """A map of a head that was laid on the mean one, on the grid of that head as it lies."""
    to_seen = np.linalg.inv(seen.to_scan) @ prepared.to_scan
    return replace(made, values=normalise.moved(torch.from_numpy(made.values), to_seen).numpy())


def measured(found: segment.Segmentation) -> tuple[dict[str, Value] | None, list[gate.Finding]]:
    """The measures, or None and why, where what was outlined cannot be a head."""
    values = measure(found)
    low, high = INTRACRANIAL_ML
    ml = values["intracranial"].value
    if low <= ml <= high:
        return values, []
    return None, [gate.Finding(gate.DOUBTFUL, "not-measured", {"ml": ml, "low": low, "high": high})]


def open_segmenter(
    wanted: segment.SegmenterWeights | str | Path, folder: Path, device: str
) -> segment.SegmenterWeights | None:
    """The segmenter that was asked for, as `Diagnoser` takes it; None for none."""
    if isinstance(wanted, segment.SegmenterWeights):
        return wanted
    if str(wanted) == NONE or (str(wanted) == BESIDE and not (folder / model.SEGMENTER).is_file()):
        return None
    return segment.load(folder / model.SEGMENTER if str(wanted) == BESIDE else wanted, device)


def check_segmenter(weights: model.Weights, segmenter: segment.SegmenterWeights | None) -> None:
    """That weights which judge what is outlined have the very segmenter beside them that they learned with."""
    if not weights.contract.outlined:
        return
    wanted = weights.header.training.get("segmenter")
    if segmenter is None:
        raise model.WeightsError(
            f"{weights.name}: it judges what a segmenter outlines, and has none; put {model.SEGMENTER} beside it, "
            "and ask for it"
        )
    structures.mean_of(weights.contract, segmenter)
    if segmenter.sha256 != wanted:
        raise model.WeightsError(
            f"{weights.name}: it learned with another segmenter than {segmenter.name} ({str(wanted)[:12]}, not "
            f"{segmenter.sha256[:12]}); put that one beside it, or train the file again"
        )


def open_norms(
    wanted: Norms | str | Path, folder: Path, segmenter: segment.SegmenterWeights | None
) -> Norms | None:
    """The norms that were asked for, as `Diagnoser` takes them; None for none, and where nothing is measured."""
    if isinstance(wanted, Norms):
        return wanted if segmenter is not None and wanted.segmenter == segmenter.sha256 else None
    if str(wanted) == NONE or segmenter is None or (str(wanted) == BESIDE and not (folder / NORMS).is_file()):
        return None
    return load_norms(folder / NORMS if str(wanted) == BESIDE else wanted, segmenter.sha256)


def check_fits(weights: model.Weights, forward: Forward) -> None:
    """That the network takes what the contract prepares, by one pass, and that the likeness tables fit both."""
    contract, header = weights.contract, weights.header
    shape = (contract.planes or contract.shape[0], *contract.shape[1:])
    try:
        logits, features = forward(torch.zeros(1, contract.channels, *shape))
    except Exception as error:  # torch raises of every kind where shapes do not fit
        raise model.WeightsError(
            f"{weights.name}: its network does not take the {'×'.join(map(str, shape))} that its contract "
            f"prepares ({str(error)[:120]}); train the file again"
        ) from error
    width = features.shape[-1]
    wanted: dict[str, tuple[int, ...]] = {}
    if header.likeness.get("threshold") is not None:
        wanted |= {"features.mean": (width,), "features.precision": (width, width)}
    if "likeness.sketch" in weights.extras:
        count = zip(contract.shape, likeness.cells(contract), strict=True)
        wanted["likeness.sketch"] = tuple(size // cell for size, cell in count)
        if "match" not in header.likeness:
            raise model.WeightsError(
                f"{weights.name}: a likeness sketch without its `match`; train the file again"
            )
    for name, right in wanted.items():
        found = tuple(weights.extras[name].shape) if name in weights.extras else None
        if found != right:
            raise model.WeightsError(
                f"{weights.name}: extras.{name} is {found} instead of {right}; train it again"
            )
    if logits.shape != (1, len(weights.study.labels)):
        raise model.WeightsError(
            f"{weights.name}: its network gives {tuple(logits.shape)} for {len(weights.study.labels)} classes; "
            "train it again"
        )


def find_weights(folder: Path, study: str | None = None) -> Path:
    """The weights file to use when none was named: the first of the study's, or of the first study."""
    known = model.list_weights(folder)
    matching = [path for path in known if study is None or path.name.split(".")[0] == study]
    if not matching:
        wanted = f"for the study {study!r} " if study else ""
        raise model.WeightsError(
            f"{folder}: no weights file {wanted}here; put one in, or make one with `python train.py`"
        )
    return matching[0]
