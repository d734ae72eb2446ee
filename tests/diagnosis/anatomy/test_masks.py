"""Masks grown and shrunk step by step, beside scipy's morphology."""

import numpy as np
import pytest
from scipy import ndimage

from diagnosis.anatomy.masks import grown, shrunk


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("corners", [False, True])
def test_masks_grow_and_shrink_as_scipy_s_do(corners, steps):
    noise = np.random.default_rng(0).normal(size=(21, 18, 24))
    mask = ndimage.gaussian_filter(noise, 1.5) > 0.02  # touches every edge
    kept = mask.copy()
    step = ndimage.generate_binary_structure(3, 3 if corners else 1)
    for ours, theirs in ((grown, ndimage.binary_dilation), (shrunk, ndimage.binary_erosion)):
        expected = theirs(mask, step, iterations=steps) if steps else mask
        assert np.array_equal(ours(mask, steps, corners), expected)
    assert np.array_equal(mask, kept)
