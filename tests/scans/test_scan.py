"""What every volume must pass, whichever reader it came from: a spread of values, few missing ones."""

import numpy as np
import pytest

from scans.read import read
from tests.heads import save
from tests.volumes import AFFINE, SHAPE, numbers, refusal


def test_a_few_missing_voxels_are_repaired_from_their_neighbours(tmp_path):
    voxels = np.full(SHAPE, 50, np.float32)
    voxels[:3] = 0
    voxels[5, 5, 5], voxels[7, 7, 7], voxels[0, 0, 0] = np.nan, np.inf, -np.inf
    scan = read(save(tmp_path / "head.nii.gz", voxels, AFFINE))
    assert scan.facts["repaired"] == 3 and np.isfinite(scan.voxels).all()
    assert scan.voxels[5, 5, 5] == scan.voxels[7, 7, 7] == 50 and scan.voxels[0, 0, 0] == 0


@pytest.mark.parametrize("value", [0, 37])
def test_constant(tmp_path, value):
    error = refusal(save(tmp_path / "head.nii", np.full(SHAPE, value, np.int16), AFFINE))
    assert error.code == "constant" and f"every voxel is {value}" in str(error)


def test_too_many_missing_voxels(tmp_path):
    voxels = numbers("float32")
    voxels[:2] = np.nan
    error = refusal(save(tmp_path / "head.nii", voxels, AFFINE))
    assert error.code == "not-finite" and "220 of 990" in str(error)
