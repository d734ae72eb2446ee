"""Linear resampling of a volume through a 4×4 matrix, anti-aliased where the new grid is coarser.

Axis-aligned maps are three short lists of weights, one an axis: flips, axis orders and anti-aliasing cost nothing
extra, and the whole takes a quarter of `grid_sample`'s time, which only what is oblique goes through.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from scans.affine import axes, is_oblique

BAND = 96  # outputs along a line, worked on at once
PLANES = 32  # worked on at once
TAPS = 8  # that are read at least each way of an output that stands for more
LARGE = 1 << 25  # voxels; of more only a part is turned into floats at a time


@dataclass(frozen=True, eq=False)
class AxisWeights:
    """What each output along one axis reads: output i is the sum of `share[i] · input[at[i]]`."""

    at: np.ndarray  # (n, k) int64
    share: np.ndarray  # (n, k) float32
    size: int  # of the input

    def __len__(self) -> int:
        return len(self.at)

    def used(self) -> slice:
        read = self.at[self.share > 0]
        return slice(int(read.min()), int(read.max()) + 1) if len(read) else slice(0, 0)

    def some(self, rows: slice) -> "AxisWeights":
        """The same for some of the outputs."""
        return AxisWeights(self.at[rows], self.share[rows], self.size)

    def within(self, part: slice) -> "AxisWeights":
        """The same reading of a part of the input, the part that is used."""
        size = part.stop - part.start
        return AxisWeights((self.at - part.start).clip(0, size - 1), self.share, size)

    def bands(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Some outputs at a time, the inputs that they use, and the matrix between the two."""
        for start in range(0, len(self), BAND):
            rows = slice(start, start + BAND)
            some = self.some(rows)
            columns = some.used() if some.share.any() else slice(0, 1)
            table = np.zeros((len(some), columns.stop - columns.start), np.float32)
            near = some.within(columns)
            np.add.at(table, (np.arange(len(some))[:, None], near.at), near.share)
            yield rows, columns, torch.from_numpy(table)


def axis_weights(step: float, start: float, size_out: int, size_in: int, smooth: bool) -> AxisWeights:
    """Output i reads the input at `start + step·i`, between its neighbours; outside the input is zero.

    Where `smooth` and the output is coarser a wider triangle is read, against aliasing. (In numpy: tables so
    small are not worth waking torch's threads.)
    """
    at = start + step * np.arange(size_out)
    width = max(1.0, abs(step)) if smooth else 1.0
    skip = max(1, int(width) // TAPS)  # of voxels far finer than the grid some tell as much
    near = np.floor(at - width)[:, None] + np.arange(1, int(2 * width) + 2, skip)
    share = (1 - np.abs(at[:, None] - near) / width).clip(0)
    if width > 1:  # the sampled triangle sums to `width` only on average
        share /= share.sum(1, keepdims=True).clip(1)
    share[(near < 0) | (near >= size_in)] = 0
    return AxisWeights(near.clip(0, size_in - 1).astype(np.int64), share.astype(np.float32), size_in)


def resample(
    values: torch.Tensor,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    smooth: bool = True,
    offset: float = 0.0,
    factor: float = 1.0,
) -> torch.Tensor:
    """(values + offset) · factor read at `matrix` (output index → input index) on a grid of `shape`, float32.

    What lies outside the input reads as zero. `smooth` guards against aliasing where the grid is coarser.
    """
    if is_oblique(matrix):
        return _resample_oblique(values, matrix, shape, smooth, offset, factor)
    order = axes(matrix.T)  # order[a]: the input axis that output axis a runs along
    lines = [
        axis_weights(matrix[source, axis], matrix[source, 3], shape[axis], values.shape[source], smooth)
        for axis, source in enumerate(order)
    ]
    return _aligned(values.permute(order), lines, offset, factor)


def _aligned(values: torch.Tensor, by_axis: list[AxisWeights], offset: float, factor: float) -> torch.Tensor:
    """The same along three axes; `values` has the input's axes in the output's order.

    Where much is read it is done in halves, so that never all of a big scan is held as floats.
    """
    crop = [line.used() for line in by_axis]
    if any(part.stop == 0 for part in crop):
        return torch.zeros([len(line) for line in by_axis])
    part = values[tuple(crop)]
    if part.numel() > LARGE:
        axis = max((axis for axis in range(3) if len(by_axis[axis]) > 1), key=part.stride, default=None)
        if axis is not None:
            middle = len(by_axis[axis]) // 2
            halves = [
                [line.some(rows) if number == axis else line for number, line in enumerate(by_axis)]
                for rows in (slice(middle), slice(middle, None))
            ]
            return torch.cat([_aligned(values, half, offset, factor) for half in halves], axis)
    return _three_axes(part, [line.within(used) for line, used in zip(by_axis, crop, strict=True)], offset, factor)


def _three_axes(part: torch.Tensor, by_axis: list[AxisWeights], offset: float, factor: float) -> torch.Tensor:
    """(part + offset) · factor, read along three axes; `part` has the input's axes in the output's order.

    Lines along the axis that memory runs along are summed, a few an output line, over the other two axes at
    once; a banded product along the lines does the rest. So no axis order needs a copy first.
    """
    outer, inner, along = sorted(range(3), key=part.stride, reverse=True)
    ordered = part.permute(outer, inner, along)
    lines = empty(ordered.shape).copy_(ordered).add_(offset).view(-1, part.shape[along])
    first, second = (by_axis[axis] for axis in range(3) if axis != along)
    split = 0 if along else 1  # the output axis taken a few planes at a time, so that they stay in the cache
    row, column = (part.shape[inner], 1) if outer < inner else (1, part.shape[inner])
    whole = empty([len(axis) for axis in by_axis])
    for start in range(0, len(first), PLANES):
        few = slice(start, start + PLANES)
        at = first.at[few, None, :, None] * row + second.at[None, :, None, :] * column
        share = (first.share[few, None, :, None] * factor) * second.share[None, :, None, :]
        at, share = (torch.from_numpy(each.reshape(-1, at[0, 0].size)) for each in (at, share))
        read = functional.embedding_bag(at, lines, mode="sum", per_sample_weights=share.float())
        out = whole.narrow(split, start, len(read) // len(second))
        for rows, columns, table in by_axis[along].bands():
            used = read[:, columns]
            if along == 0:
                torch.mm(table, used.T, out=out.view(len(out), -1)[rows])
            elif along == 2:
                torch.mm(used, table.T, out=out.view(-1, out.shape[2])[:, rows])
            else:
                used = used.view(len(out), -1, used.shape[1]).transpose(1, 2)
                torch.bmm(table.expand(len(out), -1, -1), used, out=out[:, rows])
    return whole


def empty(shape: Sequence[int]) -> torch.Tensor:
    """An uninitialised tensor. numpy asks the system for large pages and torch does not; to fill the small ones
    takes a quarter of all the time that preparing a scan does."""
    return torch.from_numpy(np.empty(tuple(shape), np.float32))


def cropped(
    values: torch.Tensor, matrix: np.ndarray, shape: tuple[int, ...], margin: int
) -> tuple[torch.Tensor, np.ndarray]:
    """The part of the input that a grid reads, and the matrix into it."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)  # (8, 3)
    reached = corners @ matrix[:3, :3].T + matrix[:3, 3]
    size = np.array(values.shape)
    low = np.clip(np.floor(reached.min(0)) - margin, 0, size).astype(int)
    high = np.clip(np.ceil(reached.max(0)) + margin + 1, low, size).astype(int)
    back = np.eye(4)
    back[:3, 3] = -low
    return values[tuple(map(slice, low, high))], back @ matrix


def _resample_oblique(
    values: torch.Tensor, matrix: np.ndarray, shape: tuple[int, ...], smooth: bool, offset: float, factor: float
) -> torch.Tensor:
    steps = np.linalg.norm(matrix[:3, :3], axis=1)  # input voxels a grid step, along each input axis
    if values.numel() > LARGE:  # only what is read is ever held as floats
        values, matrix = cropped(values, matrix, shape, 2 * int(np.ceil(steps.max())) + 2)
        if not values.numel():
            return torch.zeros(shape)
    if smooth and steps.max() > 1.3:  # average finer voxels first, then read between them
        shrink = np.eye(4)
        np.fill_diagonal(shrink[:3, :3], np.maximum(steps, 1))
        small = tuple(int(np.ceil(n / s)) for n, s in zip(values.shape, np.maximum(steps, 1), strict=True))
        values, offset = resample(values, shrink, small, offset=offset), 0.0
        matrix = np.linalg.inv(shrink) @ matrix
    if values.numel() > LARGE and shape[0] > 1:
        halves = (shape[0] // 2, shape[0] - shape[0] // 2)
        ahead = np.eye(4)
        ahead[0, 3] = halves[0]
        return torch.cat(
            [
                _resample_oblique(values, matrix @ move, (count, *shape[1:]), False, offset, factor)
                for move, count in zip((np.eye(4), ahead), halves, strict=True)
            ]
        )
    values = values.float() + offset
    scale = 2 / np.maximum(np.array(values.shape) - 1, 1)  # −1…1 over the input, axes named z, y, x
    ways = torch.from_numpy((matrix[:3] * scale[:, None])[::-1].copy()).float()  # (3, 4)
    along = [torch.arange(n)[:, None] * ways[:, axis] for axis, n in enumerate(shape)]  # (n, 3) each
    plane = along[1][:, None] + along[2] + (ways[:, 3] - 1)  # (y, z, 3)
    whole = empty(shape)
    for start in range(0, shape[0], PLANES):  # a few planes at a time, or the points outweigh the scan
        points = along[0][start : start + PLANES, None, None, None] + plane  # (x, 1, y, z, 3)
        each = values.expand(len(points), 1, *values.shape)  # a plane is a sample of its own: one thread each
        read = functional.grid_sample(each, points, align_corners=True, padding_mode="zeros")
        torch.mul(read[:, 0, 0], factor, out=whole[start : start + PLANES])
    return whole
