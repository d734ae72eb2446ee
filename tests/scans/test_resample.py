"""The arithmetic of grids, against scipy and against closed forms."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from scans import resample as resampling
from scans.affine import is_oblique
from scans.resample import resample
from tests.support import turn

RNG = np.random.default_rng(0)
VALUES = RNG.random((14, 17, 19)).astype(np.float32)


@pytest.fixture(autouse=True)
def what_is_never_written_shows(monkeypatch):
    """New memory may hold an earlier result by chance, and that may be the right one."""
    monkeypatch.setattr(torch, "empty", lambda shape: torch.full(tuple(shape), float("nan")))


def scipys(matrix, shape):
    """The same reading by scipy, which takes what lies between the outermost voxel and beyond as zero too."""
    return affine_transform(np.pad(VALUES, 2), matrix[:3, :3], matrix[:3, 3] + 2, shape, order=1)


ALIGNED = {
    "shifted": [[1, 0, 0, 0.3], [0, 1, 0, -2.6], [0, 0, 1, 4.2]],
    "flipped": [[-1, 0, 0, 12.5], [0, 1, 0, 0], [0, 0, -1, 15]],
    "turned": [[0, 0, 0.7, 1], [0.8, 0, 0, 2], [0, -0.9, 0, 18]],
    "turned the other way": [[0, 0.9, 0, 1], [0, 0, 0.5, 2], [0.8, 0, 0, -1]],
    "beside": [[1, 0, 0, 100], [0, 1, 0, 0], [0, 0, 1, 0]],
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ALIGNED)
def test_along_the_axes(name, order):
    matrix = np.vstack([ALIGNED[name], [0, 0, 0, 1]])
    values = torch.from_numpy(np.asarray(VALUES, order=order))
    read = resample(values, matrix, (21, 18, 40))
    np.testing.assert_allclose(read, scipys(matrix, (21, 18, 40)), atol=1e-5)


@pytest.mark.parametrize("matrix", [turn(20, 0), turn(-35, 1) @ turn(10, 2), turn(3, 2)])
@pytest.mark.parametrize("shape", [(15, 16, 18), (2 * resampling.PLANES + 3, 5, 6)])
def test_across_the_axes(matrix, shape):
    assert is_oblique(matrix)
    read = resample(torch.from_numpy(VALUES), matrix, shape)
    np.testing.assert_allclose(read, scipys(matrix, shape), atol=1e-3)


def test_offset_and_factor():
    read = resample(torch.from_numpy(VALUES), np.eye(4), VALUES.shape, offset=-0.25, factor=4.0)
    np.testing.assert_allclose(read, (VALUES - 0.25) * 4, atol=1e-6)
    whole = resample(torch.arange(24, dtype=torch.uint8).view(2, 3, 4), np.eye(4), (2, 3, 4), offset=-30.0)
    assert float(whole.min()) == -30


@pytest.mark.parametrize("step", [2.0, 3.3])
@pytest.mark.parametrize("slant", [0, 10])
def test_a_coarser_grid_sees_no_false_pattern(step, slant):
    """Alternating voxels average to a half; read without care they would come out as stripes."""
    stripes = torch.zeros(48, 48, 48)
    stripes[::2] = 1
    matrix = turn(slant, 2) @ np.diag([step, step, step, 1])
    matrix[:3, 3] += 10
    read = resample(stripes, matrix, (8, 8, 8))[1:6, 1:6, 1:6]
    assert float((read - 0.5).abs().max()) < 0.2
    assert float((read - 0.5).abs().mean()) < 0.06


def test_a_coarser_grid_keeps_a_constant():
    even = torch.ones(40, 40, 40)
    matrix = np.diag([2.7, 1.9, 3.1, 1])
    matrix[:3, 3] = 6
    np.testing.assert_allclose(resample(even, matrix, (9, 9, 9)), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(15, 16, 18), (1, 16, 18), (5, 1, 1)])
def test_a_big_scan_is_read_in_parts_with_the_same_result(monkeypatch, shape):
    """Both ways, with the bound so low that the small scan counts as big and is halved to the end."""
    monkeypatch.setattr(resampling, "LARGE", 100)
    values = torch.from_numpy(VALUES)
    for matrix in (turn(20, 0), turn(-35, 1) @ turn(10, 2), np.vstack([ALIGNED["turned"], [0, 0, 0, 1]])):
        moved = matrix.copy()
        moved[:3, 3] += 2
        np.testing.assert_allclose(resample(values, moved, shape), scipys(moved, shape), atol=1e-3)
    assert not resample(values, turn(20, 0) + np.pad([[100.0]], ((0, 3), (3, 0))), shape).any()  # beside the scan


def test_the_scan_itself_stays_as_it_is():
    values = torch.from_numpy(VALUES.copy())
    for matrix in (np.eye(4), turn(20, 0)):
        resample(values, matrix, VALUES.shape, offset=-0.5, factor=3.0)
    np.testing.assert_array_equal(values, VALUES)
