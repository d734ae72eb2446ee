"""What a reader process may hold: little until a file's header has been checked, then what that header declares.

`grow` and `empty` are called by the readers of all formats. In a reader process they move its address-space limit
and allocate in memory that the other side can map; in any other process nothing is limited.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

SLACK = 256 << 20  # bytes beside the file and what it declares: code paths, small copies, headers
WORN = SLACK  # bytes that what was read before may have left behind; a reader that holds more is replaced
AT_ONCE = 1 << 27  # bytes of a block whose pages are taken beforehand; of a larger one as they are filled
MOST = 3 << 30  # bytes that all of it may come to, whatever is declared


class Budget:
    """The address space of this process: how much is allowed now, and the blocks that can be handed over."""

    def __init__(self) -> None:
        self.limited = False
        self.first = self.start = self.now = 0
        self.blocks: dict[int, int] = {}  # where a block of memory begins → its descriptor

    def begin(self, size: int) -> None:
        """For a reader process: from here on only what a file of `size` bytes needs, and what is declared.

        Counted from what the process holds now: what was read before leaves something behind (a decoder's library,
        a heap that does not shrink), and the next file is not to pay for it. How much that may be, `worn` says.
        """
        self.limited = True
        self.now = self.start = address_space()
        self.first = self.first or self.start
        self.grow(size + SLACK)

    def grow(self, size: int) -> None:
        self.now += size
        if self.limited and self.start and resource is not None:
            soft = min(self.now, self.start + MOST)
            with contextlib.suppress(ValueError, OSError):  # a system that knows the limit's name alone
                resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def empty(self, size: int) -> np.ndarray:
        """So many bytes, uninitialised; of a reader process in memory that another process can map."""
        if not self.limited:
            return np.empty(size, np.uint8)
        self.grow(size)
        descriptor = anonymous(size)
        block = np.frombuffer(mapped(descriptor, size), np.uint8)
        self.blocks[address(block)] = descriptor
        return block

    @property
    def worn(self) -> bool:
        """Whether what was read left more behind than another process would cost."""
        return address_space() - self.first > WORN

    def end(self) -> None:
        for descriptor in self.blocks.values():
            os.close(descriptor)
        self.blocks.clear()


BUDGET = Budget()


def grow(size: int) -> None:
    """Allow `size` more bytes: what a header declares, once it has been found sensible."""
    BUDGET.grow(int(size))


def empty(shape: tuple[int, ...], dtype: np.dtype, order: Literal["C", "F"] = "C") -> np.ndarray:
    """An array for the voxels of a scan, its size declared by a header that has been checked."""
    dtype = np.dtype(dtype)
    block = BUDGET.empty(max(1, int(np.prod(shape, dtype=object)) * dtype.itemsize))
    return np.ndarray(shape, dtype, buffer=block.data, order=order)


def anonymous(size: int) -> int:
    """A descriptor of so many bytes that have no name in any folder and go with their last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("scan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    if 0 < size <= AT_ONCE and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    elif size:
        os.ftruncate(descriptor, size)
    return descriptor


def mapped(descriptor: int, size: int) -> mmap.mmap:
    """The block in this process, its pages all at once: one by one they would take three times as long."""
    flags = getattr(mmap, "MAP_POPULATE", 0) if size <= AT_ONCE else 0
    return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | flags)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def address_space() -> int:
    """Bytes of address space that this process has taken; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        return 0
    return int(status.read_text().split()[0]) * mmap.PAGESIZE


def parts(values: np.ndarray, size: int = 1 << 22) -> Iterator[np.ndarray]:
    """All of a contiguous array, flat and in pieces, in the order of memory; the pieces can be written to."""
    flat = values.ravel("K")
    for start in range(0, flat.size, size):
        yield flat[start : start + size]
