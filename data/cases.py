"""Labelled scans found in folders, CSVs and BIDS data: which file shows which person with which label.

Nothing here opens a scan; splitting, checking and loading the cases is `datasets.py`.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scans.read import IMAGES, READERS
from studies import Study

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SUBJECTS = (r"\d{3}_S_\d{4,5}", r"sub-[A-Za-z0-9]+")  # ADNI and BIDS, looked for in the path below the data
LABEL_COLUMNS = ("label", "class", "diagnosis", "dx", "group")
OWN = "file:"  # the subject of a file that no pattern assigns to a person
ABSENT = ("", "n/a")  # how tables say that there is no value


class DataError(ValueError):
    """What is wrong with the data, naming it, and what to do about it."""


@dataclass(frozen=True)
class Case:
    file: Path
    label: str  # a code of the study
    subject: str  # the person; "file:…" where no pattern tells
    split: str | None = None  # "train", "val", "test", or None while undivided


def find(
    data: str | Path, study: Study | None, subject_regex: str | None = None, label_column: str | None = None
) -> list[Case]:
    """The labelled cases of a CSV, a BIDS folder or a folder with one folder a class, sorted by file.

    A folder with an `index.csv` is read by it. Without a study any label and any readable file will do. Every
    file must fit a `subject_regex` that a person gives; the study's own is tried first where none is given.
    """
    data = Path(data)
    study_pattern = study.training.get("subject_regex") if study else None
    pattern = _pattern(subject_regex if subject_regex != study_pattern else None)
    usual_patterns = (study_pattern, *SUBJECTS) if study_pattern else SUBJECTS
    if data.is_file():
        cases = from_csv(data, data.parent, pattern, label_column, usual_patterns)
    elif not data.is_dir():
        raise DataError(f"{data}: no such file or folder; give a folder of labelled scans or a CSV")
    elif (data / "participants.tsv").is_file():
        cases = _from_bids(data, study, label_column)
    elif (data / "index.csv").is_file():
        cases = from_csv(data / "index.csv", data, pattern, label_column, usual_patterns)
    else:
        cases = _from_folders(data, study, pattern, usual_patterns)
    check_labels(cases, study, data)
    if not cases:
        raise DataError(f"{data}: no scans; known file types: {', '.join(_suffixes(study))}")
    return sorted(cases, key=lambda case: str(case.file))


def check_labels(cases: Sequence[Case], study: Study | None, where: str | Path) -> None:
    """Refuse labels that the study does not know; without a study any will do."""
    stray = Counter(case.label for case in cases if study and case.label not in study.codes)
    if study and stray:
        listed = first_few(f"{label!r} ({n})" for label, n in sorted(stray.items()))
        raise DataError(
            f"{where}: unknown labels: {listed}; the classes of {study.key} are "
            f"{', '.join(study.codes)}: rename these, or take them out"
        )


def notes(cases: Sequence[Case], study: Study | None = None) -> list[str]:
    """What a person should know of these cases before training, in plain sentences."""
    said = []
    alone = sum(case.subject.startswith(OWN) for case in cases)
    if alone:
        said.append(
            f"{alone} of {len(cases)} files name no subject, so each counts as a person of its own; "
            "if people have several files, give --subject-regex or a CSV with a subject column"
        )
    labels = {case.label for case in cases} | set(study.codes if study else [])
    for split in [None, *sorted({case.split for case in cases if case.split})]:
        missing = labels - {case.label for case in cases if split in (None, case.split)}
        if missing:
            said.append(f"no case of {', '.join(sorted(missing))}" + f" in {split}" * bool(split))
    return said


def _from_folders(
    data: Path, study: Study | None, pattern: re.Pattern | None, usual_patterns: Sequence[str]
) -> list[Case]:
    """`DIR/CLASS/…` and `DIR/SPLIT/CLASS/…`; what lies in train/ counts as undivided, so that a val can be cut."""
    cases: list[Case] = []
    strays: list[str] = []
    places: list[tuple[Path, str | None]] = [(folder, None) for folder in _folders(data)]
    for folder, _ in list(places):
        if folder.name.lower() in SPLITS and not (study and folder.name in study.codes):
            places.remove((folder, None))
            part = SPLITS[folder.name.lower()]
            places += [(inner, part if part != "train" else None) for inner in _folders(folder)]
    for folder, split in places:
        if study and folder.name not in study.codes:
            strays.append(folder.relative_to(data).as_posix())
            continue
        files = _readable(folder, study)
        if not files:
            raise DataError(f"{folder}: no scans in it; known file types: {', '.join(_suffixes(study))}")
        cases += [Case(file, folder.name, _subject(file, data, pattern, usual_patterns), split) for file in files]
    if study and strays:
        raise DataError(
            f"{data}: no class is named {first_few(strays)}; the classes of {study.key} are "
            f"{', '.join(study.codes)}, a folder each: rename these folders, or take them out"
        )
    if not cases:
        raise DataError(
            f"{data}: no folder of a class in it; expected "
            f"{'/, '.join(study.codes if study else ['CLASS'])}/, a CSV, or a BIDS participants.tsv"
        )
    return cases


def from_csv(
    table: Path,
    root: Path,
    pattern: re.Pattern | None = None,
    label_column: str | None = None,
    usual_patterns: Sequence[str] = SUBJECTS,
) -> list[Case]:
    """The cases of a table with file and label, and perhaps subject and split."""
    rows = rows_of(table)
    column = _label_column(table, rows[0], label_column)
    if "file" not in rows[0]:
        raise DataError(f"{table}: no column 'file'; it has {', '.join(rows[0])}")
    cases = []
    for line, row in enumerate(rows, 2):
        file, split = Path(row["file"]), row.get("split", "").lower()
        if not row["file"] or not row[column]:
            raise DataError(f"{table}, line {line}: no {'file' if row[column] else column}")
        if split not in ABSENT and split not in SPLITS:
            raise DataError(f"{table}, line {line}: split '{row['split']}'; known: train, val, test, or empty")
        file = root / file
        subject = row.get("subject", "")
        subject = _subject(file, root, pattern, usual_patterns) if subject in ABSENT else subject
        cases.append(Case(file, row[column], subject, SPLITS.get(split)))
    check_files(table, root, [case.file for case in cases])
    return cases


def _from_bids(data: Path, study: Study | None, label_column: str | None) -> list[Case]:
    """`participants.tsv` and `sub-…/[ses-…/]anat/`; of volumes the T1-weighted ones, where any is named so."""
    table = data / "participants.tsv"
    rows = rows_of(table)
    column = _label_column(table, rows[0], label_column)
    if "participant_id" not in rows[0]:
        raise DataError(f"{table}: no column 'participant_id'; it has {', '.join(rows[0])}")
    labels = {row["participant_id"]: row[column] for row in rows}
    unlisted = [
        folder.name for folder in _folders(data) if folder.name.startswith("sub-") and folder.name not in labels
    ]
    if unlisted:
        raise DataError(f"{table}: no row for {first_few(unlisted)}; add them, with n/a to leave them out")
    cases, without = [], []
    for subject, label in labels.items():
        if label in ABSENT:
            continue
        files = _readable(data / subject, study)
        t1 = [file for file in files if "_T1w." in file.name]
        if not files or (study and study.contract.kind == "volume" and not t1):
            without.append(subject)
        cases += [Case(file, label, subject) for file in t1 or files]
    if without:
        raise DataError(
            f"{table}: no scan of {first_few(without)}; take out their rows, or write n/a as the {column}"
        )
    return cases


def check_files(table: Path, root: Path, files: Sequence[Path]) -> None:
    """Refuse a table that names files which are not there, or one of them more than once."""
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{table}: {len(missing)} of its {len(files)} files do not exist: {first_few(missing)}; "
            f"paths count from {root}"
        )
    twice = [str(file) for file, n in Counter(files).items() if n > 1]
    if twice:
        raise DataError(f"{table}: listed more than once: {first_few(twice)}; keep one row for each")


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV or TSV as dictionaries without stray blanks."""
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if table.suffix == ".tsv" else ",")
        try:
            rows = [
                {(k or "").strip(): (v or "").strip() for k, v in row.items() if not isinstance(v, list)}
                for row in reader
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{table}: not a readable table ({error}); save it as UTF-8 CSV") from error
    if not rows:
        raise DataError(f"{table}: no rows below the header")
    return rows


def _label_column(table: Path, row: dict[str, str], asked: str | None) -> str:
    column = asked or next((name for name in LABEL_COLUMNS if name in row), None)
    if column not in row:
        raise DataError(
            f"{table}: no column '{asked or 'label'}'; it has {', '.join(row)}: "
            "name the one with the classes by --label-column"
        )
    return column


def _pattern(subject_regex: str | None) -> re.Pattern | None:
    try:
        return re.compile(subject_regex) if subject_regex else None
    except re.error as error:
        raise DataError(f"--subject-regex {subject_regex!r}: {error}") from error


def _subject(file: Path, root: Path, pattern: re.Pattern | None, usual_patterns: Sequence[str]) -> str:
    """The person in a file's path below root: the pattern's first group, or all that it matches."""
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    match = next(filter(None, (re.search(one, name) for one in ([pattern] if pattern else usual_patterns))), None)
    if match:
        return match.group(1) if match.re.groups and match.group(1) else match.group()
    if pattern:
        raise DataError(
            f"{name}: --subject-regex {pattern.pattern!r} does not match it; every file needs a subject"
        )
    return OWN + name


def _folders(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _suffixes(study: Study | None) -> list[str]:
    """The suffixes that a study can read: pictures for a 2-D one, the rest for volumes, DICOM for both."""
    kind = study.contract.kind if study else None
    return [
        suffix for suffix in READERS if kind is None or (suffix in IMAGES) == (kind == "image") or suffix == ".dcm"
    ]


def _readable(folder: Path, study: Study | None) -> list[Path]:
    ends = tuple(_suffixes(study))
    return sorted(
        file
        for file in folder.rglob("*")
        if file.name.lower().endswith(ends) and not file.name.startswith(".") and file.is_file()
    )


def first_few(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """The first names and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return between.join(names[:most] + more)
