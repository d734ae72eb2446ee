"""Prepared scans packed into few large tar files, for cohorts that no cache holds: made once, read in any order.

A shard is a plain tar, one `NAME.npy.gz` for each scan, as WebDataset lays them out. `index.json` beside the
shards says where each scan's bytes lie, so an epoch draws its order as it does from single files. The index is
written after each whole shard: packing that was broken off goes on behind the last of them.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.tables import DataError
from scans.files import INFLATE_ERRORS, gzip, write_bytes

INDEX = "index.json"
SIZE = 1 << 30  # bytes after which a shard is whole


def packed(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return gzip.compress(out.getvalue(), compresslevel=1)


class Shards:
    """A folder of shards, all of one contract and version of our own code, which `made_by` names."""

    def __init__(self, folder: str | Path, made_by: str, size: int = SIZE):
        self.folder, self.made_by, self.size = Path(folder), made_by, size
        self._places: dict[str, tuple[str, int, int]] = {}  # name → shard, first byte, bytes

    @property
    def places(self) -> dict[str, tuple[str, int, int]]:
        """Read when first wanted: the process that packs may be another one."""
        if not self._places and (self.folder / INDEX).is_file():
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            if index["made_by"] != self.made_by:
                raise DataError(
                    f"{self.folder}: its shards were made for another contract, or by another version; choose "
                    "another folder, or empty this one"
                )
            self._places = {name: (shard, first, count) for name, (shard, first, count) in index["scans"].items()}
        return self._places

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def get(self, name: str) -> np.ndarray:
        """The values of a scan that is there."""
        shard, first, count = self.places[name]
        try:
            with (self.folder / shard).open("rb") as tar:
                tar.seek(first)
                return np.load(io.BytesIO(gzip.decompress(tar.read(count))))
        except (OSError, EOFError, ValueError, *INFLATE_ERRORS) as error:
            raise DataError(f"{self.folder / shard}: damaged; empty the folder, and it is packed again") from error

    def pack(self, scans: Iterable[tuple[str, bytes]]) -> None:
        """Add (name, `packed` values) to the folder, a shard after the other; what is there already stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shard: _Shard | None = None
        try:
            for name, content in scans:
                if name in self or (shard and name in shard.places):
                    continue
                shard = shard or _Shard(self.folder / f"{len(list(self.folder.glob('*.tar'))):06}.tar")
                shard.add(name, content)
                if shard.bytes >= self.size:
                    self._whole(shard)
                    shard = None
        except BaseException:
            if shard:
                shard.drop()
            raise
        if shard:
            self._whole(shard)

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
        self._tar.close()
        self.part.unlink(missing_ok=True)
