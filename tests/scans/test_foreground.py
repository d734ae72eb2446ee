"""The foreground of scans whose foreground is known."""

import numpy as np
import pytest

from scans.foreground import _otsu, find_foreground, on_grid


def test_the_foreground_is_the_ball_and_not_the_speck():
    points = np.indices((60, 60, 60)) * 3.0
    ball = np.sqrt(((points - 90) ** 2).sum(0)) < 50
    voxels = np.where(ball, 100.0, 2.0).astype(np.float32)
    voxels[2:5, 2:5, 2:5] = 100
    found = find_foreground(voxels, np.diag([3.0, 3, 3, 1]))
    assert found.mask[30, 30, 30] and not found.mask[3, 3, 3]
    assert found.mask.sum() * 27 == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.15)
    assert 2 < found.threshold < 98 and found.air == 2
    np.testing.assert_allclose(found.anchor[:2], 90, atol=0.5)
    whole = on_grid(found, np.eye(4), voxels.shape)
    assert whole[30, 30, 30] and not whole[3, 3, 3] and not whole[0].any()


ODD = [np.zeros((8, 8, 8)), np.arange(512).reshape(8, 8, 8), np.eye(8)[..., None] * np.ones(8)]


@pytest.mark.parametrize("voxels", ODD, ids=["empty", "ramp", "sheet"])
def test_odd_scans_have_some_foreground(voxels):
    found = find_foreground(voxels.astype(np.float32), np.eye(4))
    assert np.isfinite([found.air, found.threshold, found.mean, found.deviation, *found.anchor]).all()
    assert found.mask.any() and found.deviation > 0


def test_the_threshold_lies_between_air_and_the_midst_of_dark_and_bright():
    """A dark shell around a bright ball: Otsu parts them half way, at 70, and six tenths of that is 42."""
    points = (np.indices((60, 60, 60)) - 29.5) * 3.0
    radius = np.linalg.norm(points, axis=0)
    voxels = np.where(radius < 50, 100.0, np.where(radius < 65, 40.0, 0.0))
    assert find_foreground(voxels, np.diag([3.0, 3, 3, 1])).threshold == pytest.approx(42, abs=0.5)


def test_intensities_are_those_within_50_mm_of_the_middle_of_the_brain():
    """The middle lies 6 mm behind the anchor."""
    points = (np.indices((60, 70, 60)) - 29.5) * 3.0
    head = np.linalg.norm(points, axis=0) < 80
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = -88.5
    anchor, behind = np.zeros(3), np.array([0, -6, 0])
    for _ in range(2):  # the brightness moves the anchor a little, the second time no more
        away = np.linalg.norm(points - (anchor + behind).reshape(3, 1, 1, 1), axis=0)
        found = find_foreground(np.where(head, np.where(away < 50, 100.0, 60.0), 0.0), affine)
        change, anchor = np.abs(found.anchor - anchor).max(), found.anchor
    assert change < 0.01
    assert (found.mean, found.deviation) == (100, 1)  # one brightness alone, whose spread counts as 1


def test_the_threshold_parts_where_the_spread_between_is_largest():
    """Of 100 at 20, 100 at 40 and 5 at 100: 100 · 105 · (42.86 − 20)² is more than 200 · 5 · (100 − 30)²."""
    sample = np.repeat([0.0, 20.0, 40.0, 100.0], [50, 100, 100, 5])
    assert _otsu(sample, 0.0, 100.0) == pytest.approx((20 + 4500 / 105) / 2, abs=0.4)  # a bin is 0.39 wide
