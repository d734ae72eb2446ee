"""A diagnosis, or a refusal, as one row of a table: the same columns on the command line and for cohorts."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohorts.inputs import ENTITIES
from diagnosis.anatomy.measures import MEASURES

Row = dict[str, str | float | None]
ENDS = ("low", "high")
CENTILE = "centile"
DIGITS = {"severity": 4, "level": 4, "seconds": 3}  # behind the point; of all others six
SCANNER = {  # of `Acquisition` → the column
    "maker": "maker",
    "model": "model",
    "tesla": "tesla",
    "sequence": "sequence",
    "weighting": "weighting",
    "thickness": "slice_mm",
    "contrast": "contrast_agent",
}
REFUSED = "refused"  # the verdict of a file that gave no diagnosis


@dataclass(frozen=True)
class Columns:
    """Which columns there are: those of every table, and those that were asked for."""

    codes: Sequence[str]  # of the study's classes
    intervals: bool = False
    measures: Sequence[str] = ()  # of the brain, by name
    entities: bool = False  # of BIDS names
    scanner: bool = False  # how DICOM scans were acquired
    provenance: bool = False  # what of, by what and how it was made: a cohort's rows can be gone on with
    centiles: Sequence[str] = ()  # the measures of which controls are known

    @property
    def numbers(self) -> list[str]:
        """The columns of numbers; the others are text."""
        ends = [f"{code} {end}" for code in self.codes for end in ("low", "high") if self.intervals]
        made = ["level", "seconds"] if self.provenance else []
        scanner = [SCANNER[key] for key in ("tesla", "thickness") if self.scanner]
        centiles = [f"{name} {CENTILE}" for name in self.centiles]
        return [*self.codes, "severity", *ends, *self.measures, *centiles, *scanner, *made]

    @property
    def names(self) -> list[str]:
        numbers, codes = self.numbers, list(self.codes)
        after = [name for name in numbers if name not in (*codes, "severity")]
        first = ["file", *(ENTITIES if self.entities else ())]
        last = ["judged_anyway", "error", "sha256", "weights", "segmenter", "precision"] if self.provenance else []
        words = [name for name in SCANNER.values() if self.scanner and name not in numbers]
        return [*first, "label", *codes, "set", "severity", "verdict", "reasons", *after, *words, *last]

    def row(self, record: Mapping[str, Any]) -> Row:
        """A record, as `Diagnosis.record` or `error_record` give it, in these columns."""
        error = record.get("error")
        gate = record.get("gate") or {}
        reasons = [error["message"]] if error else gate["reasons"]
        intervals, measures = record.get("intervals") or {}, record.get("measures") or {}
        row: Row = {
            "file": record["file"],
            **record.get("entities", {}),
            "label": record.get("label") or "",
            **(record.get("probabilities") or number_of(record)),
            "set": " ".join(record.get("set") or [f"{end:.6g}" for end in record.get("interval") or ()]),
            "severity": record.get("severity"),
            "verdict": REFUSED if error else gate["verdict"],
            "reasons": " ".join(" ".join(reasons).split()),
            **{
                f"{code} {end}": at for code, ends in intervals.items() for end, at in zip(ENDS, ends, strict=True)
            },
            **{name: value["value"] for name, value in measures.items()},
            **{f"{name} {CENTILE}": value.get(CENTILE) for name, value in measures.items()},
            **{SCANNER[key]: told(value) for key, value in (record.get("acquisition") or {}).items()},
            "level": record.get("level"),
            "seconds": sum(record.get("seconds", {}).values()) or None,
            "judged_anyway": "yes" if gate.get("judged_anyway") else "",
            "error": error["code"] if error else "",
            "sha256": record.get("sha256", ""),
            "weights": (record.get("weights") or {}).get("sha256", ""),
            "segmenter": (record.get("segmenter") or {}).get("sha256", ""),
            "precision": record.get("precision", ""),
        }
        empty: Row = {name: None if name in self.numbers else "" for name in self.names}
        return {name: row.get(name, empty[name]) for name in empty}

    def texts(self, row: Row) -> list[str]:
        """The row as a CSV shows it."""
        digits = DIGITS | dict.fromkeys(self.measures, 4) | {f"{name} {CENTILE}": 1 for name in self.centiles}
        return [
            value if isinstance(value, str) else "" if value is None else f"{value:.{digits.get(name, 6)}f}"
            for name, value in row.items()
        ]


def columns_of(records: Sequence[Mapping[str, Any]], codes: Sequence[str]) -> Columns:
    """The columns that have something to show."""
    known = {
        name
        for record in records
        for name, value in (record.get("measures") or {}).items()
        if value[CENTILE] is not None
    }
    return Columns(
        codes,
        intervals=any(record.get("intervals") for record in records),
        measures=list(MEASURES) if any(record.get("measures") for record in records) else [],
        centiles=[name for name in MEASURES if name in known],
        scanner=any(record.get("acquisition") for record in records),
    )


def told(value: str | float | bool | None) -> str | float | None:
    """A fact of the scanner: yes where it is one that is or is not."""
    return ("yes" if value else "") if isinstance(value, bool) else value


def number_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What a study of a number gives, by its name; nothing for a study of classes."""
    value = record.get("value")
    return {} if value is None else {record["label"]: value}


def write_csv(path: Path, records: Iterable[Mapping[str, Any]], columns: Columns) -> None:
    """One row a record, all at once."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns.names)
        writer.writerows(columns.texts(columns.row(record)) for record in records)
