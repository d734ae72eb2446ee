"""Slices that lie in space: the images of one DICOM series, put together to one volume in world millimetres.

A slice knows where its first pixel lies and which way its rows and columns run; everything else follows. Slices
that are shifted against one another evenly, as by a tilted gantry, give a sheared affine, which `prepare` honours.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset

from scans.dicom.pixels import Pixels
from scans.memory import empty
from scans.origin import Instance, Source
from scans.scan import MAX_VOXELS, Scan, ScanError, check_shape, kept_as, usable, volume

FEWEST = 4  # slices
PARALLEL = 1e-3  # by which the numbers of two directions may differ
SAME_PLACE = 1e-3  # mm between slices that lie at one place
UNEVEN = (0.1, 0.05)  # mm, and share of a step, by which steps between slices may differ
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    pixels: Pixels
    frame: int
    corner: np.ndarray  # (3,) mm: the middle of its first pixel, in DICOM's LPS
    ways: np.ndarray  # (2, 3): unit vectors along which columns and rows count
    spacing: np.ndarray  # (2,) mm from column to column, and from row to row
    slope: float
    intercept: float


def assemble(files: list[tuple[Dataset, Pixels]], name: str, modality: str, limit: int) -> Scan:
    """The volume of one series; refuses what is none, before any pixel is decoded."""
    check_files(files, name, limit)
    slices = [one for header, pixels in files for one in slices_of(header, pixels)]
    if not slices:
        raise ScanError("no-image", f"{name}: its images have no place in space; upload the original")
    first = slices[0]
    for other in slices[1:]:
        if np.abs(other.ways - first.ways).max() > PARALLEL:
            raise ScanError(
                "several-series",
                f"{name}: the images lie in different planes, as in a localizer; upload one series alone",
            )
        size, told = ((one.pixels.rows, one.pixels.columns) for one in (other, first))
        if size != told or np.abs(other.spacing - first.spacing).max() > PARALLEL:
            raise ScanError(
                "several-series",
                f"{name}: images of {told[0]}×{told[1]} and of {size[0]}×{size[1]} "
                "pixels, or of pixels that differ in size; upload one series alone",
            )
    slices = in_order(slices, name)
    corners = np.stack([one.corner for one in slices])  # (n, 3)
    at = places(corners, name, modality)
    shape = (first.pixels.columns, first.pixels.rows, len(at))
    dtype = common_type(slices, whole=len(at) == len(slices) and np.array_equal(at, np.arange(len(at))))
    check_shape(shape, dtype.itemsize, name, limit)
    voxels = fill(slices, at, shape, dtype, name)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = (
        LPS_TO_RAS @ way * step for way, step in zip(first.ways, first.spacing, strict=True)
    )
    affine[:3, 2] = LPS_TO_RAS @ (corners[-1] - corners[0]) / (len(at) - 1)
    affine[:3, 3] = LPS_TO_RAS @ corners[0]
    known = usable(affine)
    scan = volume(
        voxels, affine if known else np.eye(4), name, "DICOM", known, first.pixels.dtype.name, modality=modality
    )
    return replace(scan, source=Source({}, tuple(instance_of(one) for one in slices)))


def instance_of(one: Slice) -> Instance:
    x, y, z = (round(float(value), 4) for value in one.corner)
    return Instance(str(one.pixels.header.get("SOPInstanceUID", ""))[:64], one.frame, (x, y, z))


def check_files(files: list[tuple[Dataset, Pixels]], name: str, limit: int) -> None:
    """What the headers say of the pixels, all together."""
    for header, pixels in files:
        if pixels.samples > 1:
            raise ScanError("rgb", f"{name}: colour images; upload the original series, with one number a pixel")
        pixels.check(name)
        if "MOSAIC" in [str(part).upper() for part in header.get("ImageType", None) or []]:
            raise ScanError(
                "mosaic",
                f"{name}: the slices lie side by side in one image (a mosaic); convert it with "
                "dcm2niix and upload the .nii.gz",
            )
    size = sum(pixels.size for _, pixels in files)
    count = sum(pixels.rows * pixels.columns * pixels.frames for _, pixels in files)
    if size > limit or count > MAX_VOXELS:
        raise ScanError(
            "too-large",
            f"{name}: its images unpack to {size:,} bytes, and the limit is {limit:,}; upload a smaller series",
        )


def slices_of(header: Dataset, pixels: Pixels) -> list[Slice]:
    """Those images of a file that lie somewhere: one, or its frames."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        one = [header] if pixels.frames == 1 else []
        found = [_slice(pixels, 0, each, each, each, each) for each in one if "ImagePositionPatient" in each]
    else:
        shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
        found = []
        for number, frame in enumerate(frames[: pixels.frames]):
            parts = [
                _part(frame, shared[0], keyword)
                for keyword in (
                    "PlanePositionSequence",
                    "PlaneOrientationSequence",
                    "PixelMeasuresSequence",
                    "PixelValueTransformationSequence",
                )
            ]
            if "ImagePositionPatient" in parts[0]:
                found.append(_slice(pixels, number, *parts))
    return [one for one in found if one is not None]


def _part(frame: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """What a frame says of itself, or else what all frames share."""
    told = frame.get(keyword) or shared.get(keyword)
    return told[0] if told else Dataset()


def _slice(
    pixels: Pixels, number: int, position: Dataset, orientation: Dataset, measures: Dataset, values: Dataset
) -> Slice | None:
    """A frame with all that its place needs; None where part of it is missing or cannot be."""
    corner = _numbers(position.get("ImagePositionPatient"), 3)
    ways = _numbers(orientation.get("ImageOrientationPatient"), 6)
    spacing = _numbers(measures.get("PixelSpacing"), 2)
    if corner is None or ways is None or spacing is None:
        return None
    ways = ways.reshape(2, 3)
    length = np.linalg.norm(ways, axis=1)
    if np.abs(length - 1).max() > 0.1 or abs(ways[0] @ ways[1]) > 0.1 or spacing.min() <= 0:
        return None
    slope, intercept = (
        _finite(values.get(keyword), otherwise)
        for keyword, otherwise in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    return Slice(pixels, number, corner, ways / length[:, None], spacing[::-1], slope, intercept)


def _finite(value: Any, otherwise: float) -> float:
    """A number where there is one; ValueError where it is no number that could be meant."""
    found = otherwise if value is None or str(value) == "" else float(value)
    if not np.isfinite(found):
        raise ValueError(f"a scale factor of {found}")
    return found


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """So many finite numbers, or None."""
    if value is None or str(value) == "":
        return None
    found = np.atleast_1d(np.array(value, dtype=float))
    return found if found.shape == (count,) and np.isfinite(found).all() else None


def in_order(slices: list[Slice], name: str) -> list[Slice]:
    """From one end to the other, along the way that rows and columns stand upright on; each place once."""
    upright = np.cross(*slices[0].ways)
    heights = np.array([one.corner @ upright for one in slices])
    order = np.argsort(heights, kind="stable")
    apart = np.diff(heights[order]) > SAME_PLACE
    count = int(apart.sum()) + 1
    if count < len(slices):
        raise ScanError(
            "several-volumes",
            f"{name}: {len(slices)} images at {count} places, so more than one volume; upload one 3-D volume",
        )
    if count < FEWEST:
        raise ScanError(
            "too-few-slices",
            f"{name}: {count} image{'s' * (count != 1)} of one volume, fewer than {FEWEST}; upload all",
        )
    return [slices[index] for index in order]


def places(corners: np.ndarray, name: str, modality: str) -> np.ndarray:
    """For each plane of the volume the slice that it shows, a fraction where it lies between two.

    That is 0, 1, 2 and so on where the slices are even; CT changes its step on purpose and is evened out,
    to one near the least.
    """
    steps = np.diff(corners, axis=0)  # (n - 1, 3)
    lengths = np.linalg.norm(steps, axis=1)
    usual = float(np.median(lengths))
    along = (corners[-1] - corners[0]) / np.linalg.norm(corners[-1] - corners[0])
    bent = np.linalg.norm(steps - lengths[:, None] * along, axis=1).max() > max(UNEVEN[0], UNEVEN[1] * usual)
    if not bent and np.abs(lengths - usual).max() <= max(UNEVEN[0], UNEVEN[1] * usual):
        return np.arange(len(corners), dtype=float)
    step = float(np.percentile(lengths, 15))
    count = int(lengths.sum() / step + 1e-6) + 1
    if bent or modality != "CT" or count > 8 * len(corners):
        raise ScanError(
            "uneven-slices",
            f"{name}: the slices are not evenly spaced, {lengths.min():.2f} to "
            f"{lengths.max():.2f} mm apart{gap(lengths, usual)}; export the whole series again",
        )
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    return np.interp(np.linspace(0, reached[-1], count), reached, np.arange(len(corners)))


def gap(lengths: np.ndarray, usual: float) -> str:
    """Where images seem to be missing: the first step that is some times the usual one."""
    missing = np.round(lengths / usual).astype(int) - 1
    even = np.abs(lengths - (missing + 1) * usual) <= max(UNEVEN[0], UNEVEN[1] * usual)
    if not even.all() or not missing.any():
        return ", or some are missing"
    first, count = int(np.argmax(missing > 0)) + 1, int(missing.sum())
    verb = "is" if count == 1 else "are"
    return f": {count} {verb} missing, the first after image {first} of {len(lengths) + 1}"


def common_type(slices: list[Slice], whole: bool) -> np.dtype:
    """What holds all values: the stored type, 16 bits where whole numbers are only shifted, else float32."""
    stored = slices[0].pixels.dtype
    same = all(one.pixels.dtype == stored for one in slices)
    shifts = {one.intercept for one in slices}
    if (
        not whole
        or not same
        or stored.kind == "f"
        or any(one.slope != 1 or not shift.is_integer() for one in slices for shift in (one.intercept,))
    ):
        return np.dtype(np.float32)
    if shifts == {0.0}:
        return kept_as(stored)
    low, high = np.iinfo(stored).min, np.iinfo(stored).max
    bits = min(int(one.pixels.header.get("BitsStored") or one.pixels.bits) for one in slices)
    if 1 <= bits < one_bits(stored):
        low, high = (0, 2**bits - 1) if stored.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    fits = low + min(shifts) >= -(2**15) and high + max(shifts) < 2**15
    return np.dtype(np.int16 if fits else np.float32)


def one_bits(dtype: np.dtype) -> int:
    return dtype.itemsize * 8


def fill(slices: list[Slice], at: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """(columns, rows, planes): each plane a slice, or what lies between two; each slice is decoded once."""
    planes = empty((shape[2], shape[1], shape[0]), dtype)  # (planes, rows, columns)
    held: dict[int, np.ndarray] = {}
    for number, place in enumerate(at):
        below = min(int(place), len(slices) - 1)
        share = float(place) - below
        for old in [key for key in held if key < below]:
            del held[old]
        for wanted in (below, below + 1) if share > 0 else (below,):
            if wanted not in held:
                held[wanted] = values_of(slices[wanted], dtype, name)
        planes[number] = held[below] if share == 0 else (1 - share) * held[below] + share * held[below + 1]
    return planes.T


def values_of(one: Slice, dtype: np.dtype, name: str) -> np.ndarray:
    """(rows, columns), in the scanner's own unit."""
    stored = one.pixels.frame(one.frame, name)
    if stored.ndim != 2:
        raise ScanError("bad-header", f"{name}: a frame of {stored.ndim} dimensions; export it again")
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return stored.astype(np.float32) * np.float32(one.slope) + np.float32(one.intercept)
    return (stored.astype(np.int32) + int(one.intercept)).astype(dtype) if one.intercept else stored
