"""Splits by subject: drawn, folded, written to a CSV and read back; never by file.

Two scans of one person on both sides of a split make any score worthless.
"""

import csv
import hashlib
import io
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.cases import OWN, Case, DataError, check_labels, from_csv
from scans.files import write_whole
from studies import Study

ORDER = (None, "train", "val", "test")


def subject_hash(subject: str) -> str:
    """A subject's name for a weights file: enough to recognise it, not to read it."""
    return hashlib.sha256(f"scanwise subject {subject}".encode()).hexdigest()[:16]


def assign(cases: Sequence[Case], seed: int, val: float = 0.15, test: float = 0.2) -> list[Case]:
    """Every undivided case in a split: by subject, each class in proportion, the same whatever the order.

    A val or test that exists already is kept, and no second one is cut from the rest.
    """
    has = {case.split for case in cases}
    shares = {"test": 0.0 if "test" in has else test, "val": 0.0 if "val" in has else val}
    taken = {case.subject for case in cases if case.split}  # undivided scans of these stay in train: a leak
    people: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        if case.split is None and case.subject not in taken:
            people[case.subject][case.label] += 1
    strata = defaultdict(list)
    for subject, labels in people.items():
        strata[max(sorted(labels), key=labels.__getitem__)].append(subject)
    split: dict[str, str] = {}
    for label, subjects in strata.items():
        subjects.sort()
        random.Random(f"{seed}/{label}").shuffle(subjects)
        start = 0
        for name, share in shares.items():
            left = len(subjects) - start
            count = min(max(1, round(len(subjects) * share)), left - 1) if share and left else 0
            split |= dict.fromkeys(subjects[start : start + count], name)
            start += count
    return [replace(case, split=case.split or split.get(case.subject, "train")) for case in cases]


def folds(cases: Sequence[Case], k: int, seed: int, val: float = 0.15) -> list[list[Case]]:
    """k ways to split the undivided cases, each holding out another k-th of the subjects as test.

    Where a test exists already it stays, and each fold is the val of its turn.
    """
    held = "val" if any(case.split == "test" for case in cases) else "test"
    free = sorted((case for case in cases if case.split is None), key=lambda case: str(case.file))
    count = len({case.subject for case in free})
    most = min(count, max(Counter(case.label for case in free).values(), default=0))  # what can be stratified
    if not 2 <= k <= most:
        raise DataError(f"{k} folds of {count} undivided subjects; choose from 2 to {most}")
    from sklearn.model_selection import StratifiedGroupKFold  # a second to import, and needed only here

    draw = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    labels, subjects = [case.label for case in free], [case.subject for case in free]
    ways = []
    for _, chosen in draw.split(labels, labels, subjects):
        out = {subjects[i] for i in chosen}
        way = [replace(case, split=held) if case.split is None and case.subject in out else case for case in cases]
        ways.append(assign(way, seed, val, 0.0))
    return ways


def write_split(path: str | Path, cases: Sequence[Case], root: str | Path) -> None:
    """The cases as a CSV, their paths relative to root, the data's folder, where they lie in it."""
    root, lines = data_folder(root).absolute(), io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["file", "label", "subject", "split"])
    for case in cases:
        file = case.file.absolute()
        file = file.relative_to(root) if file.is_relative_to(root) else file
        table.writerow([file.as_posix(), case.label, case.subject, case.split or ""])
    write_whole(Path(path), lambda out: out.write(lines.getvalue().encode()))


def read_split(path: str | Path, root: str | Path, study: Study | None = None) -> list[Case]:
    """The cases that `write_split` wrote, in its order; any CSV with file, label and split will do.

    Where the data have an index that names subjects, it is believed before the split's own word.
    """
    folder = data_folder(root)
    cases = from_csv(Path(path), folder)
    check_labels(cases, study, path)
    index = Path(root) if Path(root).is_file() else folder / "index.csv"
    if index.is_file():
        known = {case.file: case.subject for case in from_csv(index, folder)}
        subjects = [known.get(case.file, OWN) for case in cases]
        cases = [
            case if subject.startswith(OWN) else replace(case, subject=subject)
            for case, subject in zip(cases, subjects, strict=True)
        ]
    return cases


def data_folder(root: str | Path) -> Path:
    """The folder from which the paths of data's cases count: itself, or a table's."""
    return Path(root).parent if Path(root).is_file() else Path(root)
