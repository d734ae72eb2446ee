"""Labelled scans ready to learn from: splits by person, the leak check, and the torch Dataset.

Splits are drawn by person, never by file, because two scans of one person on both sides of a split make any
score worthless. Finding the cases is `cases.py`, keeping them prepared `cache.py`; no training here.
"""

import csv
import hashlib
import io
import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import scans
from augment import AFFINE_SHARE, augment, generator
from cache import Cache, write_whole
from cases import Case, DataError, find, from_csv, notes
from studies import Study

__all__ = ["Cache", "Case", "DataError", "Scans", "assign", "check_readable", "find", "folds", "notes",
           "read_split", "subject_hash", "write_split"]


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
    people = defaultdict(Counter)
    for case in cases:
        if case.split is None and case.subject not in taken:
            people[case.subject][case.label] += 1
    strata = defaultdict(list)
    for subject, labels in people.items():
        strata[max(sorted(labels), key=labels.__getitem__)].append(subject)
    split = {}
    for label, subjects in strata.items():
        subjects.sort()
        random.Random(f"{seed}/{label}").shuffle(subjects)
        start = 0
        for name, share in shares.items():
            least = 1 if share and len(subjects) >= 3 else 0
            count = max(least, round(len(subjects) * share))
            split |= dict.fromkeys(subjects[start:start + count], name)
            start += count
    return [replace(case, split=case.split or split.get(case.subject, "train")) for case in cases]


def folds(cases: Sequence[Case], k: int, seed: int, val: float = 0.15) -> list[list[Case]]:
    """k ways to split the undivided cases, each holding out another k-th of the subjects as test.

    Where a test exists already it stays, and each fold is the val of its turn.
    """
    held = "val" if any(case.split == "test" for case in cases) else "test"
    free = sorted((case for case in cases if case.split is None), key=lambda case: str(case.file))
    count = len({case.subject for case in free})
    if not 2 <= k <= count:
        raise DataError(f"{k} folds of {count} undivided subjects; choose from 2 to {count}")
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
    root, lines = Path(root).resolve(), io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["file", "label", "subject", "split"])
    for case in cases:
        file = case.file.resolve()
        file = file.relative_to(root) if file.is_relative_to(root) else file
        table.writerow([file.as_posix(), case.label, case.subject, case.split or ""])
    write_whole(Path(path), lambda out: out.write(lines.getvalue().encode()))


def read_split(path: str | Path, root: str | Path) -> list[Case]:
    """The cases that `write_split` wrote, in its order; any CSV with file, label and split will do."""
    return from_csv(Path(path), Path(root), None, None)


# ---- the torch data set -----------------------------------------------------------------------------------

# level → share of the volumes that are turned and zoomed too; None leaves samples as they are
AUGMENT = {"none": None, "light": 0.0, "full": AFFINE_SHARE}


class Scans(Dataset):
    """Cases as (tensor, class index); augmented each a pure function of (seed, epoch, index)."""

    def __init__(self, cases: Sequence[Case], study: Study, cache: Cache | None = None,
                 augment: str | bool = "none", seed: int = 0):
        self.cases, self.contract, self.cache = list(cases), study.contract, cache
        self.targets = [study.codes.index(case.label) for case in cases]
        level = augment if isinstance(augment, str) else "full" if augment else "none"
        self.turned, self.seed = AUGMENT[level], seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # living workers see it change

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.cases[index].file
        x = self.cache.get(file) if self.cache else scans.prepare(scans.read(file), self.contract).tensor
        if self.turned is not None:
            x = augment(x, self.contract.scale, generator(self.seed, int(self.epoch), index), self.turned)
        return x, self.targets[index]


class _Fill(Dataset):
    """For the workers of `check_readable`: preparing case number i, answering with what went wrong."""

    def __init__(self, cases: Sequence[Case], cache: Cache):
        self.cases, self.cache = cases, cache

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[int, str | None, tuple | None]:
        file = self.cases[index].file
        try:
            self.cache.get(file)
        except (scans.ScanError, OSError) as error:
            return index, str(error), None
        return index, None, self.cache.contents[str(file)]


def check_readable(cases: Sequence[Case], cache: Cache, workers: int | None = None,
                   quiet: bool = False) -> tuple[list[Case], list[tuple[Case, str]]]:
    """Prepare every case into the cache, in parallel: the good ones, and the others with the reason."""
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    work = DataLoader(_Fill(cases, cache), batch_size=None, collate_fn=_same,
                      num_workers=workers if len(cases) >= 16 else 0)
    failures = []
    for index, problem, content in tqdm(work, "preparing", len(cases), unit="scan", disable=quiet or None):
        if problem:
            failures.append((cases[index], problem))
        else:
            cache.contents[str(cases[index].file)] = content  # so that nothing is hashed twice
    bad = {case.file for case, _ in failures}
    return [case for case in cases if case.file not in bad], failures


def _same(item):
    return item
