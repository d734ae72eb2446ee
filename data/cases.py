"""Labelled scans found in folders, CSVs and BIDS data: which file shows which person with which label.

Nothing here opens a scan, but headers tell which DICOM files are one, and whose it is (`slices`). Splitting,
checking and loading the cases is `datasets.py`.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data import slices
from data.tables import (
    ABSENT,
    SPLITS,
    DataError,
    Table,
    check_files,
    file_of,
    first_few,
    folder_of,
    images_below,
    is_download_table,
    part_of,
    plain,
    read_table,
)
from scans.read import IMAGES, READERS
from studies import Study

SUBJECTS = (r"\d{3}_S_\d{4,5}", r"sub-[A-Za-z0-9]+")  # ADNI and BIDS, looked for in the path below the data
OWN = "file:"  # the subject of a file that no pattern assigns to a person


@dataclass(frozen=True)
class Case:
    file: Path
    label: str  # a code of the study
    subject: str  # the person; "file:…" where no pattern tells
    split: str | None = None  # "train", "val", "test", or None while undivided
    groups: tuple[tuple[str, str], ...] = ()  # age, sex, site and scanner as a table tells them, by name


def find(
    data: str | Path, study: Study | None, subject_regex: str | None = None, label_column: str | None = None
) -> list[Case]:
    """The labelled cases of a CSV, a BIDS folder or a folder with one folder a class, sorted by file.

    A folder with an `index.csv` is read by it. Without a study any label and any readable file will do. Every
    file must fit a `subject_regex` that a person gives; the study's own is tried first where none is given.
    """
    data = Path(data)
    if study and study.target and label_column is None:
        label_column = study.codes[0]
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
    elif any(data.glob("sub-*/sub-*_sessions.tsv")):
        cases = _from_bids(data, study, label_column)
    elif len(lists := [file for file in sorted(data.glob("*.csv")) if is_download_table(file)]) == 1:
        cases = from_csv(lists[0], data, pattern, label_column, usual_patterns)
    elif study and study.target:
        raise DataError(
            f"{data}: folders have no numbers; give a table with the columns file and {study.codes[0]}, or BIDS"
        )
    else:
        cases = _from_folders(data, study, pattern, usual_patterns)
    cases = known_labels(cases, study, data)
    if not cases:
        raise DataError(f"{data}: no scans; known file types: {', '.join(_suffixes(study))}")
    return sorted(cases, key=lambda case: str(case.file))


def known_labels(cases: Sequence[Case], study: Study | None, where: str | Path) -> list[Case]:
    """The cases with their labels as the study writes them, in whatever case they came; others are refused.

    Cases whose label the study leaves out go. Without a study any label will do.
    """
    if study is None:
        return list(cases)
    if study.target:
        return numbers(cases, study, where)
    meant = {label: code_of(label, study) for label in {case.label for case in cases}}
    stray = Counter(case.label for case in cases if meant[case.label] is None)
    if stray:
        listed = first_few(f"{label!r} ({n})" for label, n in sorted(stray.items()))
        raise DataError(
            f"{where}: unknown labels: {listed}; the classes of {study.key} are "
            f"{', '.join(study.codes)}: rename these, or take them out"
        )
    return [replace(case, label=code) for case in cases if (code := meant[case.label])]


def code_of(label: str, study: Study) -> str | None:
    """The study's code that a label means, in any case where only one can be meant; "" where it is left out."""
    known = {**{code: code for code in study.codes}, **study.aliases}
    alike = {code for name, code in known.items() if name.lower() == label.lower()}
    return known[label] if label in known else alike.pop() if len(alike) == 1 else None


def numbers(cases: Sequence[Case], study: Study, where: str | Path) -> list[Case]:
    """The cases of a study of a number, each label one."""
    stray = Counter(case.label for case in cases if not is_number(case.label))
    if stray:
        listed = first_few(f"{label!r} ({n})" for label, n in sorted(stray.items()))
        raise DataError(
            f"{where}: no numbers: {listed}; {study.key} learns {study.codes[0]}, so give a table with a column "
            f"{study.codes[0]} that has a number in each row"
        )
    return list(cases)


def is_number(said: str) -> bool:
    try:
        return math.isfinite(float(said))
    except ValueError:
        return False


def notes(cases: Sequence[Case], study: Study | None = None) -> list[str]:
    """What a person should know of these cases before training, in plain sentences."""
    said = []
    alone = sum(case.subject.startswith(OWN) for case in cases)
    if alone:
        said.append(
            f"{alone} of {len(cases)} files name no subject, so each counts as a person of its own; "
            "if people have several files, give --subject-regex or a CSV with a subject column"
        )
    one_patient = slices.note([case.subject for case in cases])
    said += [one_patient] if one_patient else []
    if study and study.target:
        return said
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
    patients: dict[Path, str] = {}
    salt = slices.salt_of(data)
    places: list[tuple[Path, str | None]] = [(folder, None) for folder in _folders(data)]
    for folder, _ in list(places):
        if folder.name.lower() in SPLITS and not (study and code_of(folder.name, study) is not None):
            places.remove((folder, None))
            part = SPLITS[folder.name.lower()]
            places += [(inner, part if part != "train" else None) for inner in _folders(folder)]
    for folder, split in places:
        if study and code_of(folder.name, study) is None:
            strays.append(folder.relative_to(data).as_posix())
            continue
        if study and not code_of(folder.name, study):
            continue
        files = _scans(folder, study, salt)
        if not files:
            raise DataError(f"{folder}: no scans in it; known file types: {', '.join(_suffixes(study))}")
        cases += [Case(file, folder.name, _subject(file, data, pattern, usual_patterns), split) for file in files]
        patients |= files
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
    return cases if pattern else _by_patient(cases, patients)


def _by_patient(cases: list[Case], patients: dict[Path, str]) -> list[Case]:
    """The cases, those that no pattern assigns to a person by the patient that their DICOM headers name."""
    named = [None if case.subject.startswith(OWN) else case.subject for case in cases]
    who = [patients.get(case.file, "") for case in cases]
    people = slices.subjects(named, who, [case.subject for case in cases])
    return [replace(case, subject=subject) for case, subject in zip(cases, people, strict=True)]


def from_csv(
    path: Path,
    root: Path,
    pattern: re.Pattern | None = None,
    label_column: str | None = None,
    usual_patterns: Sequence[str] = SUBJECTS,
) -> list[Case]:
    """The cases of a table with file and label, and perhaps subject, split and what groups people.

    ADNI's download table names images instead of files; they are looked for below the root.
    """
    table = read_table(path)
    column = table.label_column(label_column)
    if not table.has("file"):
        if not table.has("image"):
            raise DataError(f"{path}: no column 'file'; it has {', '.join(table.columns)}")
        table = with_files(table, root)
    cases = []
    for line, row in enumerate(table.rows, 2):
        if not row["file"] or not row[column]:
            raise DataError(f"{path}, line {line}: no {'file' if row[column] else column}")
        file, subject = file_of(root, row["file"]), row.get("subject", "")
        subject = _subject(file, root, pattern, usual_patterns) if subject.lower() in ABSENT else subject
        cases.append(Case(file, row[column], subject, part_of(table, line, row), table.groups(row)))
    check_files(path, root, [case.file for case in cases])
    unnamed = [case.file for case in cases if case.subject.startswith(OWN) and case.file.is_dir()]
    if not unnamed:
        return cases
    salt = slices.salt_of(root)
    found = {folder: list(slices.scans_below(folder, salt).values()) for folder in unnamed}
    return _by_patient(cases, {folder: people[0] for folder, people in found.items() if len(people) == 1})


def with_files(table: Table, root: Path) -> Table:
    """ADNI's download table with the file of each image."""
    below, rows, missing = images_below(root, _files(root, tuple(READERS))), [], []
    for row in table.rows:
        files = below.get(row["image"] if row["image"].startswith("I") else f"I{row['image']}", [])
        if len(files) > 1:
            files = [folder_of(files)]
        if files:
            rows.append(row | {"file": files[0].relative_to(root).as_posix()})
        else:
            missing.append(row["image"])
    if missing:
        raise DataError(
            f"{table.path}: {len(missing)} of its {len(table.rows)} images are not below {root}: "
            f"{first_few(missing)}; download them, or take their rows out"
        )
    return replace(table, rows=rows)


def _from_bids(data: Path, study: Study | None, label_column: str | None) -> list[Case]:
    """`participants.tsv` and `sub-…/[ses-…/]anat/`; of volumes the T1-weighted ones, where any is named so.

    A `sub-…_sessions.tsv` with labels is believed before the row of the participant.
    """
    people = _participants(data, label_column)
    folders = {folder.name for folder in _folders(data) if folder.name.startswith("sub-")}
    unlisted = sorted(folders - set(people))
    if unlisted:
        raise DataError(
            f"{data / 'participants.tsv'}: no row for {first_few(unlisted)}; add them, with n/a to leave them out"
        )
    cases, without = [], []
    for subject, (label, groups) in people.items():
        sessions = _sessions(data / subject, label_column)
        if label in ABSENT and not sessions:
            continue
        files = list(_scans(data / subject, study, b"named by its folder"))
        t1 = [file for file in files if "_T1w." in file.name or file.name.endswith("_T1w")]
        if not files or (study and study.contract.kind == "volume" and not t1):
            without.append(subject)
        for file in t1 or files:
            named = re.search(r"ses-[A-Za-z0-9]+", file.relative_to(data).as_posix())
            its, more = sessions.get(named.group() if named else "", (label, ()))
            if its not in ABSENT:
                about = tuple(sorted({**dict(groups), **dict(more)}.items()))
                cases.append(Case(file, its, subject, groups=about))
    if without:
        raise DataError(
            f"{data}: no scan of {first_few(without)}; take out their rows, or write n/a as their label"
        )
    return cases


Told = tuple[str, tuple[tuple[str, str], ...]]  # a label, and what groups a person


def _participants(data: Path, label_column: str | None) -> dict[str, Told]:
    """Label and groups of each participant; without a table, or a label in it, the sessions have to tell."""
    path = data / "participants.tsv"
    by_session = any(data.glob("sub-*/sub-*_sessions.tsv"))
    if by_session and not path.is_file():
        return {folder.name: ("", ()) for folder in _folders(data) if folder.name.startswith("sub-")}
    table = read_table(path)
    if not table.has("participant_id"):
        raise DataError(f"{path}: no column 'participant_id'; it has {', '.join(table.columns)}")
    if by_session and not table.has("label" if label_column is None else plain(label_column)):
        return {row["participant_id"]: ("", table.groups(row)) for row in table.rows}
    column = table.label_column(label_column)
    return {row["participant_id"]: (row[column], table.groups(row)) for row in table.rows}


def _sessions(folder: Path, label_column: str | None) -> dict[str, Told]:
    """Label and groups of each session of a participant, where a table of the sessions has labels."""
    path = folder / f"{folder.name}_sessions.tsv"
    if not path.is_file():
        return {}
    table = read_table(path)
    column = plain(label_column) if label_column else "label"
    if not table.has(column):
        return {}
    if not table.has("session"):
        raise DataError(f"{path}: no column 'session_id'; it has {', '.join(table.columns)}")
    return {row["session"]: (row[column], table.groups(row)) for row in table.rows}


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


def _scans(folder: Path, study: Study | None, salt: bytes) -> dict[Path, str]:
    """The scans below a folder, sorted, and the person that a DICOM header names; slices are one by folder."""
    if study and study.contract.kind == "image":
        return dict.fromkeys(_files(folder, tuple(_suffixes(study))), "")
    whole = dict.fromkeys(_files(folder, tuple(suffix for suffix in _suffixes(study) if suffix != ".dcm")), "")
    return dict(sorted((whole | slices.scans_below(folder, salt)).items()))


def _files(folder: Path, ends: tuple[str, ...]) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.name.lower().endswith(ends) and not file.name.startswith(".") and file.is_file()
    )
