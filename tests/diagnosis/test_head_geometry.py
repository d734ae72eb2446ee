"""The average brain on the head's grid, against the closed form of an ellipsoid."""

import numpy as np
import pytest

from diagnosis.head_geometry import BRAIN_CENTRE_MNI_MM, BRAIN_HALF_AXES_MM, brain
from studies import HEAD


def test_the_brain_is_an_ellipsoid_about_its_middle():
    axes, inside = brain(HEAD)
    assert inside.shape == HEAD.shape == tuple(len(axis) for axis in axes)
    assert inside.sum() * np.prod(HEAD.spacing) == pytest.approx(
        4 / 3 * np.pi * np.prod(BRAIN_HALF_AXES_MM), rel=0.01
    )
    for axis, (mm, middle, half) in enumerate(zip(axes, BRAIN_CENTRE_MNI_MM, BRAIN_HALF_AXES_MM, strict=True)):
        assert np.diff(mm) == pytest.approx(HEAD.spacing[axis])
        held = mm[inside.any(tuple({0, 1, 2} - {axis}))]
        assert held.mean() == pytest.approx(middle, abs=HEAD.spacing[axis])
        assert held.max() - held.min() == pytest.approx(2 * half, abs=2 * HEAD.spacing[axis])
