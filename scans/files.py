"""Files: hashed by content, written whole or not at all, and locked against another process."""

import hashlib
import itertools
import os
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scans.folders.listing import SMALLEST, may_be_dicom, possible
from scans.read import APART

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

inflate: Any
try:
    from isal import igzip as gzip
    from isal import isal_zlib as inflate
except ImportError:  # no wheel for this machine; the same bytes, slower
    import gzip as gzip  # type: ignore[no-redef]

    inflate = zlib

__all__ = [
    "INFLATE_ERRORS",
    "Lock",
    "code_hash",
    "content_hash",
    "gzip",
    "inflate",
    "is_plain",
    "size_and_time",
    "unused",
    "write_bytes",
    "write_whole",
]

INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, inflate.error)  # isal's is no zlib.error


def content_hash(file: str | Path) -> str:
    """SHA-256 of a file's bytes; of a folder that of the DICOM files' in it, whatever they are called.

    Other files of a folder, such as our own answers, are not read as part of a scan, and do not count.
    """
    if Path(file).is_dir():
        inner = (Path(file) / name for name in possible(Path(file), APART))
        own = sorted(content_hash(each) for each in inner if each.is_file() and _is_read(each))
        return hashlib.sha256("".join(own).encode()).hexdigest()
    digest = hashlib.sha256()
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_read(file: Path) -> bool:
    """Whether reading its folder looks into a file."""
    try:
        with file.open("rb") as stream:
            return may_be_dicom(stream.read(SMALLEST), file.name)
    except OSError:
        return False


def code_hash(files: Iterable[Path]) -> str:
    """Eight digits that change with the source code in these files, which what is made by it depends on."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:8]


def is_plain(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def size_and_time(file: str | Path) -> tuple[int, int]:
    """How a change of a file, or of anything in a folder, is seen: bytes in all, and the last change in ns."""
    inner = [each for each in Path(file).rglob("*") if is_plain(each)] if Path(file).is_dir() else [Path(file)]
    states = [each.stat() for each in inner]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def write_whole(path: Path, fill: Callable) -> None:
    """A file that is there whole or not at all; `fill` writes into the open file it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as out:
            fill(out)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Bytes as a file that is there whole or not at all."""
    write_whole(path, lambda out: out.write(content))


def unused(folder: Path, name: str, suffixes: tuple[str, ...]) -> str:
    """The name, or the name with the first number under which nothing lies in the folder yet."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not any((folder / f"{name}{suffix}").exists() for suffix in suffixes))


class Lock:
    """A file that one process at a time holds; it is let go with the process, however that ends."""

    def __init__(self, path: Path):
        self.path = path
        self._handle: int | None = None

    def take(self) -> None:
        """Hold it; BlockingIOError where another process does. Without effect on Windows."""
        while fcntl is not None and self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), self.path.stat()):
                    self._handle = handle
            except FileNotFoundError:  # who held it has just removed it
                pass
            finally:
                if self._handle is None:
                    os.close(handle)

    def release(self) -> None:
        if self._handle is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None
