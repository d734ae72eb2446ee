"""Where things lie: linear resampling through 4×4 matrices, the foreground of a head, its anchor. No files.

Matrices map voxel indices to voxel indices or to world millimetres (RAS); arrays keep the order given.
Axis-aligned maps are three small banded matrices, one an axis, applied as matrix products: flips, axis
orders and anti-aliasing cost nothing extra. Anything oblique goes through `grid_sample`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

COARSE = 3.0  # mm; the foreground is sought on about every third voxel of a 1 mm scan
BLUR = 2.5  # mm; against noise, and so that sulci do not cut the head to pieces
HEIGHT = 118.0  # mm below the top that set the anchor's height; on both whole heads and bare brains this
VAULT = 75.0  # lands in the middle of the brain, and the vault, above the face, sets it front to back
TAPER = 20.0  # mm over which either fades out, so that the anchor moves smoothly
TIP = 5000.0  # mm³ of foreground above what counts as the top
CORE = 50.0  # mm around the middle of the brain whose foreground sets the intensities: no scalp, no face
BRAIN = (0.0, -6.0, 0.0)  # mm from the anchor to the middle of the brain, in 20 adults
BAND = 32  # rows of a resampling matrix, or planes, worked on at once
ALIGNED = 2e-3  # sine of the angle below which a grid counts as parallel to the world's axes


@dataclass(frozen=True, eq=False)
class Foreground:
    """What stands out from the air, found on a coarse lattice of the scan."""

    mask: np.ndarray  # bool, on the lattice, whose axes run x, y, z
    to_scan: np.ndarray  # 4×4: lattice index → scan voxel index
    air: float  # the scan's own value of no signal
    threshold: float
    mean: float  # of the core, above air
    deviation: float
    anchor: np.ndarray  # world mm


def axes(matrix: np.ndarray) -> list[int]:
    """For each output axis of the matrix the input axis that runs along it most; each is taken once."""
    strength = np.abs(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
    taken = [-1, -1, -1]
    for _ in range(3):
        row, column = np.unravel_index(np.argmax(strength), (3, 3))
        taken[row] = int(column)
        strength[row, :] = strength[:, column] = -1
    return taken


def is_oblique(matrix: np.ndarray) -> bool:
    unit = np.abs(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
    return bool(np.sort(unit, axis=0)[1].max() > ALIGNED)


def straighten(matrix: np.ndarray) -> np.ndarray:
    """The matrix with each axis laid exactly along its nearest world axis; the origin stays."""
    straight = np.zeros((4, 4))
    straight[:, 3] = matrix[:, 3]
    for row, column in enumerate(axes(matrix)):
        step = np.linalg.norm(matrix[:3, column])
        straight[row, column] = np.copysign(step, matrix[row, column])
    return straight


def _weights(step: float, start: float, size_out: int, size_in: int, smooth: bool) -> torch.Tensor:
    """(size_out, size_in): output i reads the input at `start + step·i`; outside the input is zero."""
    at = start + step * torch.arange(size_out, dtype=torch.float64)
    width = max(1.0, abs(step)) if smooth else 1.0  # a wider triangle when shrinking, against aliasing
    away = (at[:, None] - torch.arange(size_in, dtype=torch.float64)).abs()
    triangle = (1 - away / width).clamp_min_(0)
    if width > 1:  # the sampled triangle sums to `width` only on average
        whole = (1 - (at[:, None] - torch.arange(-width // 1 - 1, size_in + width + 2)).abs() / width)
        triangle /= whole.clamp_min_(0).sum(1, keepdim=True).clamp_min_(1)
    return triangle.float()


def resample(values: torch.Tensor, matrix: np.ndarray, shape: tuple[int, ...], smooth: bool = True,
             offset: float = 0.0, factor: float = 1.0) -> torch.Tensor:
    """(values + offset) · factor read at `matrix` (output index → input index) on a grid of `shape`, float32.

    What lies outside the input reads as zero. `smooth` guards against aliasing where the grid is coarser.
    """
    if is_oblique(matrix):
        return _resample_oblique(values, matrix, shape, smooth, offset, factor)
    order = axes(matrix.T)  # order[a]: the input axis that output axis a runs along
    tables, crop = [], [slice(None)] * 3
    for axis, source in enumerate(order):
        table = _weights(matrix[source, axis], matrix[source, 3], shape[axis], values.shape[source], smooth)
        used = torch.nonzero(table.any(0)).flatten()
        if not len(used):
            return torch.zeros(shape)
        low, high = int(used[0]), int(used[-1]) + 1
        crop[source] = slice(low, high)
        tables.append(table[:, low:high])
    part = values[tuple(crop)].permute(order)  # the input's axes in the output's order
    tables[0] = tables[0] * factor
    return _three_products((part + offset).float(), tables)


def _bands(table: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """A few rows at a time of a banded matrix, with the columns that they use."""
    for start in range(0, len(table), BAND):
        rows = slice(start, start + BAND)
        used = torch.nonzero(table[rows].any(0)).flatten()
        yield rows, slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)


def _three_products(part: torch.Tensor, tables: list[torch.Tensor]) -> torch.Tensor:
    """One banded product an axis, each written in place, so that no axis order needs a copy first."""
    _, y, z = part.shape
    first, second, third = tables
    turned = part.stride(2) > part.stride(1)  # as NIfTI stores it: x fastest, z slowest
    flat = (part.permute(0, 2, 1) if turned else part).reshape(len(part), y * z)  # (X, Z·Y) or (X, Y·Z)
    planes = torch.empty(len(first), y * z)
    for rows, columns in _bands(first):
        torch.mm(first[rows, columns], flat[columns], out=planes[rows])
    planes = planes.view(-1, z, y).transpose(1, 2) if turned else planes.view(-1, y, z)  # (x, Y, Z)
    lines = torch.empty(len(first), len(second), z)  # (x, y, Z)
    for rows, columns in _bands(second):
        some = second[rows, columns].expand(len(first), -1, -1)
        torch.bmm(some, planes[:, columns], out=lines[:, rows])
    whole = torch.empty(len(first), len(second), len(third))  # (x, y, z)
    for rows, columns in _bands(third):
        torch.mm(lines.view(-1, z)[:, columns], third[rows, columns].T, out=whole.view(-1, len(third))[:, rows])
    return whole


def _resample_oblique(values: torch.Tensor, matrix: np.ndarray, shape: tuple[int, ...], smooth: bool,
                      offset: float, factor: float) -> torch.Tensor:
    values = values.float() + offset
    steps = np.linalg.norm(matrix[:3, :3], axis=1)  # input voxels a grid step, along each input axis
    if smooth and steps.max() > 1.3:  # average finer voxels first, then read between them
        shrink = np.eye(4)
        np.fill_diagonal(shrink[:3, :3], np.maximum(steps, 1))
        small = tuple(int(np.ceil(n / s)) for n, s in zip(values.shape, np.maximum(steps, 1), strict=True))
        values = resample(values, shrink, small)
        matrix = np.linalg.inv(shrink) @ matrix
    scale = 2 / np.maximum(np.array(values.shape) - 1, 1)  # −1…1 over the input, axes named z, y, x
    ways = torch.from_numpy((matrix[:3] * scale[:, None])[::-1].copy()).float()  # (3, 4)
    along = [torch.arange(n)[:, None] * ways[:, axis] for axis, n in enumerate(shape)]  # (n, 3) each
    plane = along[1][:, None] + along[2] + (ways[:, 3] - 1)  # (y, z, 3)
    whole = torch.empty(shape)
    for start in range(0, shape[0], BAND):  # a few planes at a time, or the points outweigh the scan
        points = along[0][start:start + BAND, None, None, None] + plane  # (x, 1, y, z, 3)
        each = values.expand(len(points), 1, *values.shape)  # a plane is a sample of its own: one thread each
        read = functional.grid_sample(each, points, align_corners=True, padding_mode="zeros")
        torch.mul(read[:, 0, 0], factor, out=whole[start:start + BAND])
    return whole


def find_foreground(voxels: np.ndarray, affine: np.ndarray) -> Foreground:
    """The head (or brain) in a scan: its mask on a coarse lattice, its intensities, its anchor.

    The lattice starts at the left, posterior, inferior corner however the axes are stored, so that all 48
    axis orders see the same samples.
    """
    order = axes(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_scan, cuts = np.eye(4), [slice(None)] * 3
    for world, axis in enumerate(order):
        step = max(1, int(COARSE / spacing[axis] + 1e-3))
        back = affine[world, axis] < 0
        cuts[axis] = slice(None, None, -step if back else step)
        to_scan[axis, axis] = -step if back else step
        to_scan[axis, 3] = voxels.shape[axis] - 1 if back else 0
    lattice = voxels[tuple(cuts)].transpose(order)  # (x, y, z), canonical from here on
    to_scan = to_scan[:, [*order, 3]]
    sample = np.ascontiguousarray(lattice, dtype=np.float32)

    air = float(np.percentile(sample, 0.5))
    high = np.percentile(sample[sample > air], 99.9) if (sample > air).any() else air
    threshold = air + 0.6 * (_otsu(sample, air, high) - air)
    cell = affine[:3, :3] @ to_scan[:3, :3]
    blur = BLUR / np.linalg.norm(cell, axis=0)
    blurred = ndimage.gaussian_filter(np.minimum(sample, high), blur, mode="nearest", truncate=2)
    mask = _largest(blurred > threshold)
    if not mask.any():
        mask = _largest(sample > air)
    if not mask.any():
        mask = np.ones_like(mask)

    index = np.argwhere(mask)  # (n, 3)
    to_world = affine @ to_scan
    world = index @ to_world[:3, :3].T + to_world[:3, 3]
    anchor = _anchor(world, cell)
    core = ((world - anchor - BRAIN) ** 2).sum(1) < CORE**2
    values = np.minimum(sample[mask], high)
    values = values[core] if core.mean() > 0.05 else values
    deviation = float(values.std(dtype=np.float64))
    return Foreground(mask, to_scan, air, float(threshold), float(values.mean(dtype=np.float64)) - air,
                      deviation if deviation > 0 else 1.0, anchor)


def _otsu(sample: np.ndarray, air: float, high: float) -> float:
    """Otsu's threshold of what lies above the air."""
    floor = air + 0.01 * (high - air)
    counts, edges = np.histogram(sample[sample > floor], 256, (floor, high)) if high > air else (None, None)
    if counts is None or not counts.sum():
        return air
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    mass = np.cumsum(counts * middle)
    possible = (below > 0) & (above > 0)
    if not possible.any():  # one brightness alone
        return float(mass[-1] / counts.sum())
    low = mass[:-1] / np.maximum(below, 1)
    high = (mass[-1] - mass[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(np.where(possible, below * above * (high - low) ** 2, -1)))
    return float(low[best] + high[best]) / 2  # steadier than the edge of a bin


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _anchor(world: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The middle (mm) of the upper head: the mean position of the foreground below its top, neck left out."""
    height = world[:, 2]
    step = np.abs(cell[2]).sum()  # how far one lattice cell reaches up and down
    edges = np.arange(height.min() - step / 2, height.max() + step, step)
    above = np.histogram(height, edges)[0][::-1].cumsum() * abs(np.linalg.det(cell))  # mm³ above each edge
    top = np.interp(min(TIP, 0.01 * above[-1]), above, edges[-2::-1])
    low, high = (np.clip((height - (top - reach)) / TAPER + 0.5, 0, 1) for reach in (HEIGHT, VAULT))
    middle = (world * high[:, None]).sum(0) / high.sum()
    middle[2] = (height * low).sum() / low.sum()
    return middle


def on_grid(found: Foreground, to_scan: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """The foreground's mask on a grid of `shape` that `to_scan` maps to scan voxels: nearest lattice cell."""
    matrix = np.linalg.inv(found.to_scan) @ to_scan
    mask = torch.from_numpy(ndimage.binary_dilation(found.mask))
    if is_oblique(matrix):
        return resample(mask, matrix, shape, smooth=False) > 0.5
    mask = functional.pad(mask.permute(axes(matrix.T)), [1] * 6)  # the rim reads as background
    for axis in (2, 1, 0):  # the big copies last, along whole rows
        source = axes(matrix.T)[axis]
        at = torch.round(matrix[source, axis] * torch.arange(shape[axis]) + matrix[source, 3]).long() + 1
        mask = mask.index_select(axis, at.clamp(0, mask.shape[axis] - 1))
    return mask
