"""What a cohort consists of: the scans of a folder, a BIDS dataset, a table or a store, one after the other.

The list is walked, never held, so that it may be as long as it likes; each walk gives the same order. Where DICOM
files lie below a folder their headers are read first: a study is one scan, its best series, however its files lie.
"""

import csv
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scans import processes
from scans.folders.candidates import each_study
from scans.read import APART, IMAGES, begins_as_dicom, name_of
from scans.scan import ScanError

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
    series: str | None = None  # of those that lie there, where they are of several studies


@dataclass(frozen=True)
class Cohort:
    """Where the scans are, and which of them are meant."""

    source: Path | str  # an address such as s3://… is a string
    outputs: tuple[Path, ...] = ()  # folders of our own answers, which are not walked into
    shard: tuple[int, int] = (1, 1)  # the i-th of n parts
    participants: frozenset[str] = frozenset()  # of a BIDS dataset; all where none is named
    volumes: bool = True  # or pictures, each file of DICOM one
    studies: dict[Path, dict[Path, list[Item]]] = field(default_factory=dict, repr=False)  # as headers told
    damaged: set[Path] = field(default_factory=set, repr=False)  # files called .dcm, as headers told

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
            yield from self._bids() if self.is_bids else self._below(self.source)
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

    def _below(self, folder: Path) -> Iterator[Item]:
        """Every scan below a folder: the studies among its DICOM files, and whatever is a scan by itself."""
        if folder not in self.studies:
            self.studies[folder] = self._studies(folder)
        studies = self.studies[folder]
        yield from self._walked(folder, studies, {above for path in studies for above in path.parents})

    def _studies(self, folder: Path) -> dict[Path, list[Item]]:
        """The DICOM scans below a folder by the folder or file that holds them; headers are read once."""
        if not self.volumes or not any(holds_dicom(files) for files in self._folders(folder)):
            return {}
        try:
            found = processes.survey(folder, with_damaged=True)
        except ScanError as error:
            raise InputError(f"{error}; or give the folders one by one, in a CSV with a column file") from error
        self.damaged.update(unit.path for unit in found if unit.damaged)
        return {unit.path: list(self._of(unit.path, unit.mixed)) for unit in found if not unit.damaged}

    def _of(self, path: Path, mixed: bool) -> Iterator[Item]:
        """A folder of slices as one scan, or as one for each study that lies in it."""
        inside = path.relative_to(self.source).as_posix()
        name = named(inside if inside != "." else path.resolve().name)
        keys = studies_in(path) if mixed else []
        if not keys:
            yield Item(name, str(path))
        for key in keys:
            yield Item(name_of(name, key), str(path), key)

    def _folders(self, folder: Path) -> Iterator[list[Path]]:
        """The files of each folder below this one that is not hidden or ours."""
        files, folders = self._entries(folder)
        yield files
        for inner in folders:
            yield from self._folders(inner)

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The files and the folders in one, in name order; hidden ones and our own answers are left out."""
        with os.scandir(folder) as entries:
            there = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        paths = [(folder / name, is_folder) for name, is_folder in there if not name.startswith(".")]
        ours = {path.resolve() for path in self.outputs}
        inner = [path for path, is_folder in paths if is_folder and not (ours and path.resolve() in ours)]
        return [path for path, is_folder in paths if not is_folder], inner

    def _walked(
        self, folder: Path, studies: dict[Path, list[Item]], above: set[Path], told: bool = False
    ) -> Iterator[Item]:
        """Every scan in a folder and below it, in name order; `told` where this lies in the folder of a study."""
        files, folders = self._entries(folder)
        told = told or folder in studies
        yield from studies.get(folder, ())
        if self.volumes and not told and folder not in above and holds_dicom(files):
            inside = folder.relative_to(self.source).as_posix()  # no image in it: its row says so
            yield Item(named(inside if inside != "." else folder.resolve().name), str(folder))
        endings = APART if self.volumes else (*IMAGES, ".dcm")
        inner = set(folders)
        for path in sorted(files + folders):
            if path in inner:
                yield from self._walked(path, studies, above, told)
            elif path in studies:
                yield from studies[path]
            elif path in self.damaged and not told and folder in above:
                yield Item(named(path.relative_to(self.source).as_posix()), str(path))  # its row says why
            elif path.name.lower().endswith(endings) and path.is_file():
                yield Item(named(path.relative_to(self.source).as_posix()), str(path))

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
                items = list(self._below(folder))
                yield from [item for item in items if re.search(r"_T1w\.[^/]+$", item.file)] or items


def studies_in(folder: Path) -> list[str]:
    """The series to read of a folder in which several studies lie; none where one answer is all there is."""
    try:
        listed = processes.read(folder).series
    except ScanError as error:
        listed = error.series
    return each_study(listed)


def holds_dicom(files: list[Path]) -> bool:
    """Whether files beside each other are DICOM: by their names, or by the content of one without a known name."""
    if any(file.suffix.lower() == ".dcm" for file in files):
        return True
    unknown = (file for file in files if not file.suffix or file.suffix[1:].isdigit() or file.suffix == ".IMA")
    return any(begins_as_dicom(file) for file in itertools.islice(unknown, 1))


def _stored(address: str) -> Iterator[Item]:
    """The scans of a store such as s3://…, or whatever else fsspec knows; a folder of DICOM files is one."""
    store, root = opened(address)
    folders: set[str] = set()
    try:
        paths = sorted(store.find(root))
    except OSError as error:
        raise InputError(f"{address}: cannot be listed ({error}); check the address and its rights") from error
    for path in paths:
        if path.rsplit("/", 1)[-1].startswith(".") or not path.lower().endswith((*APART, ".dcm")):
            continue
        if path.lower().endswith(".dcm") and path != root:
            path = path.rsplit("/", 1)[0]
            if path in folders:
                continue
            folders.add(path)
        file = path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]
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
