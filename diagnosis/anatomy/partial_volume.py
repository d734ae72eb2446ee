"""What is fluid told by the scan's own brightness, where the segmenter knows it only roughly.

A voxel at the rim of a ventricle holds some fluid and some tissue. How much of each, its brightness tells better
than a network that learned from drawn scans: the levels of fluid and of each tissue are taken from the voxels that
the network is sure of in this very scan, so that contrast, gain and sequence do not matter. And where hippocampi
shrank, fluid lies in what the network, which knows how large most are, still calls one. Other sulci are left
alone: the cortex is darker than the deep grey matter that tells the level of grey.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from networks.segmenter import CLASSES

VENTRICLES = ("lateral", "inferior_horn", "third", "fourth")
# Each tissue, and whose level stands for it.
TISSUES = {"grey": "grey", "white": "white", "hippocampus": "grey", "cerebellum": "cerebellum", "stem": "stem"}
SURE = 0.9  # a share from which a voxel tells the level of its class
LEAST_SURE = 200  # voxels that tell a level
DOUBTFUL = 0.02  # of fluid and of tissue, each, for a voxel to be looked at
MOST_OTHER = 0.1  # share of background and of fluid in sulci there
STEEP = 10.0  # how sharply a voxel half way between the levels is divided
LEAST_CONTRAST = 0.15  # between fluid and a tissue, of the range between fluid and white matter
EMPTY, FULL = 0.5, 0.9  # of the way from fluid to hippocampus: up to which none of a voxel is one, from which all


def by_brightness(shares: Tensor, values: Tensor) -> Tensor:
    """Shares (8, classes, M) as probability · 255 in uint8, values (8, M) → shares with what is fluid redrawn.

    They come back as they were where fluid or tissue cannot be told from each other in this scan.
    """
    at = {name: CLASSES.index(name) for name in CLASSES}
    fluids, tissues = [at[name] for name in VENTRICLES], [at[name] for name in TISSUES]
    fluid = level_of(shares, values, fluids)
    levels = [level_of(shares, values, [at[name]]) for name in TISSUES.values()]
    white = levels[list(TISSUES).index("white")]
    if fluid is None or white is None or any(level is None for level in levels):
        return shares
    reach = torch.tensor([float(level) - fluid for level in levels if level is not None])
    if not bool((reach.abs() > LEAST_CONTRAST * abs(white - fluid)).all()) or white == fluid:
        return shares
    wet, solid = (joined(torch.add, shares, classes) for classes in (fluids, tissues))
    least = int(255 * DOUBTFUL)
    doubtful = (wet > least) & (solid > least) & (255 - wet - solid < int(255 * MOST_OTHER))
    corner, cube = doubtful.nonzero(as_tuple=True)
    picked = shares[corner, :, cube].float() / 255  # (voxels, classes)
    held = picked[:, tissues]
    towards = (held * reach).sum(1) / held.sum(1)
    share_of_tissue = (values[corner, cube] - fluid) / towards
    wanted = torch.sigmoid((0.5 - share_of_tissue) * STEEP)
    now = picked[:, fluids].sum(1)
    both = now + held.sum(1)
    wanted *= both  # of fluid
    picked[:, fluids] *= (wanted / now)[:, None]
    picked[:, tissues] *= ((both - wanted) / held.sum(1))[:, None]
    redrawn = shares.clone()
    redrawn[corner, :, cube] = picked.mul_(255).round_().to(torch.uint8)
    hippocampus = level_of(shares, values, [at["hippocampus"]])
    if hippocampus is not None and abs(hippocampus - fluid) > LEAST_CONTRAST * abs(white - fluid):
        corner, cube = redrawn[:, at["hippocampus"]].nonzero(as_tuple=True)
        held = redrawn[corner, at["hippocampus"], cube]
        tissue = (values[corner, cube] - fluid) / (hippocampus - fluid)
        kept = ((tissue - EMPTY) / (FULL - EMPTY)).clamp_(0, 1).mul_(held).round_().to(torch.uint8)
        redrawn[corner, at["hippocampus"], cube] = kept
        risen = redrawn[corner, at["fluid"], cube].short() + held - kept
        redrawn[corner, at["fluid"], cube] = risen.clamp_(max=255).to(torch.uint8)
    return redrawn


def level_of(shares: Tensor, values: Tensor, classes: list[int]) -> float | None:
    """The median brightness of the voxels that surely are of these classes; None where there are too few."""
    known = np.flatnonzero(joined(torch.maximum, shares, classes).numpy() > int(255 * SURE))
    if len(known) < LEAST_SURE:
        return None
    return float(values.flatten()[torch.from_numpy(known[:: max(1, len(known) // 20_000)])].median())


def joined(join: Callable[..., Tensor], shares: Tensor, classes: list[int]) -> Tensor:
    """Classes' shares joined one by one, quicker than across strides: int16 (8, M), for a sum may pass 255."""
    made = shares[:, classes[0]].short()
    for number in classes[1:]:
        join(made, shares[:, number], out=made)
    return made
