"""Every object belongs to the source's patient and study, and says what made it and that it is for research."""

import io
from dataclasses import replace

import pydicom
import pytest

from archive import base
from archive.results import results, to_bytes
from scans.origin import Source
from scans.scan import ScanError
from tests import dicom_study
from tests.archive.conftest import AT


def read(made: pydicom.Dataset) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(to_bytes(made)))


@pytest.fixture(scope="module")
def made(judged) -> dict[str, pydicom.Dataset]:
    return {kind: read(one) for kind, one in results(judged.diagnosis, judged.heat_map, at=AT).items()}


def test_each_object_is_of_the_sources_patient_and_study(judged, made):
    first = judged.images[0]
    for one in made.values():
        assert one.SpecificCharacterSet == "ISO_IR 192"
        for keyword in (*dicom_study.WHO.keys() - {"SpecificCharacterSet"}, "StudyInstanceUID"):
            assert str(one[keyword].value) == str(first[keyword].value), keyword


def test_each_is_a_new_series_made_by_these_weights_for_research(judged, made):
    numbers = {one.SeriesNumber for one in made.values()}
    assert len(numbers) == len({one.SeriesInstanceUID for one in made.values()}) == len(made)
    known = {image.SOPInstanceUID for image in judged.images} | {judged.images[0].SeriesInstanceUID}
    for one in made.values():
        assert {one.SOPInstanceUID, one.SeriesInstanceUID}.isdisjoint(known)
        assert "research use only" in one.SeriesDescription
        assert one.DeviceSerialNumber == judged.diagnosis.weights.sha256
        assert (one.SeriesDate, one.SeriesTime, one.ContentDate) == ("20260102", "030405", "20260102")


def other_source(judged, **attributes):
    images = dicom_study.instances(**attributes)
    source = judged.diagnosis.scan.source
    header = images[0]
    del header.PixelData
    scan = replace(judged.diagnosis.scan, source=Source(header.to_json_dict(), source.instances))
    return replace(judged.diagnosis, scan=scan)


@pytest.mark.filterwarnings("ignore:.*(PatientID|The value length|Invalid value):UserWarning")
def test_an_identity_that_breaks_the_rules_is_kept_as_it_is(judged):
    odd = {"PatientBirthDate": "1940", "PatientSex": "female", "PatientID": "9" * 70, "PatientName": "no caret"}
    images = dicom_study.instances()
    source = judged.diagnosis.scan.source
    header = images[0]
    del header.PixelData
    attributes = header.to_json_dict()
    for keyword, value in odd.items():
        tag = f"{pydicom.datadict.tag_for_keyword(keyword):08X}"
        attributes[tag]["Value"] = [{"Alphabetic": value} if keyword == "PatientName" else value]
    diagnosis = replace(
        judged.diagnosis, scan=replace(judged.diagnosis.scan, source=Source(attributes, source.instances))
    )
    for one in results(diagnosis, judged.heat_map).values():
        back = read(one)
        assert {keyword: str(back.get(keyword)) for keyword in odd} == odd


@pytest.mark.parametrize(
    "name", ["李^明=李^明", "Ivanov^Ivan=Иванов^Иван", "Yamada^Tarou=山田^太郎=やまだ^たろう"]
)
def test_names_in_other_scripts_come_through(judged, name):
    diagnosis = other_source(judged, PatientName=name, SpecificCharacterSet="ISO_IR 192")
    one = results(diagnosis, None)["report"]
    assert read(one).PatientName == name


def test_what_the_source_does_not_say_is_empty_where_it_must_stand(judged):
    gone = dict.fromkeys(("AccessionNumber", "PatientSex", "PatientAge", "StudyDescription"))
    one = read(results(other_source(judged, **gone), None)["report"])
    assert one.AccessionNumber == "" and not one.PatientSex
    assert "StudyDescription" not in one and "PatientAge" not in one


def test_a_scan_that_was_no_dicom_is_refused_in_words(judged):
    scan = replace(judged.diagnosis.scan, source=None)
    with pytest.raises(ScanError, match=r"series\.zip: no DICOM file, .* give the series") as refused:
        results(replace(judged.diagnosis, scan=scan), None)
    assert refused.value.code == "no-study"


@pytest.mark.parametrize(
    "attributes", [{}, {"0020000D": {"vr": "UI", "Value": [""]}}, {"nonsense": 3}, {"0020000D": {"vr": "??"}}]
)
def test_a_header_that_names_no_study_is_refused_in_words(judged, attributes):
    scan = replace(judged.diagnosis.scan, source=Source(attributes, judged.diagnosis.scan.source.instances))
    with pytest.raises(ScanError, match="names no study"):
        base.source_of(replace(judged.diagnosis, scan=scan))
