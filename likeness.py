"""How alike a prepared scan is to those a network learned from: by a coarse sketch of it, and by its features.

A sketch is the picture at about 4 mm (or 48 × 48 cells), freed of slow brightness changes, so that a coil's bias
or a scanner's gain does not count. It is compared with the mean sketch of the training scans, a little shifted
where the head lies a little elsewhere, and turned over where that fits better.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studies import Contract

CELL = 4.0  # mm, about, of a volume's sketch
SIDE = 48  # cells a side, of an image's sketch
REACH = 3  # cells that the sketch may lie off, each way
BRAIN = (52.0, 68.0, 48.0)  # mm, half axes of what is compared, about the middle of the brain
TURNS = {"upside-down": (2,), "back-to-front": (1,), "on-its-head": (1, 2)}  # axes flipped; never left and right


@dataclass(frozen=True)
class Match:
    score: float  # −1 to 1, correlation with the mean training sketch where it fits best
    margin: float  # by how much it fits better upright than turned over; infinite where turning says nothing
    turned: str | None  # a key of TURNS that fits clearly better
    shift: tuple[int, ...]  # cells


def cells(contract: Contract) -> tuple[int, ...]:
    """How many voxels (or pixels) of each axis make a cell."""
    if contract.kind == "volume":
        spacing = contract.spacing or (1.0,) * 3
        return tuple(max(1, round(CELL / size)) for size in spacing)
    return tuple(max(1, size // SIDE) for size in contract.shape)


def sketch(tensor: Tensor, contract: Contract) -> Tensor:
    """The coarse, locally evened picture of a prepared tensor (C, …): (x, y, z) or (rows, columns)."""
    pool = F.avg_pool3d if contract.kind == "volume" else F.avg_pool2d
    x = pool(tensor[None], cells(contract))[0].mean(0)
    if contract.kind == "image" or contract.scale != "foreground":
        x = (x - x.mean()) / x.std().clamp(min=1e-6)
    x = _box(_box(x.clamp(-4.0, 2.5), 3), 3)
    x = x - _box(x, 9)
    return x / (_box(x * x, 13) + 0.03).sqrt()


def _box(x: Tensor, width: int) -> Tensor:
    """The mean over a window of `width` cells an axis, one axis at a time; smaller at the edges."""
    for axis in range(x.ndim):
        rows = x.movedim(axis, -1)
        shape = rows.shape
        rows = F.avg_pool1d(rows.reshape(-1, 1, shape[-1]), width, 1, width // 2, count_include_pad=False)
        x = rows.view(shape).movedim(-1, axis)
    return x


def core(contract: Contract) -> Tensor:
    """Which cells are compared: the inner brain, or an image but for its corners."""
    count = [size // cell for size, cell in zip(contract.shape, cells(contract), strict=True)]
    middle = contract.anchor or (0.5,) * len(count)
    distance = torch.zeros(count)
    for axis, n in enumerate(count):
        at = (torch.arange(n) + 0.5) / n - middle[axis]
        if contract.kind == "volume":
            at = at * contract.shape[axis] * (contract.spacing or (1.0,) * 3)[axis] / BRAIN[axis]
        else:
            at = at * 2
        distance += at.square().view([-1 if a == axis else 1 for a in range(len(count))])
    return distance < 1


def match(sketched: Tensor, template: Tensor, contract: Contract) -> Match:
    """How well a sketch fits the mean training sketch, upright and turned over."""
    where = core(contract)
    turns = [(), *TURNS.values()] if contract.kind == "volume" else [()]
    fits = _correlations(sketched, [template.flip(axes) for axes in turns], [where.flip(axes) for axes in turns])
    score, shift = fits[0]
    if contract.kind == "image":
        return Match(score, math.inf, None, shift)
    others = {name: fit for name, (fit, _) in zip(TURNS, fits[1:], strict=True)}
    best = max(others, key=others.__getitem__)
    margin = score - others[best]
    return Match(score, margin, best if margin < -0.05 else None, shift)


def _correlations(x: Tensor, templates: list[Tensor], wheres: list[Tensor]) -> list[tuple[float, tuple[int, ...]]]:
    """For each template, over its cells, the best correlation of x with it within REACH cells, and that shift.

    All templates at all shifts are one convolution, whose kernels lie in the box that holds all their cells.
    """
    any_where = torch.stack(wheres).any(0).nonzero()
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(any_where.amin(0), any_where.amax(0),
                                                                    strict=True))
    inside = torch.stack([where[box].float() for where in wheres])  # (T, …)
    axes = tuple(range(1, inside.ndim))
    count = inside.sum(axes, keepdim=True)
    values = torch.stack([template[box] for template in templates])
    patterns = (values - (values * inside).sum(axes, keepdim=True) / count) * inside
    patterns /= patterns.square().sum(axes, keepdim=True).sqrt().clamp(min=1e-6)
    near = F.pad(x, [REACH] * 2 * x.ndim)
    near = near[tuple(slice(part.start, part.stop + 2 * REACH) for part in box)]
    if x.ndim == 2:
        near, patterns, inside = near[None], patterns[:, None], inside[:, None]
        slabs = near[None]  # (1, 1, rows, columns)
    else:  # the shifts along the first axis as a batch, its cells as channels
        slabs = near.unfold(0, inside.shape[1], 1).movedim(-1, 1)  # (shifts, cells, y, z)
    sums = F.conv2d(slabs, torch.cat([patterns, inside]))  # (shifts or 1, 2 · T, shifts, shifts)
    matched, total = sums.chunk(2, 1)
    spread = F.conv2d(slabs.square(), inside) - total.square() / count.view(1, -1, 1, 1)
    fits = matched / spread.clamp(min=1e-3 * float(count.min())).sqrt()
    best = []
    for fit in fits.unbind(1):  # (shifts or 1, shifts, shifts)
        place = np.unravel_index(int(fit.argmax()), fit.shape)[-x.ndim:]
        best.append((float(fit.max()), tuple(int(at) - REACH for at in place)))
    return best


def distance(features: Tensor, extras: dict[str, Tensor]) -> float:
    """Mahalanobis distance of one feature vector (F,) to the training features."""
    offset = features.float().cpu() - extras["features.mean"].cpu()
    return math.sqrt(max(float(offset @ extras["features.precision"].cpu() @ offset), 0.0))
