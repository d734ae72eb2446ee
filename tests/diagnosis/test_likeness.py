"""Sketches: found where they lie, tilted or shifted, and not in what is no head."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from diagnosis import gate, likeness
from scans.prepare import prepare
from studies import HEAD
from tests import heads
from tests.gated import PICTURE, codes, scan_of


def test_a_shifted_sketch_is_found_where_it_lies(sketched):
    template = sketched.extras["likeness.sketch"]
    found = likeness.match(torch.roll(template, (1, -2, 3), (0, 1, 2)), template, HEAD)
    assert found.shift == (1, -2, 3) and found.score == pytest.approx(1, abs=0.02)
    assert found.margin > 0.05 and found.turned is None
    assert likeness.match(template.flip(2), template, HEAD).turned == "upside-down"
    assert not math.isnan(likeness.match(torch.zeros_like(template), template, HEAD).score)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["nodded", "rolled", "turned aside"])
def test_a_tilted_head_is_a_head(sketched, axis):
    """As a person may lie in the scanner: the header tells the truth, the head is askew by 14°."""
    voxels, affine = heads.head(3.0)
    voxels = voxels + 60 * (np.indices(voxels.shape)[2] % 12 < 3) * (voxels > 60)  # layers, which a tilt moves
    template = likeness.sketch(prepare(scan_of(voxels, affine), HEAD).tensor, HEAD)
    cos, sin = math.cos(math.radians(14)), math.sin(math.radians(14))
    tilt = np.eye(4)
    one, other = (n for n in range(3) if n != axis)
    tilt[one, one], tilt[one, other], tilt[other, one], tilt[other, other] = cos, -sin, sin, cos
    sketched = likeness.sketch(prepare(scan_of(voxels, tilt @ affine), HEAD).tensor, HEAD)
    where = likeness.core(HEAD)
    stiff = float(torch.corrcoef(torch.stack([sketched[where], template[where]]))[0, 1])
    found = likeness.match(sketched, template, HEAD)
    assert found.score > max(0.75, stiff + (0.1 if axis < 2 else 0)) and found.turned is None


def test_a_pose_turns_about_each_new_axis():
    angles = np.array([0.3, -0.2, 0.5])
    expected = Rotation.from_euler("XYZ", angles).as_matrix()
    np.testing.assert_allclose(likeness._turned(angles), expected, atol=1e-15)


def test_brightness_turned_round_is_no_t1_head(sketched):
    voxels, affine = heads.head(3.0)
    verdict, _ = codes(scan_of(np.where(voxels > 20, 210 - voxels, 0), affine), sketched)
    assert verdict == gate.UNFIT


def test_a_picture_is_only_shifted():
    drawn = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    found = likeness.match(torch.roll(drawn, (2, -3), (0, 1)), drawn, PICTURE)
    assert found.shift == (2, -3) and found.score > 0.95 and found.margin == math.inf


def test_the_distance_is_from_the_mean_of_what_was_learned_from():
    extras = {
        "features.mean": torch.tensor([1.0, 2.0]),
        "features.precision": torch.diag(torch.tensor([1.0, 4.0])),
    }
    assert likeness.distance(torch.tensor([4.0, 4.0]), extras) == pytest.approx(5)  # √(3² + 4 · 2²)
