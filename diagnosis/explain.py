"""Why: maps of what moved one answer, on the study's grid, and how far each of them may be believed.

Three methods for any of the networks. All explain the same number, the *score*: how far the class's logit stands
above the mean of the others (softmax sees no more of the logits than such differences). A positive value speaks
for the class. The maps show regions that moved the answer; none of them shows a lesion.
"""

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from diagnosis.network_view import CONVS, Cells, NetworkView
from model import Weights
from scans.prepare import Prepared

Progress = Callable[[float], None]


class ExplainError(ValueError):
    """A map that cannot be made; the message names what was asked and what there is."""


@dataclass(frozen=True, eq=False)
class Map:
    values: np.ndarray  # float32 on the study's grid, positive where it speaks for the class
    method: str
    code: str  # the class that was asked for
    score: float  # what the map explains: the class's logit above the mean of the others
    absorbed: float | None = None  # relevance only: the share of the score that the biases kept


def explain(
    weights: Weights, prepared: Prepared, code: str, method: str = "grad-cam", progress: Progress | None = None
) -> Map:
    """The map of one class by one of METHODS; the input is one prepared scan."""
    if method not in METHODS:
        raise ExplainError(f"method {method!r} is unknown; choose {', '.join(METHODS)}")
    if code not in weights.study.codes:
        raise ExplainError(f"class {code!r} is unknown; {weights.study.key} has {', '.join(weights.study.codes)}")
    x = prepared.tensor[None].to(weights.device)  # (1, 1, X, Y, Z) or (1, C, H, W)
    view = NetworkView(weights.network, x.shape, weights.study.codes.index(code))
    values, score = METHODS[method](view, x, prepared, progress or (lambda fraction: None))
    absorbed = None
    if method == "relevance" and score:
        absorbed = 1 - float(values.sum(dtype=torch.float64)) / score
    return Map(values.float().cpu().numpy(), method, code, score, absorbed)


# --- Grad-CAM ---------------------------------------------------------------------------------------------


def grad_cam(view: NetworkView, x: Tensor, prepared: Prepared, progress: Progress) -> tuple[Tensor, float]:
    """The CAM layer's channels, weighted by how much each moves the score; what speaks against is cut off.

    A cell of that layer is wider than the air about a head is deep, so the map is shown within the head alone.
    """
    kept = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # what follows may write in place

    handle = view.network.get_submodule(view.cam_layer).register_forward_hook(keep)
    with torch.enable_grad():
        score = view.score(view.tail(view.front(x)))
    handle.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    axes = tuple(range(2, x.ndim))
    weight = gradient.mean(axes, keepdim=True)  # (1, C, 1, 1, 1)
    cam = (weight * kept[0].detach()).sum(1)[0].relu()  # (3, 5, 5)
    progress(1.0)
    return place(cam, view.cells, x.shape[2:]) * enclosed(prepared.foreground).to(cam.device), score.item()


def enclosed(foreground: Tensor) -> Tensor:
    """The foreground and what it encloses, such as dark ventricles: the holes of a picture; in a volume, where
    these take long to find, what lies between two of its voxels along every axis."""
    if foreground.ndim == 2:
        return torch.from_numpy(ndimage.binary_fill_holes(foreground.cpu().numpy()))
    between = torch.ones_like(foreground)
    for axis in range(foreground.ndim):
        count = foreground.int().cumsum(axis)  # voxels so far; between the first and the last lies more than none
        last = count.narrow(axis, -1, 1)
        between &= (count > 0) & (count - foreground.int() < last)
    return between | foreground


def place(cam: Tensor, cells: Cells, shape: torch.Size) -> Tensor:
    """A coarse map on the input's grid: linear between the places where its cells lie, constant beyond."""
    for axis, ((start, step), size) in enumerate(zip(cells, shape, strict=True)):
        count = cam.shape[axis]
        centres = start + step * np.arange(count)
        mix = np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(count)], 1)  # (size, count)
        mix = torch.as_tensor(mix, dtype=cam.dtype, device=cam.device)
        cam = torch.tensordot(mix, cam, ([1], [axis])).movedim(0, axis)
    return cam


# --- relevance --------------------------------------------------------------------------------------------

GAMMA, EPSILON = 0.25, 1e-6


def relevance(view: NetworkView, x: Tensor, prepared: Prepared, progress: Progress) -> tuple[Tensor, float]:
    """Layer-wise relevance: the score handed back layer by layer, each input paid by its share of the output.

    γ rule (what speaks for an output counts 1 + γ times) in the convolutions, ε rule in the dense layers, plain
    shares in the first layer, whose input has both signs; a max-pool pays its winner. Written as gradient × input
    of a network whose layers give their rule's output times a constant that restores the true value: the gradient
    of that is the rule. A sum of branches then shares out by size, so networks that are no chains go through too;
    only where an attention multiplies is nothing conserved.
    """
    for name, layer in view.network.named_modules():
        if isinstance(layer, (*CONVS, nn.Linear)) and name != view.first:
            layer.register_forward_hook(rule(GAMMA if isinstance(layer, CONVS) else 0.0))
    with torch.enable_grad():
        middle = view.front(x).detach().requires_grad_()
        score = view.score(view.tail(middle))
    (gradient,) = torch.autograd.grad(score.sum(), middle)
    progress(0.2)
    if not view.cut:
        return (gradient * x).sum(1)[0], score.item()
    values = torch.zeros_like(x[0, 0])
    for start, slabs in view.slabs(x):
        slabs.requires_grad_()
        with torch.enable_grad():
            made = view.piece(slabs)  # (n, 16, k, 41, 41)
        thick = made.shape[2]
        share = gradient[0, :, start : start + len(made) * thick]  # (16, n · k, 41, 41)
        share = share.unflatten(1, (len(made), thick)).transpose(0, 1)  # (n, 16, k, 41, 41)
        (back,) = torch.autograd.grad(made, slabs, share)
        for number, slab in enumerate((back * slabs.detach())[:, 0]):
            first = view.STEP * (start + number * thick)
            values[first : first + len(slab)] += slab
        progress(0.2 + 0.8 * (start + len(made) * thick) / gradient.shape[2])
    return values, score.item()


def rule(gamma: float) -> Callable:
    """A forward hook under which gradient × input of its layer is the γ rule (γ = 0: the ε rule).

    Where an output is negative, as before the sum of two branches, it is what speaks against that counts 1 + γ
    times; so the rule's output is never smaller than the true one, and nothing is divided by almost nothing.
    """

    def hook(layer, inputs, output):
        if not torch.is_grad_enabled():
            return None
        ruled = output
        if gamma:
            favoured = copy.copy(layer)  # the same layer with what is positive in it alone
            favoured._parameters = {
                name: None if value is None else value.clamp(min=0) for name, value in layer._parameters.items()
            }
            favoured._forward_hooks = {}
            speaks = favoured(inputs[0].clamp(min=0))
            ruled = output + gamma * torch.where(output < 0, output - speaks, speaks)
        steady = ruled.detach() + EPSILON * torch.where(ruled.detach() < 0, -1.0, 1.0)
        return ruled * (output.detach() / steady)

    return hook


# --- occlusion --------------------------------------------------------------------------------------------

PATCH = 30.0  # mm of the coarse patches' sides; for images a seventh of each side
HALVINGS = 2  # how often the patches that matter most are halved along each axis: 15 mm, 7.5 mm
FINER = 24  # so many patches of each size are halved
BATCH = 8
Spot = tuple[tuple[int, int], ...]  # a patch: (from, to) an axis


def occlusion(
    view: NetworkView,
    x: Tensor,
    prepared: Prepared,
    progress: Progress,
    patch: float = PATCH,
    halvings: int = HALVINGS,
) -> tuple[Tensor, float]:
    """How far the score falls when a patch is blurred away; the patches that matter most again in finer ones.

    A patch is filled with the picture blurred over more than its size: its detail goes, its brightness stays, and
    no hole of air appears where brain should be. Finer patches, which move less, are scaled by one factor a size,
    so that on average they keep their coarse patches' value.
    """
    shape = x.shape[2:]
    size = patch_size(patch, prepared, shape)
    filled, values = blurred(x, size), torch.zeros(shape)
    spots = [spot for spot in tiles(shape, size) if prepared.foreground[cut(spot)].any()]
    total, done = len(spots) + 2 ** len(shape) * FINER * halvings, 0
    with torch.no_grad():
        middle = view.front(x)
        whole = view.score(view.tail(middle))
        for level in range(halvings + 1):
            fallen = []
            for start in range(0, len(spots), BATCH):
                batch = spots[start : start + BATCH]
                fallen += (whole - view.score(occluded(view, x, middle, filled, batch))).tolist()
                done += len(batch)
                progress(min(1.0, done / total))
            before = float(sum(values[cut(spot)].abs().mean() for spot in spots))
            scale = before / sum(map(abs, fallen)) if before and any(fallen) else 1.0
            falls = {spot: fall * scale for spot, fall in zip(spots, fallen, strict=True)}
            for spot, fall in falls.items():
                values[cut(spot)] = fall
            strongest = sorted(falls, key=lambda spot: -abs(falls[spot]))[:FINER]
            spots = [half for spot in strongest for half in halves(spot)] if level < halvings else []
    progress(1.0)
    return values, whole.item()


def cut(spot: Iterable[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(*side) for side in spot)


def patch_size(patch: float, prepared: Prepared, shape: torch.Size) -> tuple[int, ...]:
    """A patch in voxels: by the grid's spacing, or as a share of an image's sides."""
    if len(shape) == 3:
        spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)
        return tuple(max(1, round(patch / mm)) for mm in spacing)
    return tuple(max(1, round(side * patch / (7 * PATCH))) for side in shape)


def tiles(shape: torch.Size, size: tuple[int, ...]) -> list[Spot]:
    """The patches that cover a grid side by side; those at its end may be smaller."""
    rows = [[(at, min(at + n, side)) for at in range(0, side, n)] for side, n in zip(shape, size, strict=True)]
    return list(itertools.product(*rows))


def halves(spot: Spot) -> list[Spot]:
    """A patch halved along each axis; a side of one cell stays whole."""
    rows = [[(a, b)] if b - a < 2 else [(a, (a + b) // 2), ((a + b) // 2, b)] for a, b in spot]
    return list(itertools.product(*rows))


def blurred(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The picture as seen from afar: averaged over half a patch, then over five of those, then drawn smoothly."""
    pool, mode = (F.avg_pool3d, "trilinear") if x.ndim == 5 else (F.avg_pool2d, "bilinear")
    half = [max(1, n // 2) for n in size]
    small = pool(x, half, ceil_mode=True, count_include_pad=False)
    reach = min(2, (min(small.shape[2:]) - 1) // 2)
    small = pool(small, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)
    return F.interpolate(small, x.shape[2:], mode=mode)


def occluded(view: NetworkView, x: Tensor, middle: Tensor, filled: Tensor, spots: list[Spot]) -> Tensor:
    """The logits (N, classes) of the input with each patch filled in turn.

    Where the network is cut, only the cells of the cut that see the patch are computed anew.
    """
    copies = middle.repeat(len(spots), *[1] * (x.ndim - 1))
    if not view.cut:
        for row, spot in zip(copies, spots, strict=True):
            row[(..., *cut(spot))] = filled[(0, ..., *cut(spot))]
        return view.tail(copies)
    counts = [
        min(n, (max(stop - start for start, stop in sides) + view.FIELD - 2) // view.STEP + 1)
        for n, sides in zip(middle.shape[2:], zip(*spots, strict=True), strict=True)
    ]
    pieces, cells = [], []
    for spot in spots:
        first = [
            max(0, min((start - view.FIELD) // view.STEP + 1, n - count))
            for (start, _), n, count in zip(spot, middle.shape[2:], counts, strict=True)
        ]
        cells.append(cut((a, a + count) for a, count in zip(first, counts, strict=True)))
        seen = cut(
            (view.STEP * a, view.STEP * (a + count - 1) + view.FIELD)
            for a, count in zip(first, counts, strict=True)
        )
        part = (
            ...,
            *cut(
                (max(0, start - side.start), max(0, stop - side.start))
                for (start, stop), side in zip(spot, seen, strict=True)
            ),
        )
        piece = x[(0, ..., *seen)].clone()  # (1, X, Y, Z) of what the cells see
        piece[part] = filled[(0, ..., *seen)][part]
        pieces.append(piece)
    for row, made, place in zip(copies, view.piece(torch.stack(pieces)), cells, strict=True):
        row[(..., *place)] = made
    return view.tail(copies)


# name → how to get a map on the grid, and the score that it explains
METHODS: dict[str, Callable[..., tuple[Tensor, float]]] = {
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "relevance": relevance,
}


# --- may it be believed? ----------------------------------------------------------------------------------

SAME = 0.9  # a map that agrees this well with that of a shuffled network says nothing of what was learned


def agreement(a: Map, b: Map, foreground: Tensor) -> float:
    """Spearman's rank correlation of two maps over the foreground (at most 200,000 voxels, evenly picked)."""
    inside = np.flatnonzero(foreground.cpu().numpy())
    inside = inside[:: max(1, len(inside) // 200_000)]
    first, second = a.values.ravel()[inside], b.values.ravel()[inside]
    if len(inside) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0  # a map that says the same everywhere agrees with nothing
    from scipy.stats import spearmanr  # here, for it is slow to open and seldom asked for

    return float(spearmanr(first, second).statistic)


def randomised(weights: Weights, prepared: Prepared, made: Map, seed: int = 0) -> float:
    """The agreement of a map with the same map of a network whose last layers' weights are shuffled.

    A map that hardly changes (SAME or more) shows the picture's edges rather than the network's reasons.
    """
    network, draw = copy.deepcopy(weights.network), torch.Generator().manual_seed(seed)
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    last = dense or [module for module in network.modules() if isinstance(module, CONVS)][-1:]
    for value in (value for layer in last for value in layer.parameters()):
        order = torch.randperm(value.numel(), generator=draw).to(value.device)
        value.data = value.data.flatten()[order].view_as(value)
    other = explain(replace(weights, network=network), prepared, made.code, made.method)
    return agreement(made, other, prepared.foreground)
