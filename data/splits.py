"""Splits by subject: drawn, folded, written to a CSV and read back; never by file.

Two scans of one person on both sides of a split make any score worthless.
"""

import csv
import hashlib
import io
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.cases import OWN, Case, from_csv, known_labels
from data.tables import GROUPS, DataError
from networks.header import Header
from scans.files import write_whole
from studies import Study

ORDER = (None, "train", "val", "test")


def subject_hash(subject: str, salt: str = "") -> str:
    """A subject's name for a weights file: enough to recognise it, not to read it.

    With a salt of its own each file names the same person otherwise, so that files cannot be compared for people.
    """
    return hashlib.sha256(f"scanwise subject {salt + ' ' if salt else ''}{subject}".encode()).hexdigest()[:16]


def learned_from(header: Header, subjects: Iterable[str]) -> set[str]:
    """Those of the subjects that a weights file, or what it began with, was trained or calibrated on."""
    seen = header.learned_from
    return {name for name in subjects if any(subject_hash(name, salt) in hashes for salt, hashes in seen.items())}


def assign(
    cases: Sequence[Case],
    seed: int,
    val: float = 0.15,
    test: float = 0.2,
    balance: Sequence[str] = (),
    numeric: bool = False,
) -> list[Case]:
    """Every undivided case in a split: by subject, each class in proportion, the same whatever the order.

    A val or test that exists already is kept, and no second one is cut from the rest. A split that comes with a
    train but no val gets its val from the train. `balance` names what else each part should have in proportion,
    such as sex or site; `numeric` labels are taken in fifths of their range.
    """
    has = {case.split for case in cases}
    if val and None not in has and "val" not in has:
        cases = [replace(case, split=None) if case.split == "train" else case for case in cases]
        test = 0.0
    shares = {"test": 0.0 if "test" in has else test, "val": 0.0 if "val" in has else val}
    taken = {case.subject for case in cases if case.split}  # undivided scans of these stay in train: a leak
    people: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.split is None and case.subject not in taken:
            people[case.subject].append(case)
    stratum = strata(cases, numeric)
    groups = defaultdict(list)
    for subject, theirs in people.items():
        counts = Counter(stratum[case.label] for case in theirs)
        groups[max(sorted(counts), key=counts.__getitem__)].append(subject)
    split: dict[str, str] = {}
    for label, subjects in groups.items():
        subjects.sort()
        random.Random(f"{seed}/{label}").shuffle(subjects)
        subjects = spread(subjects, people, balance)
        start = 0
        for name, share in shares.items():
            left = len(subjects) - start
            count = min(max(1, round(len(subjects) * share)), left - 1) if share and left else 0
            split |= dict.fromkeys(subjects[start : start + count], name)
            start += count
    return [replace(case, split=case.split or split.get(case.subject, "train")) for case in cases]


def strata(cases: Sequence[Case], numeric: bool) -> dict[str, str]:
    """What of each label is kept in proportion: the label, or the fifth of all numbers in which it lies."""
    if not numeric:
        return {case.label: case.label for case in cases}
    edges = statistics.quantiles(map(float, (case.label for case in cases)), n=5) if len(cases) > 1 else []
    return {case.label: str(sum(float(case.label) > edge for edge in edges)) for case in cases}


def spread(subjects: Sequence[str], people: Mapping[str, Sequence[Case]], balance: Sequence[str]) -> list[str]:
    """The subjects in an order of which every stretch has each group in proportion."""
    groups = defaultdict(list)
    for subject in subjects:
        groups[group_of(people[subject][0], balance)].append(subject)
    places = {name: (i + 0.5) / len(names) for names in groups.values() for i, name in enumerate(names)}
    return sorted(subjects, key=places.__getitem__) if len(groups) > 1 else list(subjects)


def group_of(case: Case, names: Sequence[str]) -> tuple[str, ...]:
    """The group that a case belongs to by what a table tells of it; ages go by decades."""
    told = dict(case.groups)
    return tuple(decade(told.get(name, "")) if name == "age" else told.get(name, "") for name in names)


def decade(age: str) -> str:
    """The decade of an age: 70–79."""
    try:
        low = int(float(age)) // 10 * 10
    except ValueError:
        return age
    return f"{low}–{low + 9}"


def check_balance(cases: Sequence[Case], names: Sequence[str]) -> None:
    """Refuse what no case is told to have."""
    known = {name for case in cases for name, _ in case.groups}
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"no case has {', '.join(missing)}; known are {', '.join(sorted(known)) or 'none'}: "
            f"name columns {', '.join(GROUPS)} in their table"
        )


def folds(
    cases: Sequence[Case],
    k: int,
    seed: int,
    val: float = 0.15,
    balance: Sequence[str] = (),
    numeric: bool = False,
) -> list[list[Case]]:
    """k ways to split the undivided cases, each holding out another k-th of the subjects as test.

    Where a test exists already it stays, and each fold is the val of its turn.
    """
    held = "val" if any(case.split == "test" for case in cases) else "test"
    free = sorted((case for case in cases if case.split is None), key=lambda case: str(case.file))
    count = len({case.subject for case in free})
    stratum = strata(free, numeric)
    labels = [" ".join([stratum[case.label], *group_of(case, balance)]) for case in free]
    most = min(count, max(Counter(labels).values(), default=0))  # what can be stratified
    if not 2 <= k <= most:
        raise DataError(f"{k} folds of {count} undivided subjects; choose from 2 to {most}")
    from sklearn.model_selection import StratifiedGroupKFold  # a second to import, and needed only here

    draw = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    subjects = [case.subject for case in free]
    ways = []
    for _, chosen in draw.split(labels, labels, subjects):
        out = {subjects[i] for i in chosen}
        way = [replace(case, split=held) if case.split is None and case.subject in out else case for case in cases]
        ways.append(assign(way, seed, val, 0.0, balance, numeric))
    return ways


def write_split(path: str | Path, cases: Sequence[Case], root: str | Path) -> None:
    """The cases as a CSV, their paths relative to root, the data's folder, where they lie in it."""
    root, lines = data_folder(root).absolute(), io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    names = [name for name in GROUPS if any(name in dict(case.groups) for case in cases)]
    table.writerow(["file", "label", "subject", "split", *names])
    for case in cases:
        file = case.file.absolute()
        file = file.relative_to(root) if file.is_relative_to(root) else file
        told = dict(case.groups)
        groups = [told.get(name, "") for name in names]
        table.writerow([file.as_posix(), case.label, case.subject, case.split or "", *groups])
    write_whole(Path(path), lambda out: out.write(lines.getvalue().encode()))


def read_split(path: str | Path, root: str | Path, study: Study | None = None) -> list[Case]:
    """The cases that `write_split` wrote, in its order; any CSV with file, label and split will do.

    Where the data have an index that names subjects, it is believed before the split's own word.
    """
    folder = data_folder(root)
    cases = known_labels(from_csv(Path(path), folder), study, path)
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
