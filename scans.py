"""Scans: reading a file into a `Scan`, and preparing it on a study's grid and back again.

Every refusal is a `ScanError` that names the offending value, then the remedy. Nothing is written to disk,
and nothing of a header's text (names, dates, descriptions) is kept.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch.nn import functional

import grid
from studies import Contract

try:
    from isal import isal_zlib as inflate
except ImportError:  # no wheel for this machine; zlib gives the same bytes, slower
    inflate = zlib

LIMIT = 1 << 30  # bytes of a file, and of what it unpacks to
MAX_VOXELS = 1 << 28
MIN_SIDE = 4  # voxels
MAX_BAD = 0.01  # share of NaN and Inf voxels that may be repaired
SPACINGS = (0.01, 50.0)  # mm that a voxel can measure
BRIGHTEST = 10.0  # deviations above the mean; brighter voxels are clipped


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


@dataclass(frozen=True, eq=False)
class Prepared:
    tensor: torch.Tensor  # float32 (1, X, Y, Z) or (C, H, W)
    to_scan: np.ndarray  # (4, 4) grid voxel index → scan voxel index
    foreground: torch.Tensor  # bool, on the grid
    affine: np.ndarray  # (4, 4) grid voxel → world mm
    notes: list[str]  # "no-affine", "oblique"
    facts: dict[str, Any]


def safe_name(name: str) -> str:
    """The last part of a user's file name, of harmless characters only, to show back to that user."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.()+ -]", "_", last).strip(". ")[-80:] or "scan"


# --- reading -------------------------------------------------------------------------------------------------

def read(file: str | Path | bytes, name: str | None = None, series: str | None = None,
         limit: int = LIMIT) -> Scan:
    """The scan in a file or in bytes; `name` (needed with bytes) tells its format by its suffix."""
    shown = safe_name(name or (Path(file).name if not isinstance(file, bytes) else ""))
    if not isinstance(file, bytes):
        path = Path(file)
        if not path.is_file():
            raise ScanError("missing", f"{shown}: no such file; check the path")
        if path.stat().st_size > limit:
            raise ScanError("too-large", f"{shown}: {path.stat().st_size:,} bytes, more than the limit of "
                                         f"{limit:,}; crop it or save it with 16-bit voxels")
        file = path.read_bytes()
    if not file:
        raise ScanError("empty", f"{shown}: the file is empty (0 bytes); copy or export it again")
    if len(file) > limit:
        raise ScanError("too-large", f"{shown}: {len(file):,} bytes, more than the limit of {limit:,}; "
                                     "crop it or save it with 16-bit voxels")
    suffix = next((s for s in READERS if shown.lower().endswith(s)), None)
    if suffix is None:
        raise ScanError("unknown-type", f"{shown}: this kind of file is not known; known are {', '.join(READERS)}")
    return READERS[suffix](file, shown, series, limit)


def _unzip(data: bytes, name: str, limit: int) -> "_Stream":
    return _Stream(data, name, limit)


class _Stream:
    """Bytes read from the front, inflated as they are asked for when the file is gzipped."""

    def __init__(self, data: bytes, name: str, limit: int):
        self.data, self.name, self.limit = data, name, limit
        self.inflater = inflate.decompressobj(wbits=31) if data[:2] == b"\x1f\x8b" else None
        self.given = 0

    def take(self, size: int) -> np.ndarray:
        """The next bytes, `size` of them or fewer where the file ends; nothing is allocated beyond `limit`."""
        if self.inflater is None:
            part = np.frombuffer(self.data, np.uint8)[self.given:self.given + size].copy()
            self.given += len(part)
            return part
        whole, at = np.empty(size, np.uint8), 0
        while at < size:
            part = self._inflate(min(size - at, 1 << 20))
            if not part:
                break
            whole[at:at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        self.given += at
        return whole[:at]

    def _inflate(self, size: int) -> bytes:
        try:
            part = self.inflater.decompress(self.data, size)
        except (zlib.error, inflate.error) as error:
            raise ScanError("truncated", f"{self.name}: the compressed data are damaged; copy or export the "
                                         "file again") from error
        self.data = self.inflater.unconsumed_tail
        return part

    def finish(self) -> None:
        """Read on to the end, keeping nothing: a stream that inflates past the limit is refused."""
        while self.inflater is not None and not self.inflater.eof:
            part = self._inflate(1 << 20)
            self.given += len(part)
            if self.given > self.limit:
                raise ScanError("too-large", f"{self.name}: inflates to more than the limit of {self.limit:,} "
                                             "bytes; upload the scan alone")
            if not part and not self.data:
                raise ScanError("truncated", f"{self.name}: the compressed data end early; copy or export the "
                                             "file again")


def _read_nifti(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    stream = _Stream(data, name, limit)
    head = stream.take(348).tobytes()
    size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 348 in size and len(head) == 348:
        header = nibabel.Nifti1Header(head, check=False)
    elif 540 in size and len(head) == 348:
        head += stream.take(540 - 348).tobytes()
        header = nibabel.Nifti2Header(head, check=False)
    else:
        stream.finish()
        raise ScanError("bad-header", f"{name}: not a NIfTI header; export the scan again as .nii.gz")
    rank = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1:rank + 1])
    dtype = header.get_data_dtype()
    offset = int(header["vox_offset"])
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    stream.take(offset - len(head))
    raw = stream.take(needed)
    stream.finish()
    voxels = raw.view(dtype)
    slope, inter = header.get_slope_inter()
    voxels = voxels.reshape(shape, order="F")
    known = bool(header["qform_code"] or header["sform_code"])
    return _volume(voxels, header.get_best_affine(), name, "NIfTI", known, slope, inter)


def _volume(voxels: np.ndarray, affine: np.ndarray, name: str, form: str, known: bool,
            slope: float | None = None, inter: float | None = None, **facts: Any) -> Scan:
    """What every volume goes through, whatever its file: one volume, finite, not constant, native numbers."""
    stored = voxels.dtype.name
    voxels = voxels.reshape(voxels.shape[:3], order="F")
    native = voxels.dtype.newbyteorder("=")
    if native.itemsize > 2 or native.kind == "f":
        native = np.dtype(np.float32)
    voxels = voxels.astype(native, copy=False)
    if slope not in (None, 1) or inter not in (None, 0):
        voxels = voxels.astype(np.float32) * np.float32(slope or 1) + np.float32(inter or 0)
    facts = {
        "format": form, "shape": list(voxels.shape), "dtype": stored,
        "spacing": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(nibabel.aff2axcodes(affine)) if known else "unknown",
        "affine_known": known, "oblique": known and grid.is_oblique(affine), "repaired": 0, **facts,
    }
    return Scan(voxels, np.asarray(affine, float), "volume", facts)


READERS: dict[str, Callable[[bytes, str, str | None, int], Scan]] = {
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
}


# --- preparing -----------------------------------------------------------------------------------------------

def prepare(scan: Scan, contract: Contract) -> Prepared:
    """The scan on the grid of the contract, its intensities scaled, with the way back."""
    if scan.kind != contract.kind:
        raise ScanError("wrong-kind", f"this study reads a {contract.kind} and this is a {scan.kind} "
                                      f"({'×'.join(map(str, scan.voxels.shape))}); {REMEDIES[contract.kind]}")
    return _prepare_volume(scan, contract) if scan.kind == "volume" else _prepare_image(scan, contract)


REMEDIES = {
    "volume": "upload the whole scan as .nii.gz or as a zip of its DICOM series",
    "image": "upload one picture as .png, .jpg or .dcm",
}


def _tensor(voxels: np.ndarray) -> torch.Tensor:
    if not voxels.flags.writeable or min(voxels.strides) < 0:
        voxels = voxels.copy(order="K")
    return torch.from_numpy(voxels)


def _prepare_volume(scan: Scan, contract: Contract) -> Prepared:
    known = scan.facts.get("affine_known", True)
    notes = [] if known else ["no-affine"]
    found = grid.find_foreground(scan.voxels, scan.affine)
    shape = contract.shape
    if contract.place == "head" and known:
        affine = scan.affine
        if grid.is_oblique(affine):
            notes.append("oblique")
        else:
            affine = grid.straighten(affine)
        on_grid = np.diag([*contract.spacing, 1.0])
        on_grid[:3, 3] = found.anchor - np.array(contract.spacing) * np.array(contract.anchor) * (
            np.array(shape) - 1)
        to_scan = np.linalg.inv(affine) @ on_grid
    else:  # stretched to the grid as stored, first voxel on first voxel and last on last
        to_scan = np.diag([*((np.array(scan.voxels.shape) - 1) / (np.array(shape) - 1)), 1.0])
    if contract.planes is not None:
        shape = (contract.planes, *shape[1:])
    stretch = contract.place != "head" or not known

    voxels = _tensor(scan.voxels)
    if contract.scale == "foreground":
        values = grid.resample(voxels, to_scan, shape, not stretch, -found.air, 1 / found.deviation)
        zero = -found.mean / found.deviation  # where the scan has no signal
        values = values.add_(zero).clamp_(zero, BRIGHTEST)
        threshold = (found.threshold - found.air - found.mean) / found.deviation
    else:
        values = grid.resample(voxels, to_scan, shape, smooth=False)
        threshold = found.threshold
    foreground = grid.on_grid(found, to_scan, shape).logical_and_(values > threshold)
    return Prepared(values[None], to_scan, foreground, scan.affine @ to_scan, notes, dict(scan.facts))


def restore(values: np.ndarray | torch.Tensor, prepared: Prepared, scan: Scan) -> np.ndarray:
    """A map on the grid, read at the scan's own voxels; zero outside the grid."""
    values = torch.as_tensor(np.asarray(values, dtype=np.float32))
    if scan.kind == "volume":
        return grid.resample(values, np.linalg.inv(prepared.to_scan), scan.voxels.shape, smooth=False).numpy()
    raise NotImplementedError
