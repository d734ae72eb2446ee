"""NIfTI and MGH files: what is read is what was written, and each thing that can be wrong has its own words."""

import gzip
import json
import tracemalloc

import nibabel
import numpy as np
import pytest

from scans.read import read
from tests.heads import head, reorder, save
from tests.volumes import AFFINE, SHAPE, numbers, refusal


def broken(tmp_path, field, value, suffix=".nii"):
    """A NIfTI file of which one header field has been overwritten."""
    path = save(tmp_path / "whole.nii", numbers(), AFFINE)
    data = bytearray(path.read_bytes())
    header = np.frombuffer(data, nibabel.Nifti1Header.template_dtype, 1)
    header.flags.writeable = True
    header[field] = value
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ", ".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_volumes_are_read_as_stored(tmp_path, suffix, dtype):
    kind = nibabel.MGHImage if ".mg" in suffix else nibabel.Nifti1Image
    image = kind(numbers(dtype), AFFINE.astype(np.float32))
    path = tmp_path / f"head{suffix.lower()}"
    nibabel.save(image, path)
    for scan in (read(path), read(path.read_bytes(), f"head{suffix}")):
        np.testing.assert_array_equal(scan.voxels, numbers(dtype))
        np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
        assert scan.kind == "volume" and scan.voxels.dtype == dtype
        facts = scan.facts
        assert facts["shape"] == list(SHAPE) and facts["orientation"] == "PSR" and facts["affine_known"]
        assert facts["spacing"] == pytest.approx([1.5, 1.2, 2]) and not facts["oblique"] and facts["repaired"] == 0
        json.dumps(facts)


@pytest.mark.parametrize("dtype", [">i2", ">f4", "float64", "int32", "uint16", "int8"])
def test_other_number_types(tmp_path, dtype):
    scan = read(save(tmp_path / "head.nii.gz", numbers(dtype), AFFINE))
    np.testing.assert_array_equal(scan.voxels, numbers(dtype))
    assert scan.voxels.dtype.isnative and scan.voxels.dtype.itemsize <= 4


def test_nifti_2(tmp_path):
    nibabel.save(nibabel.Nifti2Image(numbers(), AFFINE), tmp_path / "head.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "head.nii.gz").voxels, numbers())


def test_slope_and_intercept_are_honoured(tmp_path):
    image = nibabel.Nifti1Image(numbers(), AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "head.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "head.nii.gz").read_bytes()))
    stored = np.frombuffer(data, "<i2", offset=352).reshape(SHAPE, order="F")
    header = nibabel.Nifti1Header(bytes(data[:348]))
    slope, inter = header.get_slope_inter()
    np.testing.assert_allclose(
        read(tmp_path / "head.nii.gz").voxels, stored * (slope or 1) + (inter or 0), atol=1e-3
    )


def test_written_slope(tmp_path):
    path = broken(tmp_path, "scl_slope", 0.25)
    data = bytearray(path.read_bytes())
    np.frombuffer(data, nibabel.Nifti1Header.template_dtype, 1)["scl_inter"][0] = -7
    np.testing.assert_allclose(read(bytes(data), "head.nii").voxels, numbers() * 0.25 - 7)


def test_one_volume_in_four_dimensions_is_squeezed(tmp_path):
    scan = read(save(tmp_path / "head.nii.gz", numbers()[..., None, None], AFFINE))
    np.testing.assert_array_equal(scan.voxels, numbers())


def test_the_sform_comes_before_the_qform_and_a_useless_one_is_passed_over(tmp_path):
    image = nibabel.Nifti1Image(numbers(), None)
    image.set_qform(AFFINE, 1)
    image.set_sform(np.diag([1, 1, 0, 1]), 2)
    nibabel.save(image, tmp_path / "head.nii")
    np.testing.assert_allclose(read(tmp_path / "head.nii").affine, AFFINE, atol=1e-4)


def test_no_affine_is_said(tmp_path):
    image = nibabel.Nifti1Image(numbers(), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "head.nii")
    facts = read(tmp_path / "head.nii").facts
    assert not facts["affine_known"] and facts["orientation"] == "unknown"


def test_a_slanted_affine_is_said(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[0.98, -0.2], [0.2, 0.98]]
    assert read(save(tmp_path / "head.nii", numbers(), AFFINE @ turn)).facts["oblique"]


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz", "head.mgz"])
def test_truncated_inside_the_header(tmp_path, name):
    start = b"\0\0\0\1" if name == "head.mgz" else b""
    data = (start + save(tmp_path / "head.nii", numbers(), AFFINE).read_bytes())[:100]
    error = refusal(gzip.compress(data) if name.endswith("z") else data, name)
    assert error.code == "truncated" and "100 bytes" in str(error)


def test_damaged_gzip(tmp_path):
    data = bytearray(save(tmp_path / "head.nii.gz", numbers(), AFFINE).read_bytes())
    data[-8:-4] = b"\0\1\2\3"  # the checksum
    assert refusal(bytes(data), "head.nii.gz").code == "truncated"


@pytest.mark.parametrize("inside", ["header", "zeros"])
def test_gzip_that_inflates_past_the_limit(tmp_path, inside):
    start = save(tmp_path / "head.nii", numbers(), AFFINE).read_bytes() if inside == "header" else b""
    bomb = gzip.compress(start + bytes(50_000_000))
    assert len(bomb) < 100_000
    tracemalloc.start()
    error = refusal(bomb, "head.nii.gz", limit=10_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "too-large" and "10,000,000" in str(error) and "inflates" in str(error)
    assert peak < 20_000_000


def test_too_large_a_file_and_too_large_a_scan(tmp_path):
    path = save(tmp_path / "head.nii", numbers(), AFFINE)
    assert refusal(path, limit=1000).code == refusal(path.read_bytes(), "head.nii", limit=1000).code == "too-large"
    data = save(tmp_path / "zeros.nii.gz", np.zeros((64, 64, 64), np.uint8), AFFINE).read_bytes()
    error = refusal(data, "zeros.nii.gz", limit=100_000)
    assert error.code == "too-large" and "64×64×64" in str(error)


@pytest.mark.parametrize("value", [0, 347, 1 << 30])
def test_wrong_header_size(tmp_path, value):
    error = refusal(broken(tmp_path, "sizeof_hdr", value))
    assert error.code == "bad-header" and "348" in str(error)


@pytest.mark.parametrize(
    "field, value",
    [
        ("magic", b"ni1"),
        ("magic", b""),
        ("datatype", 7),
        ("vox_offset", -5),
        ("vox_offset", np.nan),
        ("dim", [0, 9, 10, 11, 1, 1, 1, 1]),
        ("dim", [9, 9, 10, 11, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bad_header(tmp_path, field, value, suffix):
    assert refusal(broken(tmp_path, field, value, suffix)).code == "bad-header"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dim",
    [
        [3, 30000, 30000, 30000, 1, 1, 1, 1],
        [3, 9, 0, 11, 1, 1, 1, 1],
        [3, 9, -10, 11, 1, 1, 1, 1],
        [7] + [32767] * 7,
    ],
)
def test_absurd_dimensions_allocate_nothing(tmp_path, suffix, dim):
    path = broken(tmp_path, "dim", dim, suffix)
    tracemalloc.start()
    error = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "absurd-dimensions" and str(dim[1]) in str(error) and peak < 5_000_000


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 1), (40, 40, 3)])
def test_a_slice_is_no_volume(tmp_path, shape):
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    error = refusal(save(tmp_path / "head.nii", voxels, AFFINE))
    assert error.code == "absurd-dimensions" and "upload the whole scan" in str(error)


@pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, 1e6])
@pytest.mark.parametrize("suffix", [".nii", ".mgh"])
def test_bad_spacing(tmp_path, spacing, suffix):
    if suffix == ".nii":
        path = broken(tmp_path, "pixdim", [1, 1.5, spacing, 2, 0, 0, 0, 0])
    else:
        path = tmp_path / "head.mgh"
        nibabel.save(nibabel.MGHImage(numbers(), np.eye(4)), path)
        data = bytearray(path.read_bytes())
        data[34:38] = np.array(spacing, ">f4").tobytes()  # the second of three
        path.write_bytes(data)
    error = refusal(path)
    assert error.code == "bad-spacing" and f"{spacing:g}" in str(error) and "mm" in str(error)


def test_several_volumes(tmp_path):
    error = refusal(save(tmp_path / "head.nii.gz", np.stack([numbers()] * 4, -1), AFFINE))
    assert error.code == "several-volumes" and "4 volumes (9×10×11×4)" in str(error) and "fslroi" in str(error)


def test_complex_and_colour_voxels(tmp_path):
    assert refusal(save(tmp_path / "wave.nii", numbers("complex64"), AFFINE)).code == "complex"
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["R"] = numbers()
    assert refusal(save(tmp_path / "colour.nii", colour, AFFINE)).code == "rgb"


def test_a_head_in_another_order_keeps_its_places(tmp_path):
    voxels, affine = head(4.0)
    turned, other = reorder(voxels, affine, "LIA")
    scan = read(save(tmp_path / "head.nii.gz", turned, other))
    there = np.argwhere(scan.voxels == scan.voxels.max())[0]
    np.testing.assert_allclose((scan.affine @ [*there, 1])[:3], (-40, 40, 15), atol=10)
