"""Axes and slants of an affine, against closed forms."""

import nibabel
import numpy as np
import pytest

from scans.affine import axes, is_oblique, straighten, upright
from tests.support import turn


def test_axes_and_obliqueness():
    affine = np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1.0]])
    assert axes(affine) == [2, 0, 1] and not is_oblique(affine)
    bent = affine @ turn(4, 0)
    assert is_oblique(bent)
    straight = straighten(bent)
    assert not is_oblique(straight)
    np.testing.assert_allclose(np.linalg.norm(straight[:3, :3], axis=0), (1, 1.5, 2), rtol=0.02)


@pytest.mark.parametrize("size", [0.1, 1, 20])
@pytest.mark.parametrize("degrees, slanted", [(4, True), (0.05, False)])  # the bound is 0.002, or 0.11°
def test_a_slant_is_an_angle_whatever_the_voxels_size(size, degrees, slanted):
    assert is_oblique(turn(degrees, 0) @ np.diag([size, size, size, 1])) == slanted


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "IPL", "ASL"])
def test_upright_lies_as_the_library_of_the_field_lays_it(codes):
    names = ("LR", "PA", "IS")
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for column, code in enumerate(codes):
        row = next(row for row, ends in enumerate(names) if code in ends)
        matrix[row, column] = (1.5, 2.0, 2.5)[column] * (-1 if code == names[row][0] else 1)
    values = np.arange(24).reshape(2, 3, 4)
    for affine in (matrix, matrix @ turn(10, 1)):
        expected = nibabel.apply_orientation(values, nibabel.io_orientation(affine))
        np.testing.assert_array_equal(upright(values, affine), expected)
