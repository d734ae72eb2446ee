"""The `Scan` that every reader makes of a file, the `ScanError` that refuses one, and what all of them must pass.

Every refusal names the offending value, then the remedy. Of a header only geometry and numbers are kept: no name,
date or description goes further.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

from scans.affine import is_oblique

MAX_VOXELS = 1 << 28
MAX_PIXELS = 1 << 26
ABSURD_SIDE, ABSURD_BYTES = 1 << 13, 1 << 36  # beyond these a header lies rather than describes a big scan
MIN_SIDE = 4  # voxels or pixels
MAX_BAD = 0.01  # share of NaN and Inf voxels that is repaired
SPACINGS = (0.01, 50.0)  # mm that a voxel can measure
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

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Scan:
    voxels: np.ndarray  # volume (X, Y, Z) in stored order; image (H, W) or (H, W, 3)
    affine: np.ndarray  # (4, 4) voxel → world mm, RAS
    kind: str  # "volume" or "image"
    facts: dict[str, Any]  # JSON-ready, for the page


Reader = Callable[[bytes, str, str | None, int], Scan]  # bytes, shown name, series, limit in bytes


def dims(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def what(data: bytes) -> str:
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


def volume(
    voxels: np.ndarray,
    affine: np.ndarray,
    name: str,
    form: str,
    known: bool,
    slope: float | None = None,
    inter: float | None = None,
    **more: Any,
) -> Scan:
    """What every volume goes through: 8 or 16-bit integers or float32 of this machine, finite, not constant."""
    stored = voxels.dtype.name
    check_dtype(voxels.dtype, name)
    scaled = slope not in (None, 1) or inter not in (None, 0)
    keep = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2 and not scaled
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes Inf, and is counted below
        voxels = voxels.astype(voxels.dtype.newbyteorder("=") if keep else np.float32, copy=False)
        if scaled:
            voxels = voxels * np.float32(slope) + np.float32(inter)
        finite = keep or np.isfinite(voxels.sum())
    repaired = 0 if finite else repair(voxels, name)
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise ScanError(
            "constant", f"{name}: every voxel is {low:g}, so there is no picture in it; export the scan again"
        )
    facts = {
        "format": form,
        "shape": list(voxels.shape),
        "dtype": stored,
        "spacing": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(nibabel.aff2axcodes(affine)) if known else "unknown",
        "affine_known": known,
        "oblique": known and is_oblique(affine),
        "repaired": repaired,
        **more,
    }
    return Scan(voxels, np.asarray(affine, dtype=float), "volume", facts)


def repair(voxels: np.ndarray, name: str) -> int:
    """Put the mean of the finite neighbours in place of each NaN or Inf voxel; how many there were."""
    bad = np.argwhere(~np.isfinite(voxels))  # (n, 3)
    if len(bad) > MAX_BAD * voxels.size:
        raise ScanError(
            "not-finite",
            f"{name}: {len(bad):,} of {voxels.size:,} voxels are not numbers (NaN "
            "or Inf); replace them, for instance with `fslmaths -nan`",
        )
    around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    near = np.clip(bad[:, None] + around, 0, np.array(voxels.shape) - 1)  # (n, 27, 3)
    values = voxels[tuple(np.moveaxis(near, -1, 0))].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    count = np.isfinite(values).sum(1)
    mean = np.nansum(values, 1) / np.maximum(count, 1)
    lowest = voxels[np.isfinite(voxels)].min()
    voxels[tuple(bad.T)] = np.where(count > 0, mean, lowest)
    return len(bad)


def image(pixels: np.ndarray, name: str, form: str, **more: Any) -> Scan:
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ScanError("absurd-dimensions", f"{name}: {dims(pixels.shape[:2])} pixels; upload all of it")
    if pixels.min() == pixels.max():
        raise ScanError(
            "constant",
            f"{name}: every pixel is {pixels.min():g}, so there is nothing in the picture; export it again",
        )
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
