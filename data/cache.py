"""Prepared scans kept on disk, so that only the first epoch reads and resamples them."""

import errno
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import scans
from data.shards import DAMAGE, Shards, packed, unpacked
from data.tables import DataError
from scans.files import code_hash, content_hash, size_and_time, write_whole
from scans.prepare import prepare
from scans.processes import read
from scans.scan import Scan
from studies import Contract

PACKED = ".gz"  # of an entry that is compressed


class ToInput(Protocol):
    """What makes a network's input of a scan where `prepare` is not all; `key` names it for the cache."""

    @property
    def key(self) -> str: ...

    def __call__(self, scan: Scan) -> Tensor: ...


class Cache:
    """Prepared tensors on disk, one .npy for each content of a file, contract and version of our own code.

    Entries are float16 (float32 where that overflows) with a CRC-32 behind; a damaged or vanished one is made
    anew. Outlines are compressed, which makes a tenth of them; of brightness it would save too little for its
    time. Writes are atomic, so processes may share the folder; the least recently used go when it is full.
    """

    def __init__(
        self,
        folder: str | Path,
        contract: Contract,
        limit_bytes: int = 64 << 30,
        to_input: ToInput | None = None,  # in the place of `prepare`
        shards: str | Path | None = None,  # a folder of shards, where what is packed is read from
    ):
        self.folder, self.contract, self.limit, self.to_input = Path(folder), contract, limit_bytes, to_input
        self.folder.mkdir(parents=True, exist_ok=True)
        by = f"{to_input.key}-" if to_input else ""
        self.ending = f"-{contract.hash()}-{by}{code_hash(Path(scans.__file__).parent.rglob('*.py'))}.npy"
        self.shards = Shards(shards, self.ending) if shards else None
        self.contents: dict[str, tuple[int, int, str]] = {}  # path → size, mtime, hash: hashed once a process
        self.room = 0  # bytes that may still be written before the folder is measured again

    def entry(self, file: str | Path) -> Path:
        """Where the prepared file lies, or will."""
        return self._place(self.name(file))

    def _place(self, name: str) -> Path:
        return self.folder / (name + (PACKED if self.contract.outlined else ""))

    def name(self, file: str | Path) -> str:
        """By its content, the contract and our code; a shard holds it under the same."""
        key, known = str(file), self.contents.get(str(file))
        try:
            state = size_and_time(file)
        except FileNotFoundError:
            if not known:
                raise
        else:
            if not known or known[:2] != state:
                known = self.contents[key] = (*state, content_hash(file))
        return known[2][:32] + self.ending

    def get(self, file: str | Path) -> Tensor:
        """The prepared tensor in float32, with float16's precision whether it was there or not."""
        name = self.name(file)
        if self.shards and name in self.shards:
            return torch.from_numpy(self.shards.get(name).astype(np.float32))
        entry = self._place(name)
        values = self._load(entry)
        if values is None:
            values = self._prepared(file)
            self._keep(entry, values)
        return torch.from_numpy(values.astype(np.float32))

    def to_pack(self, file: str | Path) -> tuple[str, bytes] | None:
        """What the shards lack of a file, by its name in them; None where they have it."""
        name = self.name(file)
        if self.shards and name in self.shards:
            return None
        values = self._load(self._place(name))
        return name, packed(self._prepared(file) if values is None else values)

    def _prepared(self, file: str | Path) -> np.ndarray:
        scan = read(Path(file))
        made = self.to_input(scan) if self.to_input else prepare(scan, self.contract).tensor
        return _half(made.numpy())

    def made(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array under a name of its own, made where it is not there, or not any more."""
        entry = self.folder / f"{name}.npy"
        values = self._load(entry)
        if values is None:
            values = np.ascontiguousarray(make())
            self._keep(entry, values)
        return np.array(values)

    def _load(self, entry: Path) -> np.ndarray | None:
        try:
            values = unpacked(entry.read_bytes()) if entry.suffix == PACKED else _checked(entry)
            os.utime(entry)  # used now
        except DAMAGE as error:
            if getattr(error, "errno", None) not in (None, errno.ENOENT):  # the disk's own trouble
                raise
            return None
        return values

    def _keep(self, entry: Path, values: np.ndarray) -> None:
        content = packed(values) if entry.suffix == PACKED else b""

        def fill(out):
            if content:
                out.write(content)
            else:
                np.save(out, values)
                out.write(zlib.crc32(values.data).to_bytes(4, "big"))

        size = len(content) or values.nbytes + 132
        if size > self.limit:
            return
        if size > self.room:
            self.trim(size)
        try:
            write_whole(entry, fill)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot keep a prepared scan ({error.strerror}); free some disk, or "
                "choose another folder or a lower limit for the cache"
            ) from error
        self.room -= size

    def trim(self, wanted: int = 0) -> None:
        """Remove the least recently used until `wanted` more bytes fit, and what broken-off writes left."""
        found, now = [], time.time()
        for file in self.folder.iterdir():
            try:
                stat = file.stat()
                if file.suffix == ".part" and now - stat.st_mtime > 3600:
                    file.unlink()
                elif file.suffix in (".npy", PACKED):
                    found.append((stat.st_mtime_ns, stat.st_size, file))
            except FileNotFoundError:  # another process was faster
                continue
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total + wanted <= self.limit:
                break
            file.unlink(missing_ok=True)
            total -= size
        self.room = max(wanted, (self.limit - total) // 4)  # a quarter: others may be writing too


def _checked(entry: Path) -> np.ndarray:
    """The values of an entry that is not compressed; ValueError where they are not what was kept."""
    values = np.load(entry, mmap_mode="r")
    with entry.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if file.read(4) != zlib.crc32(values.data).to_bytes(4, "big"):
            raise ValueError(f"{entry.name}: damaged")
    return values


def _half(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float16 if np.abs(values).max() < 65504 else np.float32)
