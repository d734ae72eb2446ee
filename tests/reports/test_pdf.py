"""The report as PDF: the same words, in a font that has them."""

import io

import pytest
from pypdf import PdfReader

from reports import figures, pdf
from reports.figures import chart
from studies import NOTICE
from tests.diagnoses import MADE


def test_pdf_says_the_same_with_the_notice_on_every_page(diagnosis, found):
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, found, "en", MADE))).pages
    assert len(pages) == 3
    for number, page in enumerate(pages, 1):
        text = page.extract_text()
        assert NOTICE in text and f"Page {number} of 3" in text
        assert (round(float(page.mediabox.width)), round(float(page.mediabox.height))) == (595, 842)  # A4
    first = pages[0].extract_text()
    assert "Alzheimer's disease (AD)" in first and "55.0% probability" in first


def test_pdf_is_english_and_says_so_where_no_chinese_font_is(diagnosis, monkeypatch):
    english = figures.font_for("en")
    for module in (pdf, figures):
        monkeypatch.setattr(module, "font_for", lambda language: english if language == "en" else None)
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, None, "zh", MADE))).pages
    assert "No Chinese font is installed here" in pages[0].extract_text()
    assert NOTICE in pages[0].extract_text()
    assert chart(diagnosis, "zh").startswith(b"\x89PNG")


def test_pdf_in_chinese_where_a_font_is_installed(diagnosis, found):
    if figures.font_for("zh") is None:
        pytest.skip("no Chinese font is installed on this machine")
    pages = PdfReader(io.BytesIO(pdf.pdf(diagnosis, found, "zh", MADE))).pages
    assert len(pages) == 3
    assert all("No Chinese font" not in page.extract_text() for page in pages)


def test_letters_that_no_font_has_become_question_marks():
    assert figures.printable("a\U0001f9e0b", figures.font_for("en")) == "a?b"


def test_lines_are_broken_where_they_may_be():
    font, long = figures.font_for("en"), "a_very_long_name_without_any_break_" + "x" * 60
    assert pdf.wrap("some short words", 200, 10, font) == ["some short words"]
    assert pdf.wrap("some short words", 70, 10, font) == ["some short", "words"]
    lines = pdf.wrap(f"words and {long}", 120, 10, font)
    assert len(lines) > 3 and "".join(lines).replace(" ", "") == f"wordsand{long}"
