"""What is done for each scan of a cohort: judge it, write what was asked for beside it, give its record.

A `Plan` says all of it and travels to whichever process or machine is to judge; nothing here knows where records
go.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from cohorts.bids import derivative
from cohorts.inputs import Item, entities, opened
from cohorts.pool import BATCH, Batched
from cohorts.table.forms import Made
from cohorts.table.rows import REFUSED, Columns
from diagnosis.anatomy.measures import MEASURES
from diagnosis.diagnoser import BESIDE, Diagnoser, Diagnosis, error_record
from model import LEVEL
from networks import dropout
from networks.base import WeightsError
from networks.memory import keep_memory
from reports.labels import SUFFIX as LABELS
from reports.labels import heat_map_file, label_map, stem
from scans.files import content_hash, write_bytes
from scans.read import safe_name
from scans.scan import ScanError

MAP = "_map.nii.gz"
BROKEN = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Wanted:
    """How each scan is judged, and what is written of it beside its row."""

    level: float = LEVEL
    judge_anyway: bool = False
    uncertainty: bool = False
    bids: bool = False  # whether names have BIDS entities
    report: Path | None = None
    labels: Path | None = None
    maps: Path | None = None
    language: str = "en"
    derivatives: bool = False  # whether what is written is named as BIDS names derivatives

    @property
    def outputs(self) -> tuple[Path, ...]:
        return tuple(folder for folder in (self.report, self.labels, self.maps) if folder)

    def place(self, folder: Path, file: str, suffix: str) -> Path:
        """Where what ends so is written of a scan."""
        return derivative(folder, file, suffix) if self.derivatives else below(folder, file, suffix)


@dataclass(frozen=True)
class Judge:
    """Judges one scan after the other, in several threads at once."""

    diagnoser: Diagnoser
    wanted: Wanted

    @property
    def made(self) -> Made:
        segmenter = self.diagnoser.segmenter
        return Made(
            self.diagnoser.weights.sha256,
            segmenter.sha256 if segmenter else "",
            self.wanted.level,
            self.wanted.judge_anyway,
        )

    def __call__(self, item: Item, known: str | None = None) -> dict[str, Any] | None:
        """The scan's record; None where its content is `known`, the hash in a row that stands."""
        sha256 = ""
        try:
            sha256, content, name = fetched(item)
            if sha256 == known:
                return None
            diagnosis = self.diagnoser(
                content,
                name,
                series=item.series,
                judge_anyway=self.wanted.judge_anyway,
                level=self.wanted.level,
                passes=dropout.PASSES if self.wanted.uncertainty else 0,
            )
            self._write(item, diagnosis)
            return self._common(item, sha256, diagnosis.record())
        except ScanError as error:
            return None if known == sha256 == "" else self.refused(item, error, sha256)
        except BROKEN as error:  # over one scan: the others are not to wait for it
            words = f"{safe_name(item.file)}: judging it broke down ({type(error).__name__}: {str(error)[:200]})"
            return self.refused(item, ScanError("broke-down", words), sha256)

    def refused(self, item: Item, error: ScanError, sha256: str = "") -> dict[str, Any]:
        """The record of a scan that gives no diagnosis."""
        weights = self.diagnoser.weights
        record = {
            "weights": {"name": weights.name, "sha256": weights.sha256},
            "level": self.wanted.level,
            "gate": {"verdict": REFUSED, "reasons": [], "judged_anyway": self.wanted.judge_anyway},
        }
        return self._common(item, sha256, record | error_record(item.file, error))

    def _common(self, item: Item, sha256: str, record: dict[str, Any]) -> dict[str, Any]:
        """The record with what a cohort adds to it."""
        found = {"entities": entities(item.file)} if self.wanted.bids else {}
        segmenter = self.diagnoser.segmenter
        by = {"name": segmenter.name, "sha256": segmenter.sha256} if segmenter else None
        return record | found | {"file": item.file, "sha256": sha256, "segmenter": by}

    def columns(self) -> Columns:
        """The columns of a table of such records."""
        return Columns(
            self.diagnoser.study.codes,
            self.wanted.uncertainty,
            tuple(MEASURES) if self.diagnoser.segmenter else (),
            entities=self.wanted.bids,
            provenance=True,
        )

    def _write(self, item: Item, diagnosis: Diagnosis) -> None:
        """The label map, the heat map and the report, where they were asked for."""
        wanted, heat_map = self.wanted, None
        if diagnosis.label and (wanted.maps or wanted.report):
            heat_map = self.diagnoser.explain(diagnosis)
        if wanted.maps and heat_map:
            write_bytes(wanted.place(wanted.maps, item.file, MAP), heat_map_file(heat_map, diagnosis))
        if wanted.labels and diagnosis.segmentation:
            write_bytes(wanted.place(wanted.labels, item.file, LABELS), label_map(diagnosis))
        if wanted.report:
            from reports.files import parts  # here: it brings what draws pages, and most never ask

            for suffix, body in parts(diagnosis, heat_map, wanted.language).items():
                write_bytes(wanted.place(wanted.report, item.file, suffix), body)


def fetched(item: Item) -> tuple[str, str | bytes, str]:
    """The hash of a scan's content, where it lies, and its name; the content itself where that is no path."""
    name = PurePosixPath(item.file).name
    try:
        if "://" in item.path:
            store, path = opened(item.path)
            folder = store.isdir(path)
            content: bytes = zipped(store, path) if folder else store.cat_file(path)
            return hashlib.sha256(content).hexdigest(), content, f"{name}.zip" if folder else name
        return content_hash(item.path), item.path, name
    except OSError as error:
        words = error.strerror or str(error)[:100]
        raise ScanError(
            "missing", f"{safe_name(item.file)}: cannot be read ({words}); check the path and its rights"
        ) from error


def zipped(store: Any, folder: str) -> bytes:
    """The DICOM files that lie in a folder of a store, as one archive; the same bytes whenever it is made."""
    files = sorted(path for path in store.find(folder, maxdepth=1) if path.lower().endswith(".dcm"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for path in files:
            packed.writestr(zipfile.ZipInfo(path.rsplit("/", 1)[-1]), store.cat_file(path))
    return archive.getvalue()


def below(folder: Path, file: str, suffix: str) -> Path:
    """Where a scan's own file goes: under its own path, never outside the folder, whatever a table lists."""
    place = PurePosixPath(file)
    name = stem(place.name) if suffix.startswith("_") else place.name
    return folder.joinpath(
        *(part for part in place.parent.parts if part not in ("..", place.anchor)), name + suffix
    )


@dataclass(frozen=True)
class Plan:
    """All that decides a cohort's answers."""

    weights: Path
    wanted: Wanted
    segmenter: str = BESIDE
    device: str = "auto"
    precision: str = "auto"
    batch: int = BATCH

    def open(self) -> Judge:
        """The judge, its network ready for many scans at once; WeightsError where it cannot do what is wanted."""
        keep_memory()
        torch.set_num_threads(1)  # a core for each scan
        diagnoser = Diagnoser(self.weights, self.device, self.precision, self.segmenter)
        if self.wanted.uncertainty and diagnoser.why_no_uncertainty:
            raise WeightsError(diagnoser.why_no_uncertainty)
        if self.wanted.labels and diagnoser.segmenter is None:
            raise WeightsError("--labels: nothing outlines scans here; name a --segmenter")
        if diagnoser.weights.device.type == "cuda":
            diagnoser.forward = Batched(diagnoser.forward, self.batch)
        return Judge(diagnoser, self.wanted)
