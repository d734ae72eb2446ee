"""A folder of files that may be DICOM, whatever they are called: listed here, opened one by one by who reads it.

What another reader takes, such as a .nii.gz, is a scan by itself and no part of the folder.
"""

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scans.scan import ScanError

MAX_FILES = 20_000
SMALLEST = 132  # bytes that a DICOM file has at least
OLD = (b"\x08\x00", b"\x02\x00")  # how files without a preamble begin


@dataclass(frozen=True)
class Folder:
    """Files below a folder, by their paths within it."""

    root: int | Path  # a descriptor, where it comes from another process
    names: tuple[str, ...]

    def open(self, name: str) -> int:
        """A descriptor of a file; OSError where it is none."""
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if isinstance(self.root, int):
            descriptor = os.open(name, flags, dir_fd=self.root)
        else:
            descriptor = os.open(self.root / name, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("not a plain file")
        return descriptor

    def read(self, name: str) -> bytes:
        with os.fdopen(self.open(name), "rb") as file:
            return file.read()

    def mapped(self, name: str) -> mmap.mmap | None:
        """A file's bytes without reading them; None where there are too few."""
        descriptor = self.open(name)
        try:
            size = os.fstat(descriptor).st_size
            return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size > SMALLEST else None
        finally:
            os.close(descriptor)


def may_be_dicom(start: bytes | bytearray | memoryview | mmap.mmap, name: str) -> bool:
    """Whether a file that begins so is taken for DICOM; any other is passed over, whatever its name."""
    last = name.rsplit("/", 1)[-1]
    bare = start[:2] in OLD and start[3:4] == b"\x00"
    named = last.lower().endswith((".dcm", ".ima")) or "." not in last
    return start[128:132] == b"DICM" or (bare and named)


def possible(path: Path, apart: tuple[str, ...]) -> Iterator[str]:
    """The files below a folder that may be DICOM; hidden ones and those that end in `apart` are not."""
    for place, folders, files in os.walk(path):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        below = Path(place).relative_to(path)
        for file in files:
            if not file.startswith(".") and not file.lower().endswith(apart):
                yield str(below / file)


def listing(path: Path, shown: str, apart: tuple[str, ...], most: int | None = None) -> tuple[str, ...]:
    """The `possible` files below a folder, sorted; refused where there are none, or too many."""
    found: list[str] = []
    for name in possible(path, apart):
        found.append(name)
        if len(found) > (most or MAX_FILES):
            raise ScanError(
                "too-large",
                f"{shown}: more than {most or MAX_FILES:,} files below this folder; name the folder of one person",
            )
    if not found:
        raise ScanError(
            "no-image", f"{shown}: no file in this folder that could be DICOM; name the folder with it"
        )
    return tuple(sorted(found))
