"""Where an average brain lies on a grid on which a head was placed, in millimetres of MNI space."""

import numpy as np

from studies import Contract

BRAIN_CENTRE_MNI_MM = (0.0, -22.0, 9.5)
BRAIN_CENTRE_FROM_ANCHOR_MM = (0.0, -1.0, 3.0)  # from the anchor of a placed head
BRAIN_HALF_AXES_MM = (71.0, 88.0, 76.0)  # half its width, length and height, as an ellipsoid about its centre


def brain(contract: Contract) -> tuple[list[np.ndarray], np.ndarray]:
    """The head grid's axes in MNI mm, and the grid's voxels (X, Y, Z) that lie in an average brain."""
    anchor = np.array(contract.anchor) * (np.array(contract.shape) - 1)  # as scans.prepare places it
    axes = [
        (np.arange(n) - a) * mm - offset
        for n, a, mm, offset in zip(
            contract.shape, anchor, contract.spacing, BRAIN_CENTRE_FROM_ANCHOR_MM, strict=True
        )
    ]  # mm from the brain's middle
    x, y, z = (part / half for part, half in zip(np.ix_(*axes), BRAIN_HALF_AXES_MM, strict=True))
    return [axis + middle for axis, middle in zip(axes, BRAIN_CENTRE_MNI_MM, strict=True)], x**2 + y**2 + z**2 <= 1
