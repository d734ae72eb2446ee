"""Labelled scans ready to learn from: splits by person, the leak check, and the torch Dataset.

Splits are drawn by person, never by file, because two scans of one person on both sides of a split make any
score worthless. Finding the cases is `cases.py`, keeping them prepared `cache.py`; no training here.
"""

import argparse
import csv
import hashlib
import io
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import openi
import scans
from augment import AFFINE_SHARE, augment, generator
from cache import Cache, content_hash, write_whole
from cases import OWN, Case, DataError, check_labels, find, from_csv, notes, some
from studies import STUDIES, Study

__all__ = ["Cache", "Case", "DataError", "Leaks", "Scans", "assign", "check_readable", "contradictions",
           "deduplicate", "find", "fingerprints", "folds", "leaks", "notes", "read_split", "subject_hash",
           "write_split"]
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
            left = len(subjects) - start
            count = min(max(1, round(len(subjects) * share)), left - 1) if share and left else 0
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
    root, lines = _folder_of(root).absolute(), io.StringIO()
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
    folder = _folder_of(root)
    cases = from_csv(Path(path), folder)
    check_labels(cases, study, path)
    index = Path(root) if Path(root).is_file() else folder / "index.csv"
    if index.is_file():
        known = {case.file: case.subject for case in from_csv(index, folder)}
        told = [known.get(case.file, OWN) for case in cases]
        cases = [case if subject.startswith(OWN) else replace(case, subject=subject)
                 for case, subject in zip(cases, told, strict=True)]
    return cases


def _folder_of(root: str | Path) -> Path:
    return Path(root).parent if Path(root).is_file() else Path(root)


# ---- leaks ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Leaks:
    """What stands on both sides of a split, and what stands twice on one side; `str()` lists it."""

    pairs: tuple[tuple[str, Case, Case], ...]  # (why, a case, a case of another split)
    groups: tuple[tuple[Case, ...], ...]  # cases with the same picture, wherever they stand
    unreadable: tuple[tuple[Case, str], ...] = ()

    @property
    def duplicates(self) -> list[list[Case]]:
        """The groups as far as they lie inside one split."""
        parts = [[case for case in group if case.split == split] for group in self.groups for split in ORDER]
        return [part for part in parts if len(part) > 1]

    def __str__(self) -> str:
        named = [case for _, *two in self.pairs for case in two] + [case for case, _ in self.unreadable]
        roots = {case.file.parent for case in named + [case for group in self.groups for case in group]}
        root = Path(os.path.commonpath(roots)) if roots else Path()
        root = root.parent if len(roots) == 1 else root

        def show(case: Case) -> str:
            return case.file.relative_to(root).as_posix()

        pairs = [f"{why}: {one.split or 'undivided'} {show(one)} – {other.split or 'undivided'} {show(other)}"
                 for why, one, other in self.pairs]
        doubles = [f"{part[0].split or 'undivided'}: {some(map(show, part))}{_differ(part)}"
                   for part in self.duplicates]
        failed = [f"{show(case)}: {reason}" for case, reason in self.unreadable]
        return "\n".join(_block(len(pairs), "leak", "between splits", pairs)
                         + _block(len(doubles), "group", "of identical pictures inside a split", doubles)
                         + _block(len(failed), "file", "that cannot be read", failed)) or "no leaks"


Prints = dict[Path, tuple[str, str | None, str | None]]  # file → hash of its bytes, of its picture, or why not


def fingerprints(cases: Sequence[Case], workers: int | None = None) -> Prints:
    """What `leaks` compares; make it once where several splits of the same cases are checked."""
    files = [case.file for case in cases]
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        return dict(zip(files, tqdm(pool.map(_fingerprint, files), "comparing", len(files), unit="scan",
                                    disable=None), strict=True))


def leaks(cases: Sequence[Case], prints: Prints | None = None) -> Leaks:
    """Subjects, files and pictures that splits share. Cases without a split count as one more split."""
    prints = prints or fingerprints(cases)
    people, pictures, pairs = defaultdict(list), defaultdict(list), []
    for case in cases:
        content, pixels, _ = prints[case.file]
        people[case.subject].append(case)
        pictures[pixels or content].append((case, content))
    for subject, shown in people.items():
        pairs += [(f"same subject {subject}", *pair) for pair in _across([(case, "") for case in shown], False)]
    for group in pictures.values():
        contents = dict(group)
        pairs += [("same bytes" if contents[one] == contents[other] else "same pixels", one, other)
                  for one, other in _across(group, True)]
    groups = tuple(tuple(case for case, _ in group) for group in pictures.values() if len(group) > 1)
    failed = tuple((case, prints[case.file][2]) for case in cases if prints[case.file][2])
    return Leaks(tuple(pairs), groups, failed)


def deduplicate(cases: Sequence[Case], found: Leaks | None = None, refuse: bool = True) -> list[Case]:
    """One case of each group of identical pictures, a test case before one of val and of train.

    A group whose labels differ says nothing that could be learned: it is refused, or else left out whole.
    """
    found = found or leaks(cases)
    torn = contradictions(found)
    if torn and refuse:
        raise DataError(f"{len(torn)} identical pictures have different labels; correct or remove them:\n  "
                        + some(torn, 10, "\n  "))
    drop = set()
    for group in found.groups:
        keep = max(sorted(group, key=lambda case: str(case.file)), key=lambda case: ORDER.index(case.split))
        drop |= {case.file for case in group} - ({keep.file} if not _differ(group) else set())
    return [case for case in cases if case.file not in drop]


def contradictions(found: Leaks) -> list[str]:
    """The groups of identical pictures that carry different labels, a line each."""
    return [some(str(case.file) for case in group) + _differ(group) for group in found.groups if _differ(group)]


def _fingerprint(file: Path) -> tuple[str, str | None, str | None]:
    """Hashes of a file's bytes and of its picture, or why there is none; grey stored as RGB is grey."""
    content = content_hash(file)
    try:
        voxels = scans.read(file).voxels
    except ValueError as error:  # ScanError, or a library's word for a file it cannot make out
        return content, None, str(error)
    if voxels.shape[-1] == 3 and (voxels == voxels[..., :1]).all():
        voxels = voxels[..., 0]
    digest = hashlib.sha256(str(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels, np.float32) + np.float32(0))  # −0 becomes 0
    return content, digest.hexdigest(), None


def _across(shown: list[tuple[Case, str]], every: bool) -> list[tuple[Case, Case]]:
    """The first case of a split with the first, or with `every` one, of each later split."""
    parts = [[case for case, _ in shown if case.split == split] for split in ORDER]
    return [(one[0], case) for one, other in combinations([part for part in parts if part], 2)
            for case in (other if every else other[:1])]


def _differ(group: Sequence[Case]) -> str:
    labels = sorted({case.label for case in group})
    return f" (labels differ: {', '.join(labels)})" if len(labels) > 1 else ""


def _block(count: int, noun: str, rest: str, lines: list[str], most: int = 20) -> list[str]:
    if not count:
        return []
    return [f"{count} {noun}{'s' * (count > 1)} {rest}:", *(f"  {line}" for line in lines[:most]),
            *([f"  and {count - most} more"] if count > most else [])]


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

    def __getitem__(self, index: int) -> tuple[int, str | DataError | None, tuple | None]:
        file = self.cases[index].file
        try:
            self.cache.get(file)
        except DataError as error:  # the cache's own trouble: nothing to skip
            return index, error, None
        except (ValueError, OSError) as error:  # ScanError is a ValueError
            return index, str(error), None
        return index, None, self.cache.contents[str(file)]


def check_readable(cases: Sequence[Case], cache: Cache, workers: int | None = None,
                   quiet: bool = False) -> tuple[list[Case], list[tuple[Case, str]]]:
    """Prepare every case into the cache, in parallel: the good ones, and the others with the reason."""
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    work = DataLoader(_Fill(cases, cache), batch_size=None, collate_fn=_same,
                      num_workers=workers if len(cases) >= 16 else 0,
                      generator=torch.Generator())  # its own, so that the global one stays as it was
    failures = []
    for index, problem, content in tqdm(work, "preparing", len(cases), unit="scan", disable=quiet or None):
        if isinstance(problem, DataError):
            raise problem
        if problem:
            failures.append((cases[index], problem))
        else:
            cache.contents[str(cases[index].file)] = content  # so that nothing is hashed twice
    bad = {case.file for case, _ in failures}
    return [case for case in cases if case.file not in bad], failures


def _same(item):
    return item


# ---- the command line -------------------------------------------------------------------------------------

def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="count the cases, and list leaks between splits and duplicates")
    check.add_argument("--split", type=Path, help="a CSV with file, label and split; else the folders' own split")
    split = commands.add_parser("split", help="draw a split by subject, and write it as a CSV for --split")
    split.add_argument("--out", type=Path, required=True, help="the CSV to write; with --folds one for each")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--val", type=float, default=0.15, help="share of the subjects (default: %(default)s)")
    split.add_argument("--test", type=float, default=0.2, help="share of the subjects (default: %(default)s)")
    split.add_argument("--folds", type=int, help="write as many splits, each with another part held out")
    split.add_argument("--deduplicate", action="store_true", help="keep one of each group of identical pictures")
    for command in (check, split):
        command.add_argument("data", type=Path, metavar="DATA", help="a folder with a folder a class, a BIDS "
                             "folder, or a CSV with file, label and perhaps subject and split")
        command.add_argument("--study", choices=sorted(STUDIES), help="whose classes and file types to expect")
        command.add_argument("--subject-regex", help="finds the subject in a path: its first group, or all of it")
        command.add_argument("--label-column", help="of a CSV or participants.tsv")
    open_i = commands.add_parser("open-i", help="download Open-i's chest X-rays, normal or with a nodule, with an "
                                 "index.csv; the same command goes on where it stopped")
    open_i.add_argument("folder", type=Path, metavar="DIR", help="where pictures, pages and index.csv go")
    open_i.add_argument("--range", default="1-", metavar="A-B", help="only these records of the collection")
    open_i.add_argument("--address", default=openi.ADDRESS, help="of the server (default: %(default)s)")
    open_i.add_argument("--workers", type=int, default=4, help="downloads at once (default: %(default)s)")
    open_i.add_argument("--timeout", type=float, default=60.0, help="seconds an answer may take (%(default)s)")
    options = parser.parse_args(argv)
    try:
        return {"check": _check, "split": _split, "open-i": _open_i}[options.command](options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _find(options: argparse.Namespace, study: Study | None) -> list[Case]:
    return find(options.data, study, options.subject_regex, options.label_column)


def _check(options: argparse.Namespace) -> int:
    study = STUDIES[options.study] if options.study else None
    cases = read_split(options.split, options.data, study) if options.split else _find(options, study)
    found = leaks(cases)
    print(_table(cases), *notes(cases, study), found, sep="\n")
    return 1 if found.pairs else 0


def _split(options: argparse.Namespace) -> int:
    study = STUDIES[options.study] if options.study else None
    cases = _find(options, study)
    prints = fingerprints(cases)
    if options.deduplicate:
        kept = deduplicate(cases, leaks(cases, prints))
        print(f"{len(cases) - len(kept)} of {len(cases)} cases left out as duplicates")
        cases = kept
    ways = folds(cases, options.folds, options.seed, options.val) if options.folds else [
        assign(cases, options.seed, options.val, options.test)]
    for number, way in enumerate(ways, 1):
        leaking = leaks(way, prints)
        if leaking.pairs:
            raise DataError(f"{leaking}\nNothing is written. Take out one of each pair (--deduplicate does it for "
                            "identical pictures), or put both into one split.")
        out = options.out.with_suffix(f".{number}{options.out.suffix}") if options.folds else options.out
        write_split(out, way, options.data)
        print(out, _table(way), *notes(way, study), sep="\n")
    return 0


def _open_i(options: argparse.Namespace) -> int:
    return openi.run(options.folder, options.range, options.address, options.workers, options.timeout)


def _table(cases: Sequence[Case]) -> str:
    """How many cases and subjects each split has of each class."""
    width = max(len(case.label) for case in cases) + 2
    lines = [f"{'':{width}}{'split':12}{'scans':>8}{'subjects':>10}"]
    for split in ORDER:
        for label in sorted({case.label for case in cases if case.split == split}):
            part = [case for case in cases if (case.split, case.label) == (split, label)]
            people = len({case.subject for case in part})
            lines.append(f"{label:{width}}{split or 'undivided':12}{len(part):8}{people:10}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
