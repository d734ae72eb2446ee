"""Where things lie: linear resampling through 4×4 matrices, the foreground of a head, its anchor. No files.

Matrices map voxel indices to voxel indices or to world millimetres (RAS); arrays keep the order given.
Axis-aligned maps are three short lists of taps, one an axis: flips, axis orders and anti-aliasing cost nothing
extra. Anything oblique goes through `grid_sample`.
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
BAND = 96  # outputs along a line, worked on at once
PLANES = 32  # worked on at once
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


@dataclass(frozen=True, eq=False)
class Taps:
    """What each output along one axis reads: output i is the sum of `share[i] · input[at[i]]`."""

    at: np.ndarray  # (n, k) int64
    share: np.ndarray  # (n, k) float32
    size: int  # of the input

    def __len__(self) -> int:
        return len(self.at)

    def used(self) -> slice:
        read = self.at[self.share > 0]
        return slice(int(read.min()), int(read.max()) + 1) if len(read) else slice(0, 0)

    def within(self, part: slice) -> "Taps":
        """The same reading of a part of the input, the part that is used."""
        size = part.stop - part.start
        return Taps((self.at - part.start).clip(0, size - 1), self.share, size)

    def bands(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Some outputs at a time, the inputs that they use, and the matrix between the two."""
        for start in range(0, len(self), BAND):
            rows = slice(start, start + BAND)
            some = Taps(self.at[rows], self.share[rows], self.size)
            columns = some.used() if some.share.any() else slice(0, 1)
            table = np.zeros((len(some), columns.stop - columns.start), np.float32)
            near = some.within(columns)
            np.add.at(table, (np.arange(len(some))[:, None], near.at), near.share)
            yield rows, columns, torch.from_numpy(table)


def taps(step: float, start: float, size_out: int, size_in: int, smooth: bool) -> Taps:
    """Output i reads the input at `start + step·i`, between its neighbours; outside the input is zero.

    Where `smooth` and the output is coarser a wider triangle is read, against aliasing. (In numpy: tables so
    small are not worth waking torch's threads.)
    """
    at = start + step * np.arange(size_out)
    width = max(1.0, abs(step)) if smooth else 1.0
    near = np.floor(at - width)[:, None] + np.arange(1, int(2 * width) + 2)
    share = (1 - np.abs(at[:, None] - near) / width).clip(0)
    if width > 1:  # the sampled triangle sums to `width` only on average
        share /= share.sum(1, keepdims=True).clip(1)
    share[(near < 0) | (near >= size_in)] = 0
    return Taps(near.clip(0, size_in - 1).astype(np.int64), share.astype(np.float32), size_in)


def resample(values: torch.Tensor, matrix: np.ndarray, shape: tuple[int, ...], smooth: bool = True,
             offset: float = 0.0, factor: float = 1.0) -> torch.Tensor:
    """(values + offset) · factor read at `matrix` (output index → input index) on a grid of `shape`, float32.

    What lies outside the input reads as zero. `smooth` guards against aliasing where the grid is coarser.
    """
    if is_oblique(matrix):
        return _resample_oblique(values, matrix, shape, smooth, offset, factor)
    order = axes(matrix.T)  # order[a]: the input axis that output axis a runs along
    lines, crop = [], [slice(None)] * 3
    for axis, source in enumerate(order):
        line = taps(matrix[source, axis], matrix[source, 3], shape[axis], values.shape[source], smooth)
        crop[source] = line.used()
        if crop[source].stop == 0:
            return torch.zeros(shape)
        lines.append(line.within(crop[source]))
    return _three_axes(values[tuple(crop)].permute(order), lines, offset, factor)


def _three_axes(part: torch.Tensor, axis_taps: list[Taps], offset: float, factor: float) -> torch.Tensor:
    """(part + offset) · factor, read along three axes; `part` has the input's axes in the output's order.

    Lines along the axis that memory runs along are summed, a few an output line, over the other two axes at
    once; a banded product along the lines does the rest. So no axis order needs a copy first.
    """
    outer, inner, along = sorted(range(3), key=part.stride, reverse=True)
    lines = part.permute(outer, inner, along).to(torch.float32, copy=True)
    lines = lines.add_(offset).view(-1, part.shape[along])
    first, second = (axis_taps[axis] for axis in range(3) if axis != along)
    split = 0 if along else 1  # the output axis taken a few planes at a time, so that they stay in the cache
    row, column = (part.shape[inner], 1) if outer < inner else (1, part.shape[inner])
    whole = torch.empty([len(axis) for axis in axis_taps])
    for start in range(0, len(first), PLANES):
        few = slice(start, start + PLANES)
        at = first.at[few, None, :, None] * row + second.at[None, :, None, :] * column
        share = (first.share[few, None, :, None] * factor) * second.share[None, :, None, :]
        at, share = (torch.from_numpy(each.reshape(-1, at[0, 0].size)) for each in (at, share))
        read = functional.embedding_bag(at, lines, mode="sum", per_sample_weights=share.float())
        out = whole.narrow(split, start, len(read) // len(second))
        for rows, columns, table in axis_taps[along].bands():
            used = read[:, columns]
            if along == 0:
                torch.mm(table, used.T, out=out.view(len(out), -1)[rows])
            elif along == 2:
                torch.mm(used, table.T, out=out.view(-1, out.shape[2])[:, rows])
            else:
                used = used.view(len(out), -1, used.shape[1]).transpose(1, 2)
                torch.bmm(table.expand(len(out), -1, -1), used, out=out[:, rows])
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
    for start in range(0, shape[0], PLANES):  # a few planes at a time, or the points outweigh the scan
        points = along[0][start:start + PLANES, None, None, None] + plane  # (x, 1, y, z, 3)
        each = values.expand(len(points), 1, *values.shape)  # a plane is a sample of its own: one thread each
        read = functional.grid_sample(each, points, align_corners=True, padding_mode="zeros")
        torch.mul(read[:, 0, 0], factor, out=whole[start:start + PLANES])
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

    index = np.argwhere(mask).astype(float)  # (n, 3)
    to_world = affine @ to_scan
    world = np.einsum("nj,ij->ni", index, to_world[:3, :3]) + to_world[:3, 3]  # numpy's `@` would leave threads
    # spinning beside torch's and slow down all that follows
    anchor = _anchor(world, cell)
    away = world - (anchor + BRAIN)
    core = np.einsum("ij,ij->i", away, away) < CORE**2
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


def _wider(mask: np.ndarray) -> np.ndarray:
    """The mask and every cell beside it."""
    wider = mask.copy()
    for axis in range(mask.ndim):
        ahead, behind = (np.moveaxis(each, axis, 0) for each in (wider, mask))
        ahead[1:] |= behind[:-1]
        ahead[:-1] |= behind[1:]
    return wider


def _anchor(world: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The middle (mm) of the upper head: the mean position of the foreground below its top, neck left out."""
    height = world[:, 2]
    step = np.abs(cell[2]).sum()  # how far one lattice cell reaches up and down
    edges = np.arange(height.min() - step / 2, height.max() + step, step)
    above = np.histogram(height, edges)[0][::-1].cumsum() * abs(np.linalg.det(cell))  # mm³ above each edge
    top = np.interp(min(TIP, 0.01 * above[-1]), above, edges[-2::-1])
    low, high = (np.clip((height - (top - reach)) / TAPER + 0.5, 0, 1) for reach in (HEIGHT, VAULT))
    middle = np.einsum("n,nj->j", high, world) / high.sum()
    middle[2] = np.einsum("n,n", low, height) / low.sum()
    return middle


def on_grid(found: Foreground, to_scan: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """The foreground's mask on a grid of `shape` that `to_scan` maps to scan voxels: nearest lattice cell."""
    matrix = np.linalg.inv(found.to_scan) @ to_scan
    mask = torch.from_numpy(_wider(found.mask))
    if is_oblique(matrix):
        return resample(mask, matrix, shape, smooth=False) > 0.5
    mask = functional.pad(mask.permute(axes(matrix.T)), [1] * 6)  # the rim reads as background
    for axis in (2, 1, 0):  # the big copies last, along whole rows
        source = axes(matrix.T)[axis]
        at = torch.round(matrix[source, axis] * torch.arange(shape[axis]) + matrix[source, 3]).long() + 1
        mask = mask.index_select(axis, at.clamp(0, mask.shape[axis] - 1))
    return mask
