"""What every volume must pass, whichever reader it came from: a spread of values, few missing ones."""

import io

import numpy as np
import pytest

from scans.read import read
from scans.scan import ScanError, View, check_dtype, image
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


@pytest.mark.parametrize(
    "dtype, code",
    [
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "rgb"),
        (np.dtype("V3"), "rgb"),
        (np.dtype("c8"), "complex"),
        (np.dtype("S4"), "bad-header"),
    ],
)
def test_voxels_that_are_no_numbers(dtype, code):
    with pytest.raises(ScanError, match=r"^a\.nii: .*; save") as refused:
        check_dtype(dtype, "a.nii")
    assert refused.value.code == code


def test_a_picture_is_of_any_two_values_and_lies_nowhere():
    made = image(np.eye(16, dtype=np.uint8), "a.png", "PNG", modality="MR")
    assert made.kind == "image" and made.facts == {
        "format": "PNG",
        "shape": [16, 16],
        "dtype": "uint8",
        "affine_known": False,
        "oblique": False,
        "repaired": 0,
        "modality": "MR",
    }
    with pytest.raises(ScanError, match="every pixel is 3") as refused:
        image(np.full((16, 16), 3), "a.png", "PNG")
    assert refused.value.code == "constant"


def test_bytes_in_memory_read_as_a_file():
    data = bytes(range(100))
    view, file = View(data), io.BytesIO(data)
    for name, *given in [
        ("read", 7),
        ("seek", 5, io.SEEK_CUR),
        ("read", 3),
        ("seek", -4, io.SEEK_CUR),
        ("tell",),
        ("seek", -6, io.SEEK_END),
        ("read", 50),
        ("seek", 90),
        ("read",),
        ("read", 1),
    ]:
        assert getattr(view, name)(*given) == getattr(file, name)(*given), (name, given)
    view.seek(96)
    for left in (b"abc", b"\x63"):
        into = bytearray(3)
        assert view.readinto(into) == (3 if left == b"abc" else 1)
    assert view.tell() == 100 and into == b"\x63\0\0"
    view.seek(3)
    with pytest.raises(OSError, match="before the beginning"):
        view.seek(-4, io.SEEK_CUR)
    assert view.tell() == 3
