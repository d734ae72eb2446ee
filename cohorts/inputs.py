"""What a cohort consists of: the scans of a folder, of a BIDS dataset or of a table, one after the other.

The list is walked, never held, so that it may be as long as it likes; each walk gives the same order.
"""

import csv
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scans.read import READERS

TABLES = (".csv", ".tsv")
ENTITIES = ("sub", "ses", "acq", "ce", "rec", "run")  # of BIDS names, those that get a column
PAIR = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")  # no table can hold these in a row


class InputError(ValueError):
    """What is wrong with the list of scans, or with where its results are to go; and what to do about it."""


@dataclass(frozen=True)
class Item:
    file: str  # the path below the cohort's folder, which names the row
    path: str  # where it lies


@dataclass(frozen=True)
class Cohort:
    """Where the scans are, and which of them are meant."""

    source: Path
    outputs: tuple[Path, ...] = ()  # folders of our own answers, which are not walked into
    shard: tuple[int, int] = (1, 1)  # the i-th of n parts
    participants: frozenset[str] = frozenset()  # of a BIDS dataset; all where none is named

    @property
    def is_bids(self) -> bool:
        marks = ("dataset_description.json", "participants.tsv")
        return self.source.is_dir() and any((self.source / mark).is_file() for mark in marks)

    def __iter__(self) -> Iterator[Item]:
        number, of = self.shard
        for item in self._all():
            if zlib.crc32(item.file.encode()) % of == number - 1:
                yield item

    def _all(self) -> Iterator[Item]:
        if self.source.is_dir():
            outputs = {path.resolve() for path in self.outputs}
            yield from _bids(self, outputs) if self.is_bids else _walked(self.source, self.source, outputs)
        elif not self.source.exists():
            raise InputError(f"{self.source}: no such file or folder; give a folder of scans or a CSV")
        elif self.source.suffix.lower() in TABLES:
            yield from _listed(self.source)
        else:
            yield Item(named(self.source.name), str(self.source))

    def count(self) -> int:
        """How many scans there are; InputError where one could not have a row of its own."""
        if self.source.is_file():
            seen: set[str] = set()
            for item in self:
                if item.file in seen:
                    raise InputError(f"{self.source}: lists {item.file} more than once; keep one row of it")
                seen.add(item.file)
            return len(seen)
        return sum(1 for _ in self)


def _walked(folder: Path, root: Path, outputs: Collection[Path]) -> Iterator[Item]:
    """Every readable file below a folder, in name order; hidden ones and our own answers are left alone."""
    with os.scandir(folder) as entries:
        there = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in there:
        path = folder / name
        if name.startswith("."):
            continue
        if is_folder:
            if not outputs or path.resolve() not in outputs:
                yield from _walked(path, root, outputs)
        elif name.lower().endswith(tuple(READERS)) and path.is_file():
            yield Item(named(path.relative_to(root).as_posix()), str(path))


def _bids(cohort: Cohort, outputs: Collection[Path]) -> Iterator[Item]:
    """The T1-weighted scans of each participant; of one without any, whatever can be read."""
    folders = sorted(path for path in cohort.source.glob("sub-*") if path.is_dir())
    missing = cohort.participants - {folder.name.removeprefix("sub-") for folder in folders}
    if missing:
        raise InputError(
            f"{cohort.source}: no participant {', '.join(sorted(missing))}; labels are what follows `sub-`"
        )
    for folder in folders:
        if not cohort.participants or folder.name.removeprefix("sub-") in cohort.participants:
            items = list(_walked(folder, cohort.source, outputs))
            yield from [item for item in items if re.search(r"_T1w\.[^/]+$", item.file)] or items


def _listed(table: Path) -> Iterator[Item]:
    """The files of a table, whose paths count from where it lies."""
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
        if "file" not in (rows.fieldnames or ()):
            raise InputError(f"{table}: no column 'file'; it has {', '.join(rows.fieldnames or ['no rows'])}")
        for line, row in enumerate(rows, 2):
            file = (row["file"] or "").strip()
            if not file:
                raise InputError(f"{table}, line {line}: no file")
            yield Item(named(Path(file).as_posix()), str(table.parent / file))


def named(file: str) -> str:
    """The name, if a row of a table can hold it."""
    if BREAKS.search(file):
        raise InputError(f"{file!r}: a name with a line break or such, which no table can hold; rename the file")
    return file


def entities(file: str) -> dict[str, str]:
    """The BIDS entities in a file's name."""
    found = dict(PAIR.findall(file.rsplit("/", 1)[-1].split(".")[0]))
    return {key: found[key] for key in ENTITIES if key in found}


def shard_of(text: str) -> tuple[int, int]:
    """`2/8` as two numbers; ValueError where it is no part of a whole."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise ValueError(f"{text!r}: give the part and how many there are, such as 2/8")
    return number, of


def first_few(names: Iterable[str], most: int = 10) -> list[str]:
    """The first of many, without holding the rest."""
    return [name for name, _ in zip(names, range(most), strict=False)]
