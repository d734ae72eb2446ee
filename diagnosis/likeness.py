"""How alike a prepared scan is to those a network learned from: by a coarse sketch of it, and by its features.

A sketch is the picture at about 4 mm (or 48 × 48 cells), freed of slow brightness changes, so that a coil's bias
or a scanner's gain does not count. It is compared with the mean sketch of the training scans where the head lies,
tilted as it is and as large as it is, and turned over to see whether that fits better.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studies import Contract

CELL_MM = 4.0  # about, of a volume's sketch
IMAGE_CELLS = 48  # cells a side, of an image's sketch
REACH_CELLS = 3  # cells that the sketch may lie off, each way
EDGE_CELLS = 12  # empty cells about a sketch, for what lies outside it
SEARCHED_CELLS = 1000  # cells, about, that are looked at while a pose is searched
# A head's pose: shifts (cells), logarithms of sizes, and the turns about x (a nod), y and z (radians). What is
# tried of it, one after the other: one such step and two each way, then half as far.
POSE_SEARCH = ((6, 0.12), (1, 1.0), (2, 1.0), (8, 0.12), (7, 0.12), (0, 1.0), (3, 0.06), (4, 0.06), (5, 0.06))
COMPARED_HALF_AXES_MM = (52.0, 68.0, 48.0)  # of what is compared, about the middle of the brain
TURNS = {"upside-down": (2,), "back-to-front": (1,), "on-its-head": (1, 2)}  # axes flipped; never left and right


@dataclass(frozen=True)
class Match:
    score: float  # −1 to 1, correlation with the mean training sketch where it fits best
    margin: float  # by how much it fits better upright than turned over; infinite where turning says nothing
    turned: str | None  # a key of TURNS that fits better
    shift: tuple[float, ...]  # cells


def cells(contract: Contract) -> tuple[int, ...]:
    """How many voxels (or pixels) of each axis make a cell."""
    if contract.kind == "volume":
        spacing = contract.spacing or (1.0,) * 3
        return tuple(max(1, round(CELL_MM / size)) for size in spacing)
    return tuple(max(1, size // IMAGE_CELLS) for size in contract.shape)


def sketch(tensor: Tensor, contract: Contract) -> Tensor:
    """The coarse, locally evened picture of a prepared tensor (C, …): (x, y, z) or (rows, columns)."""
    x = _pooled(tensor[0] if len(tensor) == 1 else tensor.mean(0), cells(contract))
    if contract.kind == "image" or contract.scale != "foreground":
        x = (x - x.mean()) / x.std().clamp(min=1e-6)
    x = _box(_box(x.clamp(-4.0, 2.5), 3), 3)
    x = x - _box(x, 9)
    return x / (_box(x * x, 13) + 0.03).sqrt()


def _pooled(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The mean of each cell, whole cells only; one axis at a time is three times as quick as torch's pooling."""
    for axis, size in enumerate(sizes):
        count = x.shape[axis] // size
        x = x.narrow(axis, 0, count * size).unflatten(axis, (count, size)).mean(axis + 1)
    return x


def _box(x: Tensor, width: int) -> Tensor:
    """The mean over a window of `width` cells an axis; smaller at the edges."""
    for _ in range(x.ndim):
        at = torch.arange(len(x))
        mean = ((at[:, None] - at).abs() <= width // 2).float()
        mean /= mean.sum(0)
        x = torch.tensordot(x, mean, ([0], [0]))  # takes the first axis and gives it back as the last
    return x


def core(contract: Contract) -> Tensor:
    """Which cells are compared: the inner brain, or an image but for its corners."""
    count = [size // cell for size, cell in zip(contract.shape, cells(contract), strict=True)]
    middle = contract.anchor or (0.5,) * len(count)
    distance = torch.zeros(count)
    for axis, n in enumerate(count):
        at = (torch.arange(n) + 0.5) / n - middle[axis]
        if contract.kind == "volume":
            at = at * contract.shape[axis] * (contract.spacing or (1.0,) * 3)[axis] / COMPARED_HALF_AXES_MM[axis]
        else:
            at = at * 2
        distance += at.square().view([-1 if a == axis else 1 for a in range(len(count))])
    return distance < 1


def match(sketched: Tensor, template: Tensor, contract: Contract) -> Match:
    """How well a sketch fits the mean training sketch, upright and turned over."""
    x = np.pad(sketched.float().numpy(), EDGE_CELLS)  # what lies outside is 0
    where, template = core(contract), template.float()

    def turned(axes: tuple[int, ...]) -> tuple[float, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """How well the template fits once it is turned over: the best shift's score, and where a pose goes on."""
        at = np.argwhere(where.flip(axes).numpy()) + EDGE_CELLS
        values = template.flip(axes)[where.flip(axes)].numpy()
        score, start = _best_shift(x, at, values)
        return score, (start, at, values)

    score, shift = _best_pose(x, *turned(())[1], contract)
    if contract.kind != "volume":
        return Match(score, math.inf, None, shift)
    by_turn = {name: turned(axes) for name, axes in TURNS.items()}
    best = max(by_turn, key=lambda name: by_turn[name][0])
    margin = score - _best_pose(x, *by_turn[best][1], contract)[0]
    return Match(score, margin, best if margin < 0 else None, shift)


def _best_shift(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray]:
    """The best of all shifts within REACH_CELLS, looked at in a few cells: its score and the shift."""
    few = slice(None, None, max(1, len(at) // SEARCHED_CELLS))
    shifts = np.array(list(itertools.product(*[range(-REACH_CELLS, REACH_CELLS + 1)] * x.ndim)))
    index = _index(x, at[few]) + _index(x, shifts)[:, None]  # (shifts, n)
    scores = _correlations(x, index, values[few])
    best = int(scores.argmax())
    return float(scores[best]), shifts[best]


def _best_pose(
    x: np.ndarray, shift: np.ndarray, at: np.ndarray, values: np.ndarray, contract: Contract
) -> tuple[float, tuple[float, ...]]:
    """The best correlation, over all cells, and by how many cells x lies off there.

    From the best shift on, a head is also turned and stretched, a little: people lie in the scanner as they can
    and are not of one size.
    """
    if x.ndim == 2:
        return float(_correlations(x, _index(x, at + shift)[None], values)[0]), tuple(map(float, shift))
    mm = np.array(cells(contract)) * (contract.spacing or (1.0,) * 3)
    middle = np.array(contract.anchor or (0.5,) * 3) * (np.array(x.shape) - 2 * EDGE_CELLS) - 0.5 + EDGE_CELLS
    few = slice(None, None, max(1, len(at) // SEARCHED_CELLS))
    pose = np.array([*shift, *np.zeros(6)])
    for part, (which, step) in itertools.product((1.0, 0.5), POSE_SEARCH):
        poses = pose + np.outer((0, -2, -1, 1, 2), np.eye(len(pose))[which] * step * part)
        index = np.stack([_index(x, _posed(at[few], one, middle, mm)) for one in poses])
        pose = poses[int(_correlations(x, index, values[few]).argmax())]
    score = _correlations(x, _index(x, _posed(at, pose, middle, mm))[None], values)
    return float(score[0]), tuple(map(float, pose[:3]))


def _posed(at: np.ndarray, pose: np.ndarray, middle: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """Cells (n, 3) moved by a pose: turned and stretched about the middle, then shifted."""
    move = _turned(pose[6:]) * np.exp(pose[3:6])[:, None]
    move = move * mm / mm[:, None]  # between cells, by way of mm
    return np.rint((at - middle) @ move.T + (middle + pose[:3]))


def _turned(angles: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about x, then about the new y, then about the new z, in radians."""
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _index(x: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Of cells (n, axes) the places in x laid out flat."""
    return (cells @ (np.array(x.strides) / x.itemsize)).astype(np.intp)


def _correlations(x: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of x at each row of places (k, n) with the values (n,)."""
    sampled = x.ravel().take(index, mode="clip")  # (k, n)
    values = values - values.mean()
    spread = (sampled**2).mean(1) - sampled.mean(1) ** 2
    spread = np.sqrt(spread.clip(1e-3) * len(values) * max(float(values @ values), 1e-12))
    return sampled @ values / spread


def distance(features: Tensor, extras: dict[str, Tensor]) -> float:
    """Mahalanobis distance of one feature vector (F,) to the training features."""
    offset = features.float().cpu() - extras["features.mean"].cpu()
    return math.sqrt(max(float(offset @ extras["features.precision"].cpu() @ offset), 0.0))
