"""What a DICOM scan brings beside its voxels: how it was acquired, what else lay with it, whose images it is.

`Acquisition` and `Series` hold numbers and words of our own tables, never text of a header, and may be shown.
`Source` holds the patient and study for results that go back as DICOM: it stays in memory and is never shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Acquisition:
    """How a scanner made the images, as far as the headers tell."""

    maker: str | None = None
    model: str | None = None
    tesla: float | None = None
    sequence: str | None = None  # such as "MPRAGE 3D GR/IR"
    weighting: str | None = None  # such as "T1" or "FLAIR"
    thickness: float | None = None  # mm of a slice
    contrast: bool = False  # whether a contrast agent is named

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Acquisition:
        """From what a reader process tells; ValueError or KeyError where that is none."""
        maker, model, sequence, weighting = (
            _words(record[key]) for key in ("maker", "model", "sequence", "weighting")
        )
        tesla, thickness = (_number(record[key]) for key in ("tesla", "thickness"))
        return cls(maker, model, tesla, sequence, weighting, thickness, bool(record["contrast"]))


def _words(value: Any) -> str | None:
    return None if value is None else str(value)[:64]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True)
class Series:
    """One series among those of a folder or zip."""

    key: str  # its number, by which it is asked for
    images: int
    rows: int
    columns: int
    modality: str
    acquisition: Acquisition
    why_not: tuple[str, ...]  # codes of what speaks against it; empty where nothing does
    in_3d: bool = False
    chosen: bool = False
    study: int = 1  # which of those that lay together, and whose, both counted from 1
    person: int = 1

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"why_not": list(self.why_not)}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Series:
        return cls(
            key=str(record["key"])[:20],
            images=int(record["images"]),
            rows=int(record["rows"]),
            columns=int(record["columns"]),
            modality=str(record["modality"])[:16],
            acquisition=Acquisition.of(record["acquisition"]),
            why_not=tuple(str(code)[:40] for code in record["why_not"]),
            in_3d=bool(record["in_3d"]),
            chosen=bool(record["chosen"]),
            study=int(record["study"]),
            person=int(record["person"]),
        )


@dataclass(frozen=True)
class Instance:
    """One image of the source: a file, or a frame of one."""

    uid: str  # its SOP instance UID
    frame: int  # counted from 0
    position: tuple[float, float, float]  # mm of the middle of its first pixel, in DICOM's LPS


@dataclass(frozen=True, eq=False)
class Source:
    """The images a scan was made of: patient, study, series and frame of reference, and their instances."""

    attributes: dict[str, Any] = field(repr=False)  # of one image, in DICOM's JSON model
    instances: tuple[Instance, ...] = field(repr=False)  # along the scan's third axis; one for a picture

    def dataset(self) -> Dataset:
        """Patient, study, series, frame of reference and plane of one image, without pixels."""
        from pydicom import Dataset  # here: only results that go back as DICOM need it

        found = Dataset.from_json(self.attributes)
        found.SpecificCharacterSet = "ISO_IR 192"  # the JSON model is Unicode
        return found

    def record(self) -> dict[str, Any]:
        """For the way out of a reader process, and for nothing else."""
        return {
            "attributes": self.attributes,
            "instances": [[one.uid, one.frame, *one.position] for one in self.instances],
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> Source:
        instances = (
            Instance(str(uid)[:64], int(frame), (float(x), float(y), float(z)))
            for uid, frame, x, y, z in record["instances"]
        )
        return cls(dict(record["attributes"]), tuple(instances))
