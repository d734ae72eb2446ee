"""The report as one HTML file that asks for nothing, in two languages."""

import io
import re
from dataclasses import replace

import pytest
from pypdf import PdfReader

from diagnosis import gate
from reports import content, pdf
from reports.html import html
from studies import HEAD, NOTICE, STUDIES
from tests.diagnoses import CHANCES, MADE, Reader


def test_html_is_one_file_that_asks_for_nothing(diagnosis, found):
    text = html(diagnosis, found, "en", MADE)
    page = Reader(text)
    assert page.addresses and all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"@import|url\(|<script|https?://", text)
    assert 'class="sheet"' in text and "@page { size: A4" in text


def test_english_report_says_what_was_found(diagnosis, found):
    page = Reader(html(diagnosis, found, "en", MADE))
    for words in (
        "Alzheimer's disease (AD)",
        "55.0 % probability",
        "made-up heads",
        gate.REASONS["no-affine"],
        "AD or LMCI (90 % coverage on the calibration cohort)",
        "0.81 (0.70–0.90)",
        "77 subjects",
        "41 validation subjects",
        "“made-up heads”: 99 scans of 88 subjects",
        "abababab",
        HEAD.hash(),
        "2026-01-02 03:04 UTC",
        "0.75 s",
        "25 % of the score",
        NOTICE,
        "A made-up network",
        STUDIES["alzheimers"].question,
    ):
        assert words in page.text, words
    # 1·0.55 + 0·0.15 + 0.5·0.05 + 0.25·0.05 + 0.75·0.2
    assert "0.74" in page.text
    assert "kappa" not in page.text  # it has no value


def test_chinese_report_is_in_chinese(diagnosis, found):
    text = html(diagnosis, found, "zh", MADE)
    page = Reader(text)
    assert '<html lang="zh-CN">' in text
    for words in (
        "阿尔茨海默病 (AD)",
        "概率 55.0 %",
        "AD 或 LMCI （在校准队列上的覆盖率为 90 %）",
        "准确率",
        "仅供研究使用",
        "文件没有方向信息",
        "右侧海马区",
        "88 名受试者的 99 份影像",
    ):
        assert words in page.text, words
    assert NOTICE not in page.text


def test_unknown_language_gets_english(diagnosis):
    assert "Scanwise report" in html(diagnosis, None, "fr", MADE)


def test_intervals_stand_on_the_bars_in_numbers_and_words(diagnosis, found):
    asked = replace(diagnosis, intervals={code: (value / 2, value + 0.1) for code, value in CHANCES.items()})
    text = html(asked, found, "en", MADE)
    page = Reader(text)
    assert "27.5–65.0 %" in page.text and "5th to 95th percentile of 20 passes" in page.text
    assert "margin-left: 27.50%; width: 37.50%" in text
    assert "percentile" not in Reader(html(diagnosis, found, "en", MADE)).text
    assert "第 5 至第 95 百分位" in Reader(html(asked, found, "zh", MADE)).text
    pages = PdfReader(io.BytesIO(pdf.pdf(asked, found, "en", MADE))).pages
    assert len(pages) == 2 and "27.5–65.0 %" in pages[0].extract_text()
    assert content.data(asked, found, "en", MADE)["intervals"]["AD"] == [0.275, pytest.approx(0.65)]


def test_user_text_is_escaped(diagnosis):
    text = html(diagnosis, None, "en", MADE)
    assert "<b>" not in text and "head &lt;b&gt;1&lt;/b&gt;.nii.gz" in text


def test_measures_stand_in_a_table_beside_the_cuts(measured, found):
    text = html(measured, found, "en", MADE)
    page = Reader(text)
    wide = 16 * 40 * 10 * 1.2 / 1000  # ml of the right hippocampus, 12/16 of it the left one
    for words in (
        "Hippocampi", f"{wide:.2f}", f"{0.75 * wide:.2f}", f"{1.75 * wide:.2f}", "bleeds, white-matter lesions",
        "Global cortical atrophy (0–3), computed", "No norms are loaded", "Inferior horn", "cdcdcdcd",
    ):  # fmt: skip
        assert words in page.text, words
    assert len(page.addresses) == 2 and all(address.startswith("data:image/png") for address in page.addresses)
    assert "海马" in Reader(html(measured, found, "zh", MADE)).text
    assert "Measured" not in Reader(html(replace(measured, measures=None), found, "en", MADE)).text
