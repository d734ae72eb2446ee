"""What tests measure in a simulated head."""

import numpy as np

SEVERITIES = (0.0, 0.4, 0.8, 1.2)


def box(image, low, high, side=0):
    """The voxels between two corners in mm; `side` -1 or 1 takes one half, 0 both."""
    x, y, z = (image.affine[i, 3] + np.arange(n) for i, n in enumerate(image.shape))
    inside = [(np.abs(x) >= low[0]) & (np.abs(x) <= high[0]) & ((x * side > 0) | (side == 0)),
              (y >= low[1]) & (y <= high[1]), (z >= low[2]) & (z <= high[2])]  # fmt: skip
    return np.asarray(image.dataobj)[np.ix_(*inside)]


def ventricles(image, side=0):
    """ml of fluid around the lateral ventricles; 0.46 lies between fluid and grey matter of the template."""
    return (box(image, (0, -45, 2), (30, 30, 32), side) < 0.46).sum() / 1000


def tissue(image):
    return (np.asarray(image.dataobj) > 0.46).sum() / 1000
