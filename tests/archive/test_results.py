"""All objects of a diagnosis, and the ways they are handed over: files, a zip, a multipart body."""

import email
import io
import subprocess
import zipfile
from dataclasses import replace

import pydicom
import pytest

from archive import results as handed
from archive.volumes import outlines
from tests.archive.conftest import AT
from tests.orthanc import tool

CLASSES = {
    "report": "1.2.840.10008.5.1.4.1.1.88.34",
    "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "picture": "1.2.840.10008.5.1.4.1.1.7",
    "map": "1.2.840.10008.5.1.4.1.1.30",
}


@pytest.fixture(scope="module")
def made(judged) -> dict[str, pydicom.Dataset]:
    return handed.results(judged.diagnosis, judged.heat_map, at=AT)


def test_a_volume_gets_a_report_a_pdf_a_picture_and_a_map(made):
    assert {kind: one.SOPClassUID for kind, one in made.items()} == CLASSES


def test_what_has_no_class_gets_no_map(judged):
    assert set(handed.results(judged.diagnosis, None)) == {"report", "pdf", "picture"}


def test_files_bear_the_scans_name_and_none_is_written_over(made, tmp_path):
    first, second = (handed.write(made, tmp_path / "new", "scan.zip") for _ in range(2))
    assert sorted(path.name for path in first) == [f"scan.zip.{kind}.dcm" for kind in sorted(CLASSES)]
    assert {path.name.split(".")[0] for path in second} == {"scan"} and not set(first) & set(second)
    for path in first:
        kind = path.name.split(".")[-2]
        assert pydicom.dcmread(path).file_meta.MediaStorageSOPClassUID == CLASSES[kind]


def test_the_zip_holds_them_all(made):
    with zipfile.ZipFile(io.BytesIO(handed.zipped(made))) as archive:
        found = {name: pydicom.dcmread(io.BytesIO(archive.read(name))).SOPClassUID for name in archive.namelist()}
    assert found == {f"scanwise.{kind}.dcm": uid for kind, uid in CLASSES.items()}


def test_the_multipart_body_is_one_that_mail_readers_take_apart(made):
    kind, body = handed.multipart(made)
    whole = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = whole.get_payload()
    assert whole.get_content_type() == "multipart/related" and whole.get_param("type") == "application/dicom"
    found = [pydicom.dcmread(io.BytesIO(part.get_payload(decode=True))).SOPClassUID for part in parts]
    assert found == list(CLASSES.values())
    assert {part.get_content_type() for part in parts} == {"application/dicom"}


def test_a_dicom_picture_gets_what_needs_no_place_in_space(judged):
    scan = replace(judged.diagnosis.scan, facts=judged.diagnosis.scan.facts | {"affine_known": False})
    found = handed.results(replace(judged.diagnosis, scan=scan), judged.heat_map)
    assert set(found) == {"report", "pdf", "picture"}


# What the validator warns of in valid objects: it knows neither our private coding scheme nor QUANTITY, which
# highdicom has among the derived pixel contrasts; where a source names no body part, its side is unknown indeed.
HARMLESS = (
    "<99SCANWISE> for value 1 of attribute <Coding Scheme Designator>",
    "defined term <QUANTITY> for value 4",
    "is only permitted to be empty when actually unknown",
)


@pytest.mark.parametrize("kind", [*CLASSES, "outlines"])
def test_the_validator_of_dicom3tools_finds_nothing_wrong(made, outlined, tmp_path, kind):
    path = tmp_path / "one.dcm"
    path.write_bytes(handed.to_bytes(outlines(outlined, AT) if kind == "outlines" else made[kind]))
    told = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in (told.stdout + told.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    assert [line for line in said if not any(words in line for words in HARMLESS)] == []
