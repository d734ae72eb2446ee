"""Which of several series is read: by rule, with what speaks against the others, or not at all."""

from types import SimpleNamespace

import pydicom

from scans.dicom import choice
from scans.dicom.headers import File


def series(number, count, description="", uid=None, **elements):
    """So many images of one series, 4×6 pixels each."""
    header = pydicom.Dataset()
    header.SeriesNumber, header.SeriesInstanceUID, header.Modality = number, uid or f"1.2.{number}", "MR"
    header.SeriesDescription = description
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    return [(File(header, SimpleNamespace(rows=4, columns=6, frames=1)), (number, n)) for n in range(count)]


def test_what_headers_say_against_a_series():
    """Each against itself; how many images there are is not the headers' to say."""
    (mosaic,) = choice.series_of(choice.grouped(series(1, 3, "3-plane localizer")))
    assert mosaic.why_not == ("localizer", "nothing-says-t1") and mosaic.images == 3
    for expected, elements in [
        ((), {"SeriesDescription": "t1_mprage"}),
        (("modality",), {"Modality": "CT"}),
        (("not-t1",), {"SeriesDescription": "t2_tse"}),
        (("contrast",), {"SeriesDescription": "t1_mprage_GD"}),
        (("derived",), {"SeriesDescription": "t1", "ImageType": ["DERIVED", "SECONDARY"]}),
        (("body-part",), {"SeriesDescription": "t1", "BodyPartExamined": "CSPINE"}),
    ]:
        (one,) = choice.series_of(choice.grouped(series(2, 40, **{"description": "", **elements})))
        assert one.why_not == expected


def test_the_group_of_the_best_is_given():
    groups = choice.grouped([*series(3, 40, "t2_tse"), *series(5, 176, "t1_mprage")])
    group, listed = choice.choose(groups, "a.zip", None)
    assert group is groups["5"] and [one.key for one in listed] == ["3", "5"]
    group, listed = choice.choose({"5": groups["5"]}, "a.zip", None)
    assert group is groups["5"] and listed == ()


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
