"""Brains whose skull was taken away before: known by what lies around them, and segmented in a drawn scalp.

The segmenter's layers normalise over all that they see, so without a scalp hippocampi come out small and
ventricles large. A thin shell where the scalp would lie, not as bright as one, brings both back; it is drawn for
the segmenter alone.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from networks.segmenter import CLASSES

AROUND = (4.0, 16.0)  # mm outside the outline, between which a scalp lies
SIGNAL = 0.25  # of white matter's brightness, from which something lies there
MOST_SIGNAL = 0.05  # share of what lies around with signal; whole heads have a quarter or more
SHELL = (4.0, 7.0)  # mm outside the outline, between which the shell is drawn
BRIGHT = 0.6  # of white matter's brightness
LEAST_WHITE = 1000  # voxels that tell it


def in_a_scalp(volume: Tensor, classes: np.ndarray) -> Tensor | None:
    """A bare brain (1, X, Y, Z), voxels of 1 mm, in a shell around what `classes` outline; None for a head."""
    values, white = volume[0].numpy(), classes == CLASSES.index("white")
    if white.sum() < LEAST_WHITE:
        return None
    level = float(np.median(values[white]))
    depth = distance(classes > 0)
    around = (depth > AROUND[0]) & (depth <= AROUND[1])
    if (values[around] > SIGNAL * level).mean() > MOST_SIGNAL:
        return None
    shell = torch.from_numpy((depth > SHELL[0]) & (depth <= SHELL[1]))
    drawn = torch.where(shell, BRIGHT * level, volume)
    return drawn / drawn.std()


def distance(mask: np.ndarray) -> np.ndarray:
    """mm to a mask without its holes, in voxels of 1 mm, measured at twice that."""
    coarse = ndimage.binary_fill_holes(ndimage.binary_closing(mask[::2, ::2, ::2], iterations=2))
    far = ndimage.distance_transform_edt(~coarse, sampling=2.0)
    return np.repeat(np.repeat(np.repeat(far, 2, 0), 2, 1), 2, 2).astype(np.float32)
