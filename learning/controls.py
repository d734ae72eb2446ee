"""A table of healthy controls: which file shows a person of which age and sex, and what is measured there."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.cases import SUBJECTS
from data.tables import ABSENT, DataError, check_files, file_of, first_few, read_table
from diagnosis.anatomy.norms import LEAST, NormsError, person
from diagnosis.anatomy.segment import SegmenterWeights, segment
from diagnosis.diagnoser import measured as plausible
from scans.prepare import prepare
from scans.processes import read
from scans.progress import progress
from studies import HEAD


@dataclass(frozen=True)
class Control:
    file: Path
    age: float  # years
    sex: str | None  # "F", "M", or None in a table without that column


@dataclass(frozen=True)
class Measured:
    control: Control
    values: dict[str, float]


def find(data: Path) -> list[Control]:
    """The controls of a table with file, age and perhaps sex and subject; of a folder its `index.csv` is read."""
    table = data / "index.csv" if data.is_dir() else data
    if not table.is_file():
        raise DataError(f"{table}: no such file; give a CSV with the columns file, age and perhaps sex")
    read_in = read_table(table)
    rows, root = read_in.rows, table.parent
    for column in ("file", "age"):
        if not read_in.has(column):
            raise DataError(f"{table}: no column '{column}'; it has {', '.join(read_in.columns)}")
    controls, people = [], []
    for line, row in enumerate(rows, 2):
        sex = row.get("sex", "")
        if not row["file"] or row["age"] in ABSENT or ("sex" in row and sex in ABSENT):
            blank = next(name for name in ("file", "age", "sex") if row.get(name, "x") in ABSENT)
            raise DataError(f"{table}, line {line}: no {blank}; fill it in, or take the row out")
        try:
            known = person(row["age"], sex)
        except NormsError as error:
            raise DataError(f"{table}, line {line}: {error}") from error
        assert known.age is not None, "it is not blank"
        controls.append(Control(file_of(root, row["file"]), known.age, known.sex))
        people.append(row.get("subject") or _subject(row["file"]))
    check_files(table, root, [control.file for control in controls])
    twice = [each for each, count in Counter(people).items() if count > 1]
    if twice:
        raise DataError(
            f"{table}: several scans of {first_few(twice)}; keep one of each person, or few count as many"
        )
    if len(controls) < LEAST:
        raise NormsError(
            f"{table}: {len(controls)} controls; {LEAST} are the least that centiles can be told from, so add some"
        )
    return controls


def _subject(file: str) -> str:
    """The person that a path names as ADNI or BIDS do, else the path itself."""
    found = next(filter(None, (re.search(pattern, file) for pattern in SUBJECTS)), None)
    return found.group() if found else file


def measured(
    controls: Sequence[Control], weights: SegmenterWeights, quiet: bool = False
) -> tuple[list[Measured], list[tuple[Control, str]]]:
    """What the segmenter measures in each control, and those that cannot be measured with the reason."""
    done, left_out = [], []
    for control in progress(controls, "measuring", unit="scan", quiet=quiet):
        try:
            found, doubts = plausible(segment(weights, prepare(read(control.file), HEAD)))
        except ValueError as error:  # ScanError is one
            left_out.append((control, str(error)))
            continue
        if found is None:
            left_out.append((control, " ".join(doubt.text for doubt in doubts)))
            continue
        done.append(Measured(control, {name: value.value for name, value in found.items()}))
    return done, left_out
