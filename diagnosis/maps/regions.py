"""Where in the head a heat map lies, by coarse region, and what a reader of it must be told."""

import numpy as np

from diagnosis.head_geometry import brain
from diagnosis.maps.explain import Map
from scans.prepare import Prepared
from studies import Contract

# Boxes in MNI mm: right of, in front of, above; a voxel belongs to the first box that holds it.
REGIONS: list[tuple[str, tuple[float, float], tuple[float, float], tuple[float, float]]] = [
    ("hippocampus-left", (-42, -14), (-44, 2), (-30, 0)),
    ("hippocampus-right", (14, 42), (-44, 2), (-30, 0)),
    ("cerebellum", (-60, 60), (-100, -44), (-72, -20)),
    ("ventricles", (-24, 24), (-46, 34), (0, 30)),
    ("deep", (-24, 24), (-46, 20), (-72, 0)),
    ("occipital", (-80, 80), (-120, -68), (-20, 45)),
    ("temporal", (-80, 80), (-68, 22), (-72, 4)),
    ("frontal", (-80, 80), (-18, 90), (-40, 100)),
    ("parietal", (-80, 80), (-120, -18), (-20, 100)),
]
OUTSIDE = "outside"
MOSTLY = 0.5  # more than this outside the brain is worth a warning


def regions(made: Map, prepared: Prepared, contract: Contract) -> dict[str, float]:
    """The share of a map's positive part by coarse region; empty where the grid holds no placed head.

    Approximate by nature: boxes about an average brain's middle, on a head that was only shifted into place.
    """
    positive = np.clip(made.values, 0, None)
    total = float(positive.sum(dtype=np.float64))
    placed = contract.kind == "volume" and contract.place == "head" and "no-affine" not in prepared.notes
    if not placed or total == 0:
        return {}
    axes, free = brain(contract)  # free: in the brain and not yet given to a box
    shares = {}
    for name, *box in REGIONS:
        spot = tuple(slice(*np.searchsorted(axis, side)) for axis, side in zip(axes, box, strict=True))
        shares[name] = float(positive[spot][free[spot]].sum(dtype=np.float64)) / total
        free[spot] = False
    shares["deep"] += float(positive[free].sum(dtype=np.float64)) / total
    shares[OUTSIDE] = max(0.0, 1 - sum(shares.values()))
    return shares


def warnings(made: Map, shares: dict[str, float]) -> list[str]:
    """Codes of what a reader of the map must be told; `shares` by region, where there are any."""
    if made.values.max() <= 0:
        return ["empty"]
    return ["mostly-outside"] if shares.get(OUTSIDE, 0) > MOSTLY else []
