"""Where an average brain lies on a grid on which a head was placed, in millimetres of MNI space."""

import numpy as np

from studies import Contract

BRAIN = (0.0, -22.0, 9.5)  # mm in MNI space: the middle of the brain
BELOW = (0.0, -1.0, 3.0)  # mm: where that middle lies seen from the anchor of a placed head
HALF = (71.0, 88.0, 76.0)  # mm: half the brain's width, length and height, as an ellipsoid about its middle


def brain(contract: Contract) -> tuple[list[np.ndarray], np.ndarray]:
    """The head grid's axes in MNI mm, and the grid's voxels (X, Y, Z) that lie in an average brain."""
    anchor = np.array(contract.anchor) * (np.array(contract.shape) - 1)  # as scans.prepare places it
    axes = [
        (np.arange(n) - a) * mm - below
        for n, a, mm, below in zip(contract.shape, anchor, contract.spacing, BELOW, strict=True)
    ]  # mm from the brain's middle
    x, y, z = (part / half for part, half in zip(np.ix_(*axes), HALF, strict=True))
    return [axis + middle for axis, middle in zip(axes, BRAIN, strict=True)], x**2 + y**2 + z**2 <= 1
