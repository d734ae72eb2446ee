"""Which of several series is read: by rule, with what speaks against the others, or not at all."""

from types import SimpleNamespace

import pydicom
import pytest

from scans.dicom import choice
from scans.dicom.headers import File
from scans.scan import ScanError


def series(number, count, description="", uid=None, **elements):
    """So many images of one series, 4×6 pixels each."""
    header = pydicom.Dataset()
    header.SeriesNumber, header.SeriesInstanceUID, header.Modality = number, uid or f"1.2.{number}", "MR"
    header.SeriesDescription = description
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    return [(File(header, SimpleNamespace(rows=4, columns=6, frames=1)), (number, n)) for n in range(count)]


def chosen(*parts, asked=None):
    group, listed = choice.choose(choice.grouped([one for part in parts for one in part]), "a.zip", asked)
    return group.places[0][0], {one.key: one.why_not for one in listed}


T1, T2 = series(5, 176, "t1_mprage"), series(3, 40, "t2_tse")


def test_the_t1_is_taken_and_the_others_are_told_why_not():
    number, reasons = chosen(
        T2,
        series(1, 30, "localizer"),
        series(7, 176, "t1_mprage_GD"),
        series(8, 60, "MPR t1", ImageType=["DERIVED", "SECONDARY"]),
        series(9, 90, "t1", BodyPartExamined="CSPINE"),
        series(4, 12, "t1 cor"),
        series(2, 200, "", Modality="CT"),
        T1,
    )
    assert number == 5
    assert reasons == {
        "1": ("localizer", "nothing-says-t1"),
        "2": ("modality",),
        "3": ("not-t1",),
        "4": ("few-planes",),
        "5": (),
        "7": ("contrast",),
        "8": ("derived",),
        "9": ("body-part",),
    }


def test_three_dimensions_before_many_planes():
    number, reasons = chosen(series(2, 200, "t1_se"), series(3, 160, "t1", MRAcquisitionType="3D"))
    assert number == 3 and reasons == {"2": ("second",), "3": ()}


def test_with_a_contrast_agent_rather_than_none():
    assert chosen(series(2, 160, "t1 post"), T2)[0] == 2


def test_the_only_one_that_could_be():
    assert chosen(series(6, 100), T2)[0] == 6


def test_the_only_one_is_read_whatever_it_is():
    assert chosen(series(2, 3, "localizer")) == (2, {})


def test_without_evidence_none_is_taken():
    with pytest.raises(ScanError) as refused:
        chosen(series(12, 20), series(3, 50), series(11, 40))
    assert refused.value.code == "several-series"
    assert "3 series in it (3: 50 images 4×6 MR; 11: 40 images 4×6 MR; 12: 20 images 4×6 MR)" in str(refused.value)


def test_any_can_be_asked_for():
    assert chosen(T1, T2, asked="3")[0] == 3
    with pytest.raises(ScanError, match=r"no series 4 in it \(3: 40 images 4×6 MR T2; 5: 176"):
        chosen(T1, T2, asked="4")


def test_one_number_twice():
    two = choice.grouped([*series(3, 20, uid="1.9"), *series(3, 30, uid="1.5")])
    assert {key: group.images for key, group in two.items()} == {"3": 30, "3-2": 20}


def test_the_image_in_the_middle():
    images = []
    for number in (4, 0, 3, 1, 2):
        ((file, _),) = series(
            1, 1, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, number]
        )
        images.append((file, number))
    assert choice.grouped(images)["1"].middle == 2


def test_a_damaged_header_is_no_evidence():
    header = pydicom.Dataset()
    header.add_new("ImagePositionPatient", "DS", "")
    assert choice.height(header) == 0
