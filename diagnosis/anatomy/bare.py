"""Brains whose skull was taken away before: known by what lies around them, and segmented in a drawn scalp.

The segmenter's layers normalise over all that they see, so without a scalp hippocampi come out small and
ventricles large. A thin shell where the scalp would lie, not as bright as one, brings both back; it is drawn for
the segmenter alone. Distances are counted in voxels of HEAD's grid, 1.2 × 1 × 1 mm, along x as along y and z.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from networks.segmenter import CLASSES

AROUND = (4.0, 16.0)  # voxels outside the outline, between which a scalp lies
SIGNAL = 0.25  # of white matter's brightness, from which something lies there
MOST_SIGNAL = 0.05  # share of what lies around with signal; whole heads have a quarter or more
SHELL = (4.0, 7.0)  # voxels outside the outline, between which the shell is drawn
BRIGHT = 0.6  # of white matter's brightness
LEAST_WHITE = 1000  # voxels that tell it
ROUGH, FINE = 4, 2  # every so many voxels a scalp is looked for, and the shell drawn


def in_a_scalp(volume: Tensor, classes: np.ndarray) -> Tensor | None:
    """A bare brain (1, X, Y, Z) in a shell around what `classes` outline; None for a head."""
    values = volume[0].numpy()
    white = values[classes == CLASSES.index("white")]
    if len(white) < LEAST_WHITE:
        return None
    level = float(np.median(white[:: len(white) // LEAST_WHITE]))
    rough = distance(classes > 0, ROUGH)
    around = (rough > AROUND[0]) & (rough <= AROUND[1])
    if (values[::ROUGH, ::ROUGH, ::ROUGH][around] > SIGNAL * level).mean() > MOST_SIGNAL:
        return None
    depth = np.kron(distance(classes > 0, FINE), np.ones((FINE,) * 3, np.float32))
    shell = torch.from_numpy((depth > SHELL[0]) & (depth <= SHELL[1]))
    drawn = torch.where(shell, BRIGHT * level, volume)
    return drawn / drawn.std()


def distance(mask: np.ndarray, step: int) -> np.ndarray:
    """Voxels to a mask without its holes, at every so many of them."""
    coarse = ndimage.binary_closing(mask[::step, ::step, ::step], iterations=4 // step)
    return ndimage.distance_transform_edt(~ndimage.binary_fill_holes(coarse), sampling=step)
