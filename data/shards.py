"""Prepared scans packed into few large tar files, for cohorts that no cache holds: made once, read in any order.

A shard is a plain tar, one `NAME.npy.gz` for each scan, as WebDataset lays them out. `index.json` beside the
shards says where each scan's bytes lie, so an epoch draws its order as it does from single files. The index is
written after each whole shard: packing that was broken off goes on behind the last of them.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.tables import DataError
from scans.files import INFLATE_ERRORS, Lock, gzip, write_bytes

INDEX = "index.json"
DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, *INFLATE_ERRORS)
SIZE = 1 << 30  # bytes after which a shard is whole


def packed(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return gzip.compress(out.getvalue(), compresslevel=1, mtime=0)  # the same bytes whenever it is packed


def unpacked(content: bytes) -> np.ndarray:
    """What `packed` made; of damage one of DAMAGE."""
    return np.load(io.BytesIO(gzip.decompress(content)))


class Shards:
    """A folder of shards, all of one contract and version of our own code, which `made_by` names."""

    def __init__(self, folder: str | Path, made_by: str, size: int = SIZE):
        self.folder, self.made_by, self.size = Path(folder), made_by, size
        self._places: dict[str, tuple[str, int, int]] = {}  # name → shard, first byte, bytes

    @property
    def places(self) -> dict[str, tuple[str, int, int]]:
        """Read when first wanted: the process that packs may be another one."""
        if not self._places and (self.folder / INDEX).is_file():
            self._places = self._listed()
        return self._places

    def _listed(self) -> dict[str, tuple[str, int, int]]:
        """What the index on the disk says."""
        try:
            index = json.loads((self.folder / INDEX).read_bytes())
            made_by = str(index["made_by"])
            scans = {name: (str(shard), int(first), int(n)) for name, (shard, first, n) in index["scans"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.folder / INDEX}: damaged; delete the folder {self.folder}, and it is packed again"
            ) from error
        if made_by != self.made_by:
            raise DataError(
                f"{self.folder}: its shards were made for another contract, or by another version; choose "
                "another folder, or empty this one"
            )
        return scans

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def get(self, name: str) -> np.ndarray:
        """The values of a scan that is there."""
        shard, first, count = self.places[name]
        try:
            with (self.folder / shard).open("rb") as tar:
                tar.seek(first)
                return unpacked(tar.read(count))
        except DAMAGE as error:
            raise DataError(f"{self.folder / shard}: damaged; empty the folder, and it is packed again") from error

    def pack(self, scans: Iterable[tuple[str, bytes]]) -> None:
        """Add (name, `packed` values) to the folder, a shard after the other; what is there already stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shard: _Shard | None = None
        lock = Lock(self.folder / ".lock")
        try:
            for name, content in scans:
                if name in self or (shard and name in shard.places):
                    continue
                if shard is None:
                    self._hold(lock)
                    if name in self:  # another run packed it meanwhile
                        continue
                    shard = _Shard(self.folder / self._next())
                shard.add(name, content)
                if shard.bytes >= self.size:
                    self._whole(shard)
                    shard = None
            if shard:
                self._whole(shard)
        except BaseException:
            if shard:
                shard.drop()
            raise
        finally:
            lock.release()

    def _hold(self, lock: Lock) -> None:
        """Keep other runs from packing here; held until all is packed."""
        try:
            lock.take()
        except BlockingIOError as error:
            raise DataError(
                f"{self.folder}: another run packs its scans there; wait for it, or choose another folder"
            ) from error
        self._places = {}

    def _next(self) -> str:
        """The name of a new shard: no shard has it, nor does the index name one that is gone."""
        names = {path.name for path in self.folder.glob("*.tar")} | {shard for shard, _, _ in self.places.values()}
        numbers = (int(name.removesuffix(".tar")) for name in names if name.removesuffix(".tar").isdecimal())
        return f"{max(numbers, default=-1) + 1:06}.tar"

    def _whole(self, shard: "_Shard") -> None:
        shard.close()
        places = self.places | shard.places
        write_bytes(self.folder / INDEX, json.dumps({"made_by": self.made_by, "scans": places}).encode())
        self._places = places


class _Shard:
    """A tar that is being written, under another name until it is whole."""

    def __init__(self, path: Path):
        self.path, self.part = path, path.with_suffix(".part")
        self.places: dict[str, tuple[str, int, int]] = {}
        self.bytes = 0
        self._tar = tarfile.open(self.part, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed in `close` or `drop`)

    def add(self, name: str, content: bytes) -> None:
        about = tarfile.TarInfo(f"{name}.gz")
        about.size = len(content)
        first = self._tar.offset + tarfile.BLOCKSIZE  # behind the member's header
        self._tar.addfile(about, io.BytesIO(content))
        self.places[name], self.bytes = (self.path.name, first, len(content)), self._tar.offset

    def close(self) -> None:
        self._tar.close()
        self.part.replace(self.path)

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk; what went wrong before is what is told
            self._tar.close()
        self.part.unlink(missing_ok=True)
