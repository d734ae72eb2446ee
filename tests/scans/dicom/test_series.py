"""Slices put together: places by closed forms, and what makes up no volume refused in words."""

import copy
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
        (
            straight([0, 4, 8, 16, 20]),
            "uneven-slices",
            "4.00 to 8.00 mm apart: 1 is missing, the first after image 3",
        ),
        (straight([0, 4, 8, 12, 24, 28, 36, 40]), "uneven-slices", "3 are missing, the first after image 4 of 8"),
        (straight([0, 4, 8, 13.5, 18]), "uneven-slices", "5.50 mm apart, or some are missing"),
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


@pytest.mark.parametrize(
    ("signed", "intercept", "dtype"),
    [  # twelve bits hold 0 to 4,095, or −2,048 to 2,047; sixteen −32,768 to 32,767
        (0, -32_768, np.int16),
        (0, -32_769, np.float32),
        (0, 28_672, np.int16),
        (0, 28_673, np.float32),
        (1, -30_720, np.int16),
        (1, -30_721, np.float32),
        (1, 30_720, np.int16),
        (1, 30_721, np.float32),
    ],
)
def test_a_shift_stays_whole_as_long_as_it_fits(signed, intercept, dtype):
    files = straight([0, 1, 2, 3], RescaleIntercept=intercept, BitsStored=12, PixelRepresentation=signed)
    scan = put_together(files)
    assert scan.voxels.dtype == dtype and scan.voxels[0, 0, 1] == 100 + intercept


def framed(shared: bool) -> tuple[pydicom.Dataset, Pixels]:
    """One file of five frames 4 mm apart; what all have in common is said once, or by each."""
    header, _ = one((0, 0, 0), NumberOfFrames=5)
    common = pydicom.Dataset()
    plane, measures = pydicom.Dataset(), pydicom.Dataset()
    plane.ImageOrientationPatient = header.ImageOrientationPatient
    measures.PixelSpacing = header.PixelSpacing
    common.PlaneOrientationSequence, common.PixelMeasuresSequence = [plane], [measures]
    del header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing
    frames = []
    for number in range(5):
        frame, place = pydicom.Dataset() if shared else copy.deepcopy(common), pydicom.Dataset()
        place.ImagePositionPatient = [10, 20, 4 * number]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    if shared:
        header.SharedFunctionalGroupsSequence = [common]
    header.PerFrameFunctionalGroupsSequence = frames
    values = memoryview(np.arange(5 * ROWS * COLUMNS, dtype="<u2").tobytes())
    return header, Pixels(header, "PixelData", ExplicitVRLittleEndian, values, False)


@pytest.mark.parametrize("shared", [False, True])
def test_frames_say_of_themselves_or_share(shared):
    scan = put_together([framed(shared)])
    assert scan.voxels.shape == (COLUMNS, ROWS, 5) and scan.voxels[2, 1, 3] == 3 * ROWS * COLUMNS + COLUMNS + 2
    np.testing.assert_allclose(scan.affine @ [1, 1, 1, 1], [-13, -22, 4, 1])


@pytest.mark.parametrize("empty", [{"RescaleSlope": None}, {"RescaleSlope": ""}, {}])
def test_a_scale_that_is_not_given_is_one(empty):
    assert put_together(straight([0, 1, 2, 3], RescaleIntercept=5, **empty)).voxels[0, 0, 1] == 105


def test_rows_that_differ_are_no_volume():
    files = straight([0, 4, 8, 12, 16])
    files[4][1].rows -= 1
    with pytest.raises(ScanError, match=f"{ROWS}×{COLUMNS} and of {ROWS - 1}×{COLUMNS}"):
        put_together(files)
