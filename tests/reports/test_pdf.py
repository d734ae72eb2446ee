"""The report as PDF: the same words, in a font that has them."""

import io
import re
from dataclasses import replace

import pytest
from pypdf import PdfReader

from diagnosis import gate
from reports import fonts, pdf
from studies import NOTICE
from tests.diagnoses import MADE


def test_pdf_says_the_same_with_the_notice_on_every_page(diagnosis, found):
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, found, "en", MADE))).pages
    assert len(pages) == 2
    for number, page in enumerate(pages, 1):
        text = page.extract_text()
        assert NOTICE in text and f"Page {number} of 2" in text
        assert (round(float(page.mediabox.width)), round(float(page.mediabox.height))) == (595, 842)  # A4
    first = pages[0].extract_text()
    assert "Alzheimer's disease (AD)" in first and "55.0 % probability" in first


def test_pdf_is_english_and_says_so_where_no_chinese_font_is(diagnosis, monkeypatch):
    english = fonts.font_for("en")
    monkeypatch.setattr(pdf, "font_for", lambda language: english if language == "en" else None)
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, None, "zh", MADE))).pages
    assert "No font for this language is installed here" in pages[0].extract_text()
    assert NOTICE in pages[0].extract_text()


def test_pdf_in_chinese_where_a_font_is_installed(diagnosis, found):
    if fonts.font_for("zh") is None:  # a font is the system's to bring; without one the test above holds
        pytest.skip("no Chinese font is installed on this machine")
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, found, "zh", MADE))).pages
    assert len(pages) == 2
    assert all("No font" not in page.extract_text() for page in pages)
    letters = re.sub(r"[\0\s]", "", pages[0].extract_text())  # some fonts have wide codes, which pypdf splits
    assert "阿尔茨海默病" in letters


def test_letters_that_no_font_has_become_question_marks(diagnosis):
    odd = replace(diagnosis, file="a\U0001f9e0b.nii")
    assert "a?b.nii" in PdfReader(io.BytesIO(pdf.pdf(odd, None, "en", MADE))).pages[0].extract_text()


def test_a_name_without_a_break_stays_on_the_page(diagnosis):
    long = replace(diagnosis, file="a_very_long_name_without_any_break_" + "x" * 100 + ".nii")
    text = PdfReader(io.BytesIO(pdf.pdf(long, None, "en", MADE))).pages[0].extract_text()
    lines = text[text.index("a_very") : text.index(".nii") + 4].split("\n")
    assert len(lines) > 1 and "".join(lines) == long.file


@pytest.mark.parametrize("reasons", [0, 2])
def test_the_first_page_holds_answer_gate_pictures_and_measures(measured, found, reasons):
    findings = (gate.Finding(gate.DOUBTFUL, "no-affine"),) * reasons
    pages = PdfReader(io.BytesIO(pdf.pdf(replace(measured, findings=findings), found, "en", MADE))).pages
    assert len(pages) == 3
    first = pages[0].extract_text()
    for words in (
        "55.0 % probability",
        "Fit to be judged?",
        "coronal cuts",
        "Hippocampi",
        "Not assessed",
        "No norms",
    ):
        assert words in first, words
    assert len(pages[0].images) == 1 and len(pages[1].images) == 1
    assert "made.safetensors  sha256 cdcdcdcd" in pages[2].extract_text()
