"""A head's outlines laid on the mean head's, by the affine map that fits them best.

Brains then lie alike and are of one size, as in voxel-based morphometry, so that what still differs is what a
disease changes rather than who was scanned. The fit looks at the brain's shape with its ventricles and narrow
sulci filled, and at cerebellum and stem, which tell how it nods; neither changes much as a brain shrinks.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from diagnosis.anatomy.segment import Segmentation
from networks.blockwise import filled
from scans.resample import cropped, resample

CUBE, CELL = 2, 4  # voxels: the sides of what is laid, and of what shapes are compared by
BLUR = (3.0, 1.2)  # cells, one deviation: first roughly, then finely
ROUNDS = 8  # most steps of Gauss and Newton for each
STILL = 0.01  # cells; what moves less has arrived
LOWEST = 0.02  # of a shape; cells with less in the mean head are not compared
SOME = 3  # of the cells every so many is compared
LEAST_ALIKE = 0.8  # correlation of a fitted brain with the mean one
MOST_TIMES = 4.0  # as large as the mean head, or as small


def shape_of(brain: Tensor, found: Segmentation) -> Tensor:
    """A brain, given by cubes, and its cerebellum with the stem, as shares of each cell: (2, x, y, z)."""
    below = found.by_cubes({"cerebellum": 1.0, "stem": 1.0})
    return functional.avg_pool3d(torch.stack([brain, below]), CELL // CUBE)


def fitted(shape: Tensor, mean: Tensor) -> np.ndarray | None:
    """The 4×4 map from voxels of the mean head to those of this one; None where it does not come to fit."""
    if not float(shape[0].sum()):
        return None
    at = _from_moments(shape[0], mean[0])
    for blur in BLUR:
        wanted = _blurred_mean(mean, blur)
        x, y, z = (wanted[0] > LOWEST).nonzero()[::SOME].T
        aim = wanted[:, x, y, z]  # (2, n)
        places = torch.stack([x, y, z, torch.ones_like(x)], 1).float()  # (n, 4)
        at, there = _moved(at, _blurred(shape, blur), places, aim)
    times = abs(float(torch.linalg.det(at[:, :3])))
    alike = float(torch.corrcoef(torch.stack([there, aim[0]]))[0, 1])
    if not (1 / MOST_TIMES < times < MOST_TIMES and alike > LEAST_ALIKE):
        return None
    matrix = np.eye(4)
    matrix[:3] = at.numpy()
    return _between(matrix, 1, CELL)


def laid(values: Tensor, matrix: np.ndarray) -> Tensor:
    """Values by cubes (x, y, z) laid on the mean head by the map of `fitted`."""
    return moved(values, _between(matrix, CUBE, 1))


def moved(values: Tensor, matrix: np.ndarray) -> Tensor:
    """Values read at `matrix` on a grid like their own, as `resample` does it; only the box that holds anything
    but 0 is read, and only where that comes to lie is written."""
    part = filled(values)
    whole = torch.from_numpy(np.zeros(values.shape, np.float32))  # whose large pages torch's zeros do without
    held = values[tuple(part)]
    if held.numel():
        corner = np.eye(4)
        corner[:3, 3] = [some.start for some in part]
        onto = np.linalg.inv(matrix) @ corner  # voxel of what is held → of the grid
        reach = int(np.ceil(np.abs(onto[:3, :3]).sum(1).max()))  # a voxel tells as far as to the next
        there, onto = cropped(whole, onto, tuple(held.shape), reach)
        if there.numel():
            there.copy_(resample(held, np.linalg.inv(onto), tuple(there.shape), smooth=False))
    return whole


def _moved(at: Tensor, shape: Tensor, places: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    """The map (3, 4) after steps of Gauss and Newton, and the brain where it then is looked for (n,)."""
    layers = torch.cat([shape, *torch.gradient(shape, dim=(1, 2, 3))])  # values, then their slopes along x, y, z
    for _ in range(ROUNDS):
        found = _sampled(layers, places @ at.T)  # (8, n)
        slopes = found[2:].view(3, -1)  # (3, 2 n)
        steep = (slopes[:, None] * places.T.repeat(1, 2)).flatten(0, 1)  # (12, 2 n)
        square = (steep @ steep.T).double()
        square.diagonal().add_(1e-6 * square.diagonal().mean())
        step, lost = torch.linalg.solve_ex(square, (steep @ (aim - found[:2]).flatten()).double())
        if lost:  # nothing of the brain is left there to go by
            break
        step = step.float().view(3, 4)
        at = at + step
        if float((places @ step.T).abs().mean()) < STILL:
            break
    return at, _sampled(shape, places @ at.T)[0]


def _from_moments(shape: Tensor, mean: Tensor) -> Tensor:
    """Where to begin: middle on middle, as large as it is, not turned. (3, 4)"""
    (there, volume), (here, wanted) = _moments(shape), _moments(mean)
    at = torch.eye(3) * (volume / wanted) ** (1 / 3)
    return torch.cat([at, (there - at @ here)[:, None]], 1)


def _moments(shape: Tensor) -> tuple[Tensor, float]:
    """The middle in cells, and the volume."""
    volume = float(shape.sum())
    sums = (shape.sum((1, 2)), shape.sum((0, 2)), shape.sum((0, 1)))
    return torch.tensor([float((line * torch.arange(len(line))).sum()) / volume for line in sums]), volume


def _sampled(layers: Tensor, points: Tensor) -> Tensor:
    """Layers (C, x, y, z) at points (n, 3), in their elements: (C, n), nothing outside."""
    size = torch.tensor(layers.shape[1:], dtype=torch.float32)
    grid = (points * (2 / (size - 1)) - 1).flip(-1).view(1, 1, 1, -1, 3)
    return functional.grid_sample(layers[None], grid, align_corners=True).view(len(layers), -1)


def _between(matrix: np.ndarray, wanted: int, known: int) -> np.ndarray:
    """A map between grids whose elements have `known` voxels a side, for elements of `wanted` voxels."""
    to_known = np.linalg.inv(_in_voxels(known)) @ _in_voxels(wanted)
    return np.linalg.inv(to_known) @ matrix @ to_known


def _in_voxels(side: int) -> np.ndarray:
    """4×4: an element of so many voxels a side → voxel."""
    grid = np.diag([side, side, side, 1.0])
    grid[:3, 3] = (side - 1) / 2
    return grid


def _blurred(shape: Tensor, cells: float) -> Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(shape.numpy(), (0, cells, cells, cells), mode="constant"))


@lru_cache(maxsize=len(BLUR))  # it is the same for every scan
def _blurred_mean(mean: Tensor, cells: float) -> Tensor:
    return _blurred(mean, cells)
