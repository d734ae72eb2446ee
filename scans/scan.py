"""The `Scan` that every reader makes of a file, the `ScanError` that refuses one, and what all of them must pass.

Every refusal names the offending value, then the remedy. Of a header only geometry, numbers and words of our own
are kept: no name, date or description goes further but in `source`, which goes nowhere but into DICOM results.
"""

import io
import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scans.affine import is_oblique
from scans.memory import parts
from scans.origin import Acquisition, Series, Source

MAX_VOXELS = 1 << 28
MAX_PIXELS = 1 << 26
ABSURD_SIDE, ABSURD_BYTES = 1 << 13, 1 << 36  # beyond these a header lies rather than describes a big scan
MIN_SIDE = 4  # voxels or pixels
NARROWEST = 64  # times that a picture may be longer than wide
MAX_BAD = 0.01  # share of NaN and Inf voxels that is repaired
FEW = 1 << 14  # of them repaired at once
SPACINGS = (0.01, 50.0)  # mm that a voxel can measure
LARGEST, SMALLEST = 1e15, 1e-15  # that values may be, and that they may differ by
FARTHEST = 1e5  # mm from the scanner's centre
MAGIC = {  # how a file begins -> what it is
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
    b"\x5c\x01\x00\x00": "an uncompressed NIfTI file",
    b"\x00\x00\x01\x5c": "an uncompressed NIfTI file",
    b"%PDF": "a PDF document",
    b"<": "a web page or XML",
}


class ScanError(ValueError):
    """A file that cannot be used: `code` for machines; the text names the value and the way out."""

    def __init__(self, code: str, message: str, series: tuple[Series, ...] = ()):
        super().__init__(message)
        self.code = code
        self.series = series  # what there is to choose from, where that was not clear


@dataclass(frozen=True, eq=False)
class Scan:
    voxels: np.ndarray  # volume (X, Y, Z) in stored order; image (H, W) or (H, W, 3)
    affine: np.ndarray  # (4, 4) voxel → world mm, RAS
    kind: str  # "volume" or "image"
    facts: dict[str, Any]  # JSON-ready, for the page
    acquisition: Acquisition | None = None  # of DICOM: how the scanner made it
    series: tuple[Series, ...] = ()  # of DICOM: what lay together, where it was chosen among several
    source: Source | None = field(default=None, repr=False)  # of DICOM: whose it is; never shown, never logged


Data = bytes | mmap.mmap  # a file's content, in memory or mapped


def dims(shape: Iterable[object]) -> str:
    return "×".join(map(str, shape))


def what(data: Data) -> str:
    data = data[:132]
    if data[128:132] == b"DICM":
        return "a DICOM file"
    return next((words for magic, words in MAGIC.items() if data.startswith(magic)), "something else")


def usable(affine: np.ndarray) -> bool:
    """Whether voxels of a sensible size lie in three different directions, somewhere near a person."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > FARTHEST:
        return False
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    sensible = SPACINGS[0] <= steps.min() and steps.max() <= SPACINGS[1]
    return bool(sensible and abs(np.linalg.det(affine[:3, :3] / steps)) > 0.1)


def check_dtype(dtype: np.dtype, name: str) -> None:
    if dtype.fields or dtype.kind == "V":
        raise ScanError(
            "rgb",
            f"{name}: colour voxels ({dtype.itemsize} bytes of red, green, blue); save "
            "the scan with one number a voxel",
        )
    if dtype.kind == "c":
        raise ScanError("complex", f"{name}: complex voxels ({dtype.name}); save the magnitude image")
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise ScanError("bad-header", f"{name}: voxels of type {dtype}; save them as 16-bit integers")


def check_spacing(spacing: np.ndarray, name: str) -> None:
    if not all(SPACINGS[0] <= s <= SPACINGS[1] for s in spacing):
        raise ScanError(
            "bad-spacing",
            f"{name}: a voxel measures {dims([f'{s:g}' for s in spacing])} mm, "
            "by its header; correct the spacing, or export the scan again",
        )


def check_shape(shape: tuple[int, ...], itemsize: int, name: str, limit: int) -> None:
    """The size that a header declares, before anything of that size is made."""
    needed = int(np.prod(shape, dtype=object)) * itemsize
    if min(shape, default=0) < 1 or max(shape) > ABSURD_SIDE or needed > ABSURD_BYTES:
        raise ScanError(
            "absurd-dimensions",
            f"{name}: its header asks for {dims(shape)} voxels "
            f"({needed:,} bytes), which no scan has; export it again",
        )
    if needed > limit or needed // itemsize > MAX_VOXELS:
        raise ScanError(
            "too-large",
            f"{name}: {dims(shape)} voxels are {needed:,} bytes, and the "
            f"limit is {limit:,}; crop it, or save it with 16-bit voxels",
        )


def kept_as(dtype: np.dtype, scaled: bool = False) -> np.dtype:
    """How voxels are held: 8 and 16-bit integers as they are, all else as float32, in this machine's order."""
    keep = dtype.kind in "iu" and dtype.itemsize <= 2 and not scaled
    return dtype.newbyteorder("=") if keep else np.dtype(np.float32)


def volume(
    voxels: np.ndarray, affine: np.ndarray, name: str, form: str, known: bool, stored: str, **more: Any
) -> Scan:
    """What every volume goes through: made finite, not constant. `stored` is the file's own type of voxel."""
    from nibabel.orientations import aff2axcodes  # slow to import, and only who reads a file needs it

    repaired = repair(voxels, name)
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise ScanError(
            "constant", f"{name}: every voxel is {low:g}, so there is no picture in it; export the scan again"
        )
    check_range(low, high, name)
    facts = {
        "format": form,
        "shape": list(voxels.shape),
        "dtype": stored,
        "spacing": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(aff2axcodes(affine)) if known else "unknown",
        "affine_known": known,
        "oblique": bool(known and is_oblique(affine)),
        "repaired": repaired,
        **more,
    }
    return Scan(voxels, np.asarray(affine, dtype=float), "volume", facts)


def check_range(low: float, high: float, name: str) -> None:
    """Numbers that leave what follows room to square them, and to tell them apart."""
    if max(-float(low), float(high)) > LARGEST or float(high) - float(low) < SMALLEST:
        raise ScanError(
            "absurd-values",
            f"{name}: its values run from {low:g} to {high:g}, which no scanner gives; "
            "export it again with 16-bit numbers",
        )


def repair(voxels: np.ndarray, name: str) -> int:
    """Put the mean of the finite neighbours in place of each NaN or Inf voxel; how many there were.

    They are counted before they are listed, and listed a few planes at a time: all may be bad.
    """
    if voxels.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(sum(float(part.sum(dtype=np.float64)) for part in parts(voxels))):
            return 0
    bad = sum(int(part.size - np.count_nonzero(np.isfinite(part))) for part in parts(voxels))
    if bad > MAX_BAD * voxels.size:
        raise ScanError(
            "not-finite",
            f"{name}: {bad:,} of {voxels.size:,} voxels are not numbers (NaN "
            "or Inf); replace them, for instance with `fslmaths -nan`",
        )
    if not bad:
        return 0
    lowest = min(float(part.min(where=np.isfinite(part), initial=np.inf)) for part in parts(voxels))
    places, means = [], []
    for plane in range(voxels.shape[2]):
        here = np.argwhere(~np.isfinite(voxels[:, :, plane]))  # (n, 2)
        for start in range(0, len(here), FEW):
            some = here[start : start + FEW]
            places.append(np.column_stack([some, np.full(len(some), plane)]))
            means.append(_mean_near(voxels, places[-1], lowest))
    voxels[tuple(np.concatenate(places).T)] = np.concatenate(means)
    return bad


def _mean_near(voxels: np.ndarray, places: np.ndarray, otherwise: float) -> np.ndarray:
    """The mean of the finite voxels around each of the places (n, 3)."""
    around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    near = np.clip(places[:, None] + around, 0, np.array(voxels.shape) - 1)  # (n, 27, 3)
    values = voxels[tuple(np.moveaxis(near, -1, 0))].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    count = np.isfinite(values).sum(1)
    return np.where(count > 0, np.nansum(values, 1) / np.maximum(count, 1), otherwise)


def image(pixels: np.ndarray, name: str, form: str, **more: Any) -> Scan:
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ScanError("absurd-dimensions", f"{name}: {dims(pixels.shape[:2])} pixels; upload all of it")
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise ScanError(
            "rgb", f"{name}: {dims(pixels.shape)} numbers; save the picture in grey, or in red, green and blue"
        )
    if max(pixels.shape[:2]) > NARROWEST * min(pixels.shape[:2]):
        raise ScanError(
            "absurd-dimensions",
            f"{name}: {dims(pixels.shape[:2])} pixels, a strip and no picture; export the picture again",
        )
    if pixels.min() == pixels.max():
        raise ScanError(
            "constant",
            f"{name}: every pixel is {pixels.min():g}, so there is nothing in the picture; export it again",
        )
    check_range(pixels.min(), pixels.max(), name)
    facts = {
        "format": form,
        "shape": list(pixels.shape),
        "dtype": pixels.dtype.name,
        "affine_known": False,
        "oblique": False,
        "repaired": 0,
        **more,
    }
    return Scan(pixels, np.eye(4), "image", facts)


class View(io.RawIOBase):
    """Bytes that lie in memory, a mapped file among them, as a file to read from, without a copy."""

    def __init__(self, data: Data | bytearray | memoryview):
        super().__init__()
        self.data, self.at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: len(self.data)}[whence]
        if start + offset < 0:
            raise OSError("before the beginning of the file")
        self.at = start + offset
        return self.at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self.data) if size is None or size < 0 else self.at + size
        part = bytes(self.data[self.at : end])
        self.at += len(part)
        return part

    def readinto(self, buffer: Any) -> int:
        part = self.data[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)
