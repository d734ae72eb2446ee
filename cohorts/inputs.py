"""What a cohort consists of: the scans of a folder, a BIDS dataset, a table or a store, one after the other.

The list is walked, never held, so that it may be as long as it likes; each walk gives the same order. A folder
that holds DICOM files is one scan, its best series.
"""

import csv
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scans.read import APART, IMAGES, begins_as_dicom

TABLES = (".csv", ".tsv")
BIDS_MARKS = ("dataset_description.json", "participants.tsv")
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

    source: Path | str  # an address such as s3://… is a string
    outputs: tuple[Path, ...] = ()  # folders of our own answers, which are not walked into
    shard: tuple[int, int] = (1, 1)  # the i-th of n parts
    participants: frozenset[str] = frozenset()  # of a BIDS dataset; all where none is named
    volumes: bool = True  # or pictures, each file of DICOM one

    @property
    def is_bids(self) -> bool:
        if isinstance(self.source, str):
            return False
        return self.source.is_dir() and any((self.source / mark).is_file() for mark in BIDS_MARKS)

    def __iter__(self) -> Iterator[Item]:
        number, of = self.shard
        for item in self._all():
            if zlib.crc32(item.file.encode()) % of == number - 1:
                yield item

    def _all(self) -> Iterator[Item]:
        if isinstance(self.source, str):
            yield from _stored(self.source)
        elif self.source.is_dir():
            yield from self._bids() if self.is_bids else self._walked(self.source)
        elif not self.source.exists():
            raise InputError(f"{self.source}: no such file or folder; give a folder of scans or a CSV")
        elif self.source.suffix.lower() in TABLES:
            yield from _listed(self.source)
        else:
            yield Item(named(self.source.name), str(self.source))

    def count(self) -> int:
        """How many scans there are; InputError where one could not have a row of its own."""
        if isinstance(self.source, Path) and self.source.is_file():
            seen: set[str] = set()
            for item in self:
                if item.file in seen:
                    raise InputError(f"{self.source}: lists {item.file} more than once; keep one row of it")
                seen.add(item.file)
            return len(seen)
        return sum(1 for _ in self)

    def _walked(self, folder: Path) -> Iterator[Item]:
        """Every scan below a folder, in name order; hidden files and our own answers are left alone."""
        root = Path(self.source)
        with os.scandir(folder) as entries:
            there = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        names = [(folder / name, is_folder) for name, is_folder in there if not name.startswith(".")]
        files = [path for path, is_folder in names if not is_folder]
        if self.volumes and holds_dicom(files):
            inside = folder.relative_to(root).as_posix()
            yield Item(named(inside if inside != "." else folder.resolve().name), str(folder))
        endings = APART if self.volumes else (*IMAGES, ".dcm")
        ours = {path.resolve() for path in self.outputs}
        for path, is_folder in names:
            if is_folder:
                if not ours or path.resolve() not in ours:
                    yield from self._walked(path)
            elif path.name.lower().endswith(endings) and path.is_file():
                yield Item(named(path.relative_to(root).as_posix()), str(path))

    def _bids(self) -> Iterator[Item]:
        """The T1-weighted scans of each participant; of one without any, whatever can be read."""
        folders = sorted(path for path in Path(self.source).glob("sub-*") if path.is_dir())
        missing = self.participants - {folder.name.removeprefix("sub-") for folder in folders}
        if missing:
            raise InputError(
                f"{self.source}: no participant {', '.join(sorted(missing))}; labels are what follows `sub-`"
            )
        for folder in folders:
            if not self.participants or folder.name.removeprefix("sub-") in self.participants:
                items = list(self._walked(folder))
                yield from [item for item in items if re.search(r"_T1w\.[^/]+$", item.file)] or items


def holds_dicom(files: list[Path]) -> bool:
    """Whether files beside each other are DICOM: by their names, or by the content of one without a known name."""
    if any(file.suffix.lower() == ".dcm" for file in files):
        return True
    unknown = (file for file in files if not file.suffix or file.suffix[1:].isdigit() or file.suffix == ".IMA")
    return any(begins_as_dicom(file) for file in itertools.islice(unknown, 1))


def _stored(address: str) -> Iterator[Item]:
    """The scans of a store such as s3://…, or whatever else fsspec knows."""
    store, root = opened(address)
    try:
        paths = sorted(store.find(root))
    except OSError as error:
        raise InputError(f"{address}: cannot be listed ({error}); check the address and its rights") from error
    for path in paths:
        file = path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]
        if path.lower().endswith((*APART, ".dcm")) and not file.rsplit("/", 1)[-1].startswith("."):
            yield Item(named(file), store.unstrip_protocol(path))


def opened(address: str) -> Any:
    """The file system of an address, and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{address}: cannot be reached ({error}); `pip install -r requirements-ray.txt` brings fsspec, "
            "and some stores want a package more, such as s3fs"
        ) from error


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
