"""Occlusion: how far the score falls when a patch of the scan is blurred away."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diagnosis.maps.network_view import FoldedBlock, NetworkView, Progress
from networks.blockwise import CHANNELS_LAST, channels_last
from scans.prepare import Prepared

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
        levels = view.levels(x)
        whole = view.score(view.tail(levels[-1]))
        for level in range(halvings + 1):
            fallen = []
            for start in range(0, len(spots), BATCH):
                batch = spots[start : start + BATCH]
                fallen += (whole - view.score(occluded(view, levels, filled, batch))).tolist()
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


def cut(spot: Iterable[tuple[int, int]], *before: Any) -> tuple[Any, ...]:
    """A range as an index, behind what indexes the axes before it."""
    return (*before, *(slice(*side) for side in spot))


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


def occluded(view: NetworkView, levels: list[Tensor], filled: Tensor, spots: list[Spot]) -> Tensor:
    """The logits (N, classes) of the input with each patch filled in turn.

    Of a network in blocks only the cells that see the patch are computed anew, block by block.
    """
    parts, places = [filled[cut(spot, 0, ...)] for spot in spots], spots
    for block, below, above in zip(view.blocks, levels[:-1], levels[1:], strict=True):
        places, parts = _recomputed(block, below, above.shape[2:], parts, places)
    copies = levels[-1].repeat(len(spots), *[1] * (filled.ndim - 1))
    for row, part, spot in zip(copies, parts, places, strict=True):
        row[cut(spot, ...)] = part
    return view.tail(copies)


def _recomputed(
    block: FoldedBlock, below: Tensor, shape: torch.Size, parts: list[Tensor], spots: list[Spot]
) -> tuple[list[Spot], list[Tensor]]:
    """Where a block's output changes when parts of its input are others, and what it becomes there."""
    counts = [
        min(n, (max(stop - start for start, stop in sides) + block.field - 2) // block.step + 1)
        for n, sides in zip(shape, zip(*spots, strict=True), strict=True)
    ]
    sizes = [block.step * (count - 1) + block.field for count in counts]
    pieces = torch.empty((len(spots), below.shape[1], *sizes), device=below.device, memory_format=CHANNELS_LAST)
    places = []
    for piece, part, spot in zip(pieces, parts, spots, strict=True):
        first = [
            max(0, min((start - block.field) // block.step + 1, n - count))
            for (start, _), n, count in zip(spot, shape, counts, strict=True)
        ]
        places.append(tuple((a, a + count) for a, count in zip(first, counts, strict=True)))
        seen = [(block.step * a, block.step * (b - 1) + block.field) for a, b in places[-1]]
        both = [(max(a, c), max(a, c, min(b, d))) for (a, b), (c, d) in zip(spot, seen, strict=True)]
        piece.copy_(below[cut(seen, 0, ...)])  # (C, X, Y, Z)
        piece[_within(both, seen)] = part[_within(both, spot)]
    return places, list(block(channels_last(pieces)))


def _within(inner: Iterable[tuple[int, int]], outer: Iterable[tuple[int, int]]) -> tuple[Any, ...]:
    """A range's place in a larger one, on the last axes."""
    return cut(((a - start, b - start) for (a, b), (start, _) in zip(inner, outer, strict=True)), ...)
