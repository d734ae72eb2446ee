"""The PDF comes out as it went in; the capture shows the planes, the answer and what it is not for."""

import io
import subprocess

import numpy as np
import pydicom
import pytest
from PIL import Image
from pypdf import PdfReader

from archive import documents
from archive.results import to_bytes
from reports.figures import picture, planes
from reports.pdf import pdf
from tests import orthanc
from tests.archive.conftest import AT


@pytest.fixture(scope="module")
def encapsulated(judged) -> pydicom.Dataset:
    made = documents.encapsulated_pdf(judged.diagnosis, judged.heat_map, "en", AT)
    return pydicom.dcmread(io.BytesIO(to_bytes(made)))


def same(judged) -> bytes:
    return pdf(judged.diagnosis, judged.heat_map, "en", AT)


def test_the_pdf_is_the_report_and_tells_its_own_length(judged, encapsulated):
    body = encapsulated.EncapsulatedDocument
    assert len(body) == encapsulated.EncapsulatedDocumentLength and len(body) % 2 == 0
    assert body.rstrip(b"\n") == same(judged).rstrip(b"\n")
    assert encapsulated.MIMETypeOfEncapsulatedDocument == "application/pdf"
    pages = PdfReader(io.BytesIO(body)).pages
    assert "Research use only" in pages[0].extract_text()
    named = {item.ReferencedSOPInstanceUID for item in encapsulated.SourceInstanceSequence}
    assert named == {image.SOPInstanceUID for image in judged.images}


@pytest.mark.parametrize("length", [6, 7])
def test_an_odd_pdf_ends_with_one_more_line(judged, monkeypatch, length):
    monkeypatch.setattr(documents, "pdf", lambda *rest: b"x" * length)
    body = documents.encapsulated_pdf(judged.diagnosis, None, "en", AT).EncapsulatedDocument
    assert body == b"x" * length + b"\n" * (length % 2)


def test_dcmtk_takes_the_pdf_out_byte_for_byte(encapsulated, tmp_path):
    program = orthanc.tool("dcm2pdf")
    encapsulated.save_as(tmp_path / "x.dcm")
    subprocess.run([program, tmp_path / "x.dcm", tmp_path / "x.pdf"], check=True, capture_output=True)
    assert (tmp_path / "x.pdf").read_bytes() == encapsulated.EncapsulatedDocument


def test_the_capture_shows_the_planes_above_the_words(judged):
    made = documents.capture(judged.diagnosis, judged.heat_map, AT)
    shown = pydicom.dcmread(io.BytesIO(to_bytes(made)))
    pixels = shown.pixel_array
    drawn = np.asarray(picture(planes(judged.diagnosis, judged.heat_map)))
    assert shown.PhotometricInterpretation == "RGB" and pixels.shape[1:] == drawn.shape[1:]
    assert np.array_equal(pixels[: len(drawn)], drawn)
    assert pixels[len(drawn) :].max() > 200  # the words
    assert shown.BurnedInAnnotation == "NO" and not shown.PatientOrientation


def test_the_words_below_name_answer_and_notice(judged, monkeypatch):
    written = []
    plain = documents.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        documents.ImageDraw.ImageDraw,
        "text",
        lambda pen, at, text, **rest: (written.append(text), plain(pen, at, text, **rest)),
    )
    documents.with_words(Image.new("RGB", (600, 40)), judged.diagnosis)
    assert judged.diagnosis.label in written[0] and "cannot be judged" in written[0]
    assert "Research use only" in written[1]
