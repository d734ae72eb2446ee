"""Slices put together: places by closed forms, and what makes up no volume refused in words."""

from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from scans.dicom import series
from scans.dicom.pixels import Pixels
from scans.scan import ScanError

ROWS, COLUMNS = 5, 6


def one(place, value=0, way=(1, 0, 0, 0, 1, 0), spacing=(2.0, 3.0), **more):
    """The header of one slice, its corner at `place`, its pixels `value` and counting on."""
    header = pydicom.Dataset()
    header.ImagePositionPatient, header.ImageOrientationPatient = list(place), list(way)
    header.PixelSpacing, header.Rows, header.Columns = list(spacing), ROWS, COLUMNS
    header.BitsAllocated, header.PixelRepresentation, header.SamplesPerPixel = 16, 0, 1
    for keyword, changed in more.items():
        setattr(header, keyword, changed)
    values = (np.arange(ROWS * COLUMNS) + value).astype("<u2").tobytes()
    return header, Pixels(header, "PixelData", ExplicitVRLittleEndian, memoryview(values), False)


def straight(heights, **more):
    return [one((10, 20, height), 100 * number, **more) for number, height in enumerate(heights)]


def put_together(files, modality="MR", limit=1 << 30):
    return series.assemble(files, "a.zip", modality, limit)


def test_every_voxel_lies_where_its_slice_says():
    scan = put_together(straight([0, 4, 8, 12, 16])[::-1])
    assert scan.voxels.shape == (COLUMNS, ROWS, 5) and scan.voxels.dtype == np.uint16
    for column, row, plane in [(0, 0, 0), (3, 2, 1), (5, 4, 4)]:
        assert scan.voxels[column, row, plane] == 100 * plane + row * COLUMNS + column
        world = scan.affine @ [column, row, plane, 1]  # RAS: the first two of DICOM's axes turned round
        np.testing.assert_allclose(world[:3], [-(10 + 3 * column), -(20 + 2 * row), 4 * plane])


def test_a_tilted_gantry_shears():
    scan = put_together([one((0, 1.5 * n, 4 * n), n) for n in range(6)])
    np.testing.assert_allclose(scan.affine[:3, 2], [0, -1.5, 4])
    assert scan.facts["oblique"]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "first"),
    [(1, 0, np.uint16, 0), (1, -1024, np.int16, -1024), (2, 1, np.float32, 1), (1, 0.5, np.float32, 0.5)],
)
def test_values_are_the_scanner_s(slope, intercept, dtype, first):
    scan = put_together(straight([0, 1, 2, 3], RescaleSlope=slope, RescaleIntercept=intercept, BitsStored=12))
    assert scan.voxels.dtype == dtype and scan.voxels[0, 0, 0] == first
    assert scan.voxels[2, 1, 3] == slope * (300 + COLUMNS + 2) + intercept


def test_sixteen_full_bits_shifted_need_floats():
    scan = put_together(straight([0, 1, 2, 3], RescaleIntercept=-10, BitsStored=16))
    assert scan.voxels.dtype == np.float32 and scan.voxels[0, 0, 0] == -10


def test_ct_of_two_steps_is_evened_out():
    """Steps of 2 mm, then of 4: the planes between are means, at 2 mm."""
    scan = put_together(straight([0, 2, 4, 8, 12]), "CT")
    assert scan.voxels.shape[2] == 7 and scan.facts["spacing"][2] == 2
    np.testing.assert_allclose(scan.voxels[0, 0], [0, 100, 200, 250, 300, 350, 400])


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        (straight([0, 4, 8]), "too-few-slices", "3 images"),
        (straight([0, 4, 8, 16, 20]), "uneven-slices", "4.00 to 8.00 mm"),
        (straight([0, 4, 8, 12]) + straight([0, 4, 8, 12]), "several-volumes", "8 images at 4 places"),
        ([*straight([0, 4, 8]), one((0, 0, 0), way=(1, 0, 0, 0, 0, -1))], "several-series", "different planes"),
        ([*straight([0, 4, 8, 12]), one((10, 20, 16), spacing=(1, 1))], "several-series", "differ in size"),
        (straight([0, 4, 8, 12], ImageType=["ORIGINAL", "MOSAIC"]), "mosaic", "dcm2niix"),
        (straight([0, 4, 8, 12], SamplesPerPixel=3), "rgb", "colour"),
        ([one((0, 0, 4 * n), way=(1, 0, 0, 1, 0, 0)) for n in range(4)], "no-image", "no place in space"),
        ([one((10, 20 + 3 * (n == 2), 4 * n), n) for n in range(6)], "uneven-slices", "not evenly spaced"),
    ],
)
def test_what_is_no_volume(files, code, words):
    with pytest.raises(ScanError, match=words) as refused:
        put_together(files)
    assert refused.value.code == code


def test_the_size_is_counted_before_a_pixel_is_looked_at():
    files = straight([0, 4, 8, 12])
    for _, pixels in files:
        pixels.rows, pixels.data = 10_000, SimpleNamespace()
    with pytest.raises(ScanError, match="480,000 bytes, and the limit is 400,000") as refused:
        put_together(files, limit=400_000)
    assert refused.value.code == "too-large"
