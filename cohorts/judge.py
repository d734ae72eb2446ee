"""What is done for each scan of a cohort: judge it, write what was asked for beside it, give its record.

Nothing here knows where the record goes or who else is at work.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cohorts.forms import Made
from cohorts.inputs import Item, entities
from cohorts.rows import REFUSED
from diagnosis.diagnoser import Diagnoser, Diagnosis, error_record
from networks import dropout
from reports.labels import SUFFIX, heat_map_file, label_map, stem
from scans.files import content_hash, write_bytes
from scans.read import safe_name
from scans.scan import ScanError

BROKEN = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Wanted:
    """How each scan is judged, and what is written of it beside its row."""

    level: float = 0.9
    judge_anyway: bool = False
    uncertainty: bool = False
    bids: bool = False  # whether names have BIDS entities
    report: Path | None = None
    labels: Path | None = None
    maps: Path | None = None
    language: str = "en"

    @property
    def outputs(self) -> tuple[Path, ...]:
        return tuple(folder for folder in (self.report, self.labels, self.maps) if folder)


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
        sha256, record = "", self._refused()
        try:
            sha256 = hashed(item)
            if sha256 == known:
                return None
            diagnosis = self.diagnoser(
                item.path,
                judge_anyway=self.wanted.judge_anyway,
                level=self.wanted.level,
                passes=dropout.PASSES if self.wanted.uncertainty else 0,
            )
            self._write(item, diagnosis)
            record |= diagnosis.record()
        except ScanError as error:
            if known == sha256 == "":
                return None
            record |= error_record(item.file, error)
        except BROKEN as error:  # over one scan: the others are not to wait for it
            words = f"{safe_name(item.file)}: judging it broke down ({type(error).__name__}: {str(error)[:200]})"
            record |= error_record(item.file, ScanError("broke-down", words))
        if self.wanted.bids:
            record["entities"] = entities(item.file)
        return record | {"file": item.file, "sha256": sha256, "segmenter": self._segmenter()}

    def _refused(self) -> dict[str, Any]:
        """What the record of any scan holds, judged or not."""
        weights = self.diagnoser.weights
        return {
            "weights": {"name": weights.name, "sha256": weights.sha256},
            "level": self.wanted.level,
            "gate": {"verdict": REFUSED, "reasons": [], "judged_anyway": self.wanted.judge_anyway},
        }

    def _segmenter(self) -> dict[str, str] | None:
        segmenter = self.diagnoser.segmenter
        return {"name": segmenter.name, "sha256": segmenter.sha256} if segmenter else None

    def _write(self, item: Item, diagnosis: Diagnosis) -> None:
        """The label map, the heat map and the report, under the path that the scan has in its cohort."""
        place, wanted = PurePosixPath(item.file), self.wanted
        heat_map = None
        if diagnosis.label and (wanted.maps or wanted.report):
            heat_map = self.diagnoser.explain(diagnosis)
        if wanted.maps and heat_map:
            path = below(wanted.maps, place).with_name(f"{stem(place.name)}_map.nii.gz")
            write_bytes(path, heat_map_file(heat_map, diagnosis))
        if wanted.labels and diagnosis.segmentation:
            write_bytes(below(wanted.labels, place).with_name(stem(place.name) + SUFFIX), label_map(diagnosis))
        if wanted.report:
            from reports.files import parts  # here: it brings what draws pages, and most never ask

            for suffix, body in parts(diagnosis, heat_map, wanted.language).items():
                write_bytes(below(wanted.report, place).with_name(place.name + suffix), body)


def hashed(item: Item) -> str:
    """The hash of a scan's content."""
    try:
        return content_hash(item.path)
    except OSError as error:
        raise ScanError(
            "missing", f"{safe_name(item.file)}: cannot be read ({error.strerror}); check the path and its rights"
        ) from error


def below(folder: Path, place: PurePosixPath) -> Path:
    """Where a scan's own files go; never outside the folder, whatever path a table lists."""
    return folder.joinpath(*(part for part in place.parts if part not in ("..", place.anchor)))
