"""The BIDS App: answers as BIDS derivatives, a file a scan, and the table of the group with its dictionary.

The record of a scan is `sub-…_desc-scanwise_T1w.json`; the label map beside it ends in `dseg`. What BIDS has no
name for (records without a picture of their own, heat maps, reports) is listed in `.bidsignore`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cohorts.inputs import InputError
from cohorts.table.forms import Made, of_record
from cohorts.table.rows import REFUSED, Columns
from diagnosis.anatomy.measures import MEASURES
from diagnosis.anatomy.segment import NUMBERS
from diagnosis.diagnoser import VERSION
from scans.files import write_bytes
from studies import NOTICE, from_json, to_json

BIDS_VERSION = "1.10.0"
RECORD = "T1w.json"
# how our own files end → how BIDS has them
ENDS = {"_labels.nii.gz": "dseg.nii.gz", "_map.nii.gz": "heatmap.nii.gz"}
IGNORED = ("*_desc-scanwise_T1w.json", "*_desc-scanwise_heatmap.nii.gz", "*_desc-scanwise_report.*")
README = """Answers of Scanwise, a network's reading of T1-weighted scans. {notice}

Each `*_desc-scanwise_T1w.json` is the record of one scan of the source dataset: class, probabilities, prediction
set, whether the scan was fit to be judged and why not, measures where a segmenter was there, and the hashes of the
scan and weights. `*_desc-scanwise_dseg.nii.gz` are label maps on the scan's own grid, numbered as FreeSurfer
does; their table is `desc-scanwise_dseg.tsv`. `phenotype/scanwise.tsv` is the table of the group.
"""
DESCRIPTIONS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "file": "The scan, by its path in the source dataset",
    "label": "The likeliest class; n/a where the scan was not judged",
    "set": "The classes that hold the truth with the probability in `level`, likeliest first",
    "severity": "Expected severity, 0 to 1",
    "verdict": "Whether the scan was fit to be judged",
    "reasons": "Why it was doubtful or not judged",
    "level": "Coverage that the prediction set was asked for",
    "seconds": "Time that judging took",
    "judged_anyway": "Whether a class was given against the verdict",
    "error": "The code of the refusal",
    "sha256": "SHA-256 of the scan's file",
    "weights": "SHA-256 of the network's weights file",
    "segmenter": "SHA-256 of the segmenter's weights file",
    "precision": "What the network computed in: fp32, bf16 or fp16",
}


def derivative(folder: Path, file: str, suffix: str) -> Path:
    """Where what is written of a scan goes in a derivative dataset."""
    place = PurePosixPath(file)
    name = re.sub(r"_[a-zA-Z0-9]+$", "", place.name.split(".")[0])
    end = ENDS.get(suffix, suffix if suffix == RECORD else f"report{suffix}")
    return folder.joinpath(*place.parent.parts, f"{name}_desc-scanwise_{end}")


class Derivatives:
    """The results of a BIDS dataset, with what a table of `Results` offers: a JSON file for each scan."""

    def __init__(self, folder: Path, participants: frozenset[str] = frozenset()):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: a file of that name is there; name a folder")
        self.path, self.participants = folder, participants
        self.kept: dict[str, str] = {}  # file → content of the records that stand
        self.refused = 0

    def begin(self, made: Made, retry: bool = False, anew: bool = False) -> None:
        described = to_json(description(), indent=2).encode()
        for name, content in (
            ("dataset_description.json", described),
            (".bidsignore", "\n".join([*IGNORED, ""]).encode()),
            ("README.md", README.format(notice=NOTICE).encode()),
            ("desc-scanwise_dseg.tsv", label_table().encode()),
        ):
            write_bytes(self.path / name, content)
        for path, record in records(self.path):
            entry = of_record(record)
            if self.participants and entry.file.split("/")[0].removeprefix("sub-") not in self.participants:
                continue
            if not anew and entry.made != made:
                raise InputError(
                    f"{path}: made {entry.made}, and this run judges {made}; name another folder, or begin "
                    "anew with --anew"
                )
            if not anew and not (retry and entry.refused):
                self.kept[entry.file] = entry.sha256
                self.refused += entry.refused

    def append(self, record: Mapping[str, Any]) -> None:
        self.kept.pop(record["file"], None)
        write_bytes(derivative(self.path, record["file"], RECORD), to_json(record, indent=1).encode())

    def keep(self, file: str) -> None:
        self.kept.pop(file, None)

    def finish(self) -> None:
        """Nothing waits: each record was there as soon as it was written."""

    def close(self) -> None:
        """Nothing is held."""


def records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records in a derivative dataset, in the order of paths."""
    for path in sorted(folder.glob(f"sub-*/**/*_desc-scanwise_{RECORD}")):
        try:
            yield path, from_json(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it, and judge that scan again") from error


def description() -> dict[str, Any]:
    return {
        "Name": "Scanwise",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "Scanwise", "Version": VERSION, "Description": NOTICE}],
    }


def label_table() -> str:
    """The label map's numbers as BIDS lists them."""
    rows = []
    for name, numbers in NUMBERS.items():
        sides = ("left", "right") if len(numbers) == 2 else ("",)
        rows += [(number, f"{side} {name}".strip()) for number, side in zip(numbers, sides, strict=False)]
    return "index\tname\n" + "".join(f"{number}\t{name}\n" for number, name in sorted(set(rows)))


# --- the group ---------------------------------------------------------------------------------------------------


def group(folder: Path) -> int:
    """Write the table of the group, `phenotype/scanwise.tsv`, and its dictionary; how many rows it has."""
    codes: list[str] = []
    intervals, measured, count = False, False, 0
    for _, record in records(folder):
        count += 1
        codes = codes or list(record.get("probabilities") or ())
        intervals |= bool(record.get("intervals"))
        measured |= bool(record.get("measures"))
    if not count:
        raise InputError(f"{folder}: no records in it; run the level `participant` first")
    columns = Columns(codes, intervals, tuple(MEASURES) if measured else (), provenance=True)
    lines = ["\t".join(["participant_id", "session_id", *columns.names])]
    for _, record in records(folder):
        entities = record.get("entities", {})
        ids = [f"{key}-{entities[key]}" if key in entities else "n/a" for key in ("sub", "ses")]
        texts = (text.replace("\t", " ") or "n/a" for text in columns.texts(columns.row(record)))
        lines.append("\t".join([*ids, *texts]))
    write_bytes(folder / "phenotype" / "scanwise.tsv", ("\n".join(lines) + "\n").encode())
    write_bytes(folder / "phenotype" / "scanwise.json", to_json(dictionary(columns), indent=2).encode())
    return count


def dictionary(columns: Columns) -> dict[str, Any]:
    """What each column of the group's table means."""
    said: dict[str, Any] = {}
    for name in ("participant_id", "session_id", *columns.names):
        code = name.removesuffix(" low").removesuffix(" high")
        if name in MEASURES:
            measure = MEASURES[name]
            units = (
                {}
                if measure.unit in ("ratio", "grade")
                else {"Units": "mL" if measure.unit == "ml" else measure.unit}
            )
            said[name] = {"Description": measure.title} | units
        elif code in columns.codes:
            end = {code: "Probability", f"{code} low": "Lower end of the probability", f"{code} high": "Upper end"}
            said[name] = {"Description": f"{end[name]} of {code}"}
        else:
            said[name] = {"Description": DESCRIPTIONS[name]}
    said["verdict"]["Levels"] = {
        "fit": "to be judged",
        "doubtful": "judged, with reasons to doubt",
        "cannot be judged": "not judged",
        REFUSED: "the file could not be read",
    }
    said["seconds"]["Units"] = "s"
    return said
