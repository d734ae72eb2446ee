"""Labelled scans to learn from: the torch Dataset, and the command line that checks, splits and fetches them.

Finding the cases, their splits, leaks and cache are in `data/`.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data import openi
from data.augment import AFFINE_SHARE, augment, generator
from data.cache import Cache
from data.cases import Case, find, notes
from data.leaks import contradictions, deduplicate, fingerprints, leaks
from data.splits import ORDER, assign, check_balance, folds, read_split, write_split
from data.study_file import pairs, study_of
from data.tables import GROUPS, DataError
from scans.prepare import prepare
from scans.processes import read
from scans.progress import progress
from studies import Study

# level → share of the volumes that are turned and zoomed too; None leaves samples as they are
AUGMENT = {"none": None, "light": 0.0, "full": AFFINE_SHARE}


class Scans(Dataset):
    """Cases as (tensor, class index or number); augmented each a pure function of (seed, epoch, index)."""

    def __init__(
        self,
        cases: Sequence[Case],
        study: Study,
        cache: Cache | None = None,
        augment: str | bool = "none",
        seed: int = 0,
        severities: Sequence[float] | None = None,  # each case's own, to be learned beside its class
    ):
        self.cases, self.contract, self.cache = list(cases), study.contract, cache
        if cache is None and study.contract.outlined:
            raise ValueError(
                f"the scale {study.contract.scale} takes a cache with `to_input`; see diagnosis.anatomy.structures"
            )
        answers = [study.answer(case.label) for case in cases]
        pairs = None if severities is None else zip(answers, severities, strict=True)
        self.targets = torch.tensor(answers if pairs is None else list(pairs))
        level = augment if isinstance(augment, str) else "full" if augment else "none"
        self.turned, self.seed = AUGMENT[level], seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # living workers see it change

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        file = self.cases[index].file
        x = self.cache.get(file) if self.cache else prepare(read(file), self.contract).tensor
        if self.turned is not None:
            x = augment(x, self.contract.scale, generator(self.seed, int(self.epoch), index), self.turned)
        return x, self.targets[index]


class _Fill(Dataset):
    """For the workers of `check_readable`: preparing case number i, answering with what went wrong, or to pack."""

    def __init__(self, cases: Sequence[Case], cache: Cache):
        self.cases, self.cache = cases, cache

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[int, str | DataError | None, tuple | None, tuple | None]:
        file, packed = self.cases[index].file, None
        try:
            if self.cache.shards:
                packed = self.cache.to_pack(file)
            else:
                self.cache.get(file)
        except DataError as error:  # the cache's own trouble: nothing to skip
            return index, error, None, None
        except (ValueError, OSError) as error:  # ScanError is a ValueError
            return index, str(error), None, None
        return index, None, self.cache.contents[str(file)], packed


def check_readable(
    cases: Sequence[Case], cache: Cache, workers: int | None = None, quiet: bool = False
) -> tuple[list[Case], list[tuple[Case, str]]]:
    """Prepare every case into the cache or its shards, in parallel: the good ones, the others with the reason."""
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    work = DataLoader(
        _Fill(cases, cache),
        batch_size=None,
        collate_fn=_same,
        num_workers=workers if len(cases) >= 16 else 0,
        generator=torch.Generator(),
    )  # its own, so that the global one stays as it was
    failures: list[tuple[Case, str]] = []

    def made() -> Iterator[tuple[str, bytes]]:
        for index, problem, content, packed in progress(work, "preparing", len(cases), "scan", quiet=quiet):
            if isinstance(problem, DataError):
                raise problem
            if problem:
                failures.append((cases[index], problem))
                continue
            cache.contents[str(cases[index].file)] = content  # so that nothing is hashed twice
            if packed:
                yield packed

    if cache.shards:
        cache.shards.pack(made())
    else:
        deque(made(), maxlen=0)
    bad = {case.file for case, _ in failures}
    return [case for case in cases if case.file not in bad], failures


def listed(failures: list[tuple[Case, str]]) -> str:
    """The first twenty of what cannot be read, a line each, with the reason."""
    return "".join(f"\n  {case.file.name}: {reason}" for case, reason in failures[:20])


def _same(item):
    return item


# ---- the command line ---------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="count the cases; list leaks, duplicates and what cannot be read")
    check.add_argument("--split", type=Path, help="a CSV with file, label and split; else the folders' own split")
    split = commands.add_parser("split", help="draw a split by subject, and write it as a CSV for --split")
    split.add_argument("--out", type=Path, required=True, help="the CSV to write; with --folds one for each")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--val", type=float, default=0.15, help="share of the subjects (default: %(default)s)")
    split.add_argument("--test", type=float, default=0.2, help="share of the subjects (default: %(default)s)")
    split.add_argument("--folds", type=int, help="write as many splits, each with another part held out")
    split.add_argument(
        "--balance", nargs="+", default=[], choices=GROUPS, help="what each part should have in proportion too"
    )
    split.add_argument("--deduplicate", action="store_true", help="keep one of each group of identical pictures")
    for command in (check, split):
        command.add_argument(
            "data",
            type=Path,
            metavar="DATA",
            help="a folder with a folder a class, a BIDS "
            "folder, or a CSV with file, label and perhaps subject and split",
        )
        command.add_argument("--study", metavar="KEY|FILE", help="whose classes and file types to expect")
        command.add_argument("--classes", metavar="A,B", help="these of its classes alone")
        command.add_argument("--map", metavar="X=A,Y=A", help="other labels that mean its classes")
        command.add_argument("--target", metavar="NAME", help="a number instead of its classes, such as age")
        command.add_argument("--subject-regex", help="finds the subject in a path: its first group, or all of it")
        command.add_argument("--label-column", help="of a CSV or participants.tsv")
    open_i = commands.add_parser(
        "open-i",
        help="download Open-i's chest X-rays, normal or with a nodule, with an "
        "index.csv; the same command goes on where it stopped",
    )
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


def _study(options: argparse.Namespace) -> Study | None:
    if not options.study:
        return None
    classes = [code.strip() for code in options.classes.split(",")] if options.classes else None
    return study_of(options.study, classes, pairs(options.map) if options.map else None, options.target)


def _check(options: argparse.Namespace) -> int:
    study = _study(options)
    cases = read_split(options.split, options.data, study) if options.split else _find(options, study)
    found = leaks(cases)
    print(_table(cases), *notes(cases, study), found, sep="\n")
    return 1 if found.pairs or found.unreadable or contradictions(found) else 0


def _split(options: argparse.Namespace) -> int:
    study = _study(options)
    cases = _find(options, study)
    check_balance(cases, options.balance)
    numeric = bool(study and study.target)
    prints = fingerprints(cases)
    if options.deduplicate:
        kept = deduplicate(cases, leaks(cases, prints))
        print(f"{len(cases) - len(kept)} of {len(cases)} cases left out as duplicates")
        cases = kept
    ways = (
        folds(cases, options.folds, options.seed, options.val, options.balance, numeric)
        if options.folds
        else [assign(cases, options.seed, options.val, options.test, options.balance, numeric)]
    )
    for number, way in enumerate(ways, 1):
        leaking = leaks(way, prints)
        if leaking.pairs:
            raise DataError(
                f"{leaking}\nNothing is written. Take out one of each pair (--deduplicate does it for "
                "identical pictures), or put both into one split."
            )
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
