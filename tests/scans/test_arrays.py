"""Scans in memory: the same as their file, and refused for the same."""

import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest

from scans.arrays import from_array, is_array
from scans.read import read
from scans.scan import ScanError
from tests.support import phantom, save_nifti

VOXELS, AFFINE = phantom(6.0)


def test_an_image_an_array_and_a_file_are_one_scan(tmp_path):
    file = save_nifti(tmp_path / "head.nii.gz", VOXELS, AFFINE)
    wanted = read(file)
    for given in (nibabel.load(file), (VOXELS, AFFINE), (VOXELS.astype(np.int64), AFFINE.tolist())):
        assert is_array(given)
        scan = from_array(given)
        np.testing.assert_array_equal(scan.voxels, wanted.voxels)
        np.testing.assert_allclose(scan.affine, wanted.affine, atol=1e-5)
        assert scan.kind == "volume" and scan.facts["affine_known"]
        assert not is_array(scan)
    assert not is_array(file) and not is_array(b"bytes")


@pytest.mark.parametrize("begun", [[], ["spatialimages"]])
@pytest.mark.parametrize(
    "given", ["head.nii", Path("head.nii"), b"bytes", object()], ids=lambda one: type(one).__name__
)
def test_while_another_thread_opens_the_library_nothing_is_an_image_of_its(monkeypatch, begun, given):
    library = ModuleType("nibabel")
    for name in begun:
        setattr(library, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "nibabel", library)
    assert not is_array(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((VOXELS.astype(complex), AFFINE), "voxels of type complex128"),
        ((VOXELS, np.eye(3)), "an affine has 4 × 4 finite numbers"),
        ((VOXELS, np.full((4, 4), np.nan)), "an affine has 4 × 4 finite numbers"),
        ((np.stack([VOXELS] * 3, -1), AFFINE), "3 volumes"),
    ],
)
def test_what_no_file_may_be_no_array_may_be(given, words):
    with pytest.raises(ScanError, match=words):
        from_array(given)
