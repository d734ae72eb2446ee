"""The report: what it says in both languages, what it must never hold, and that every form of it opens."""

import io
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pypdf import PdfReader

from diagnosis import explain, gate
from diagnosis.diagnoser import Diagnosis
from diagnosis.regions import OUTSIDE, REGIONS
from model import ClassificationModel3D, Weights
from reports import content, figures, pdf
from reports.content import TONES
from reports.figures import WEB, chart, slices
from reports.files import write
from reports.html import html
from scans.prepare import Prepared
from scans.scan import Scan
from studies import HEAD, NOTICE, STUDIES, Contract, Label, Study

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
CHANCES = {"AD": 0.55, "CN": 0.15, "MCI": 0.05, "EMCI": 0.05, "LMCI": 0.2}
HEADER = {
    "title": "A made-up network",
    "training": {"data": "made-up heads", "counts": {"name": "made-up heads", "scans": 99, "people": 88}},
    "scores": {
        "cohort": "made-up test heads",
        "subjects": 77,
        "metrics": {
            "accuracy": {"value": 0.81, "low": 0.7, "high": 0.9},
            "kappa": {"value": None, "low": None, "high": None},
        },
    },
    "calibration": {"temperature": 1.2, "cohort": "made-up heads", "subjects": 41, "scores": [0.1, 0.2]},
}


def head() -> np.ndarray:
    """Half a head is brighter: x grows to the patient's right, and the right half is the bright one."""
    x, y, z = np.ogrid[:166, :256, :256]
    egg = ((x - 82) * 1.2 / 75) ** 2 + ((y - 127) / 90) ** 2 + ((z - 140) / 80) ** 2 < 1
    return np.where(egg, np.where(x > 82, 2.0, 1.0), -1.0).astype(np.float32)


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    study, voxels = STUDIES["alzheimers"], head()
    network = ClassificationModel3D()
    weights = Weights("made.safetensors", "ab" * 32, HEADER, study, network, torch.device("cpu"))
    affine = np.diag([1.2, 1, 1, 1.0])
    facts = {
        "format": "NIfTI",
        "shape": [166, 256, 256],
        "spacing": [1.2, 1.0, 1.0],
        "orientation": "RAS",
        "affine_known": True,
    }
    scan = Scan(voxels, affine, "volume", facts)
    prepared = Prepared(torch.from_numpy(voxels)[None], np.eye(4), torch.from_numpy(voxels > 0), affine, [], facts)
    findings = (gate.Finding(gate.DOUBTFUL, "no-affine"),)
    return Diagnosis(
        file="head <b>1</b>.nii.gz",
        weights=weights,
        label="AD",
        probabilities=CHANCES,
        set=["AD", "LMCI"],
        level=0.9,
        findings=findings,
        judged_anyway=False,
        seconds={"read": 0.25, "predict": 0.5},
        scan=scan,
        prepared=prepared,
    )


@pytest.fixture(scope="module")
def found() -> explain.Map:
    x, y, z = np.ogrid[:166, :256, :256]
    values = np.exp(-(((x - 110) * 1.2) ** 2 + (y - 120) ** 2 + (z - 120) ** 2) / 200).astype(np.float32)
    return explain.Map(values, "relevance", "AD", 2.5, 0.25)


# --- texts ------------------------------------------------------------------------------------------------


def test_both_languages_have_every_text_with_the_same_blanks():
    table = json.loads((WEB / "report.json").read_text(encoding="utf-8"))
    assert set(table) == {"en", "zh"}
    assert set(table["en"]) == set(table["zh"])
    for key, text in table["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", table["zh"][key])), key


def test_every_text_that_the_code_asks_for_is_there():
    say = figures.texts("zh")
    regions = {name for name, *_ in REGIONS} | {OUTSIDE}
    wanted = {f"region.{name}" for name in regions} | {f"method.{name}" for name in explain.METHODS}
    wanted |= {f"verdict.{verdict}" for verdict in TONES} | {"notice"}
    wanted |= {"warning.mostly-outside", "warning.empty"}
    code = "".join(path.read_text(encoding="utf-8") for path in Path(figures.__file__).parent.glob("*.py"))
    wanted |= set(re.findall(r'say\["([^"{]+)"\]', code))
    assert wanted <= set(say)
    for code, reason in gate.REASONS.items():  # a reason without a translation is told in English
        blanks = set(re.findall(r"\{(\w+)", say.get(f"reason.{code}", "")))
        assert blanks <= set(re.findall(r"\{(\w+)", reason)), code


# --- what it says -----------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """The text of a page, and every address that it names."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.addresses, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        naming = ("src", "href", "action", "data", "srcset")
        self.addresses += [value for name, value in attributes if name in naming]

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data + "\n"

    def handle_endtag(self, tag):
        self.open = self.open[: len(self.open) - 1 - self.open[::-1].index(tag)]


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
        "55.0% probability",
        "made-up heads",
        gate.REASONS["no-affine"],
        "AD or LMCI (90% coverage on the calibration cohort)",
        "0.81 (0.70 to 0.90)",
        "77 subjects",
        "41 validation subjects",
        "“made-up heads”: 99 scans of 88 subjects",
        "abababab",
        HEAD.hash(),
        "2026-01-02 03:04 UTC",
        "0.75 s",
        "25% of the score",
        NOTICE,
        "A made-up network",
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
        "概率 55.0%",
        "AD 或 LMCI （在校准队列上的覆盖率为 90%）",
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


def test_a_scan_that_cannot_be_judged_gets_no_class_and_no_chart(diagnosis):
    unfit = replace(
        diagnosis, label=None, probabilities=None, set=None, findings=(gate.Finding(gate.UNFIT, "no-affine"),)
    )
    kinds = [block.kind for block in content.content(unfit, None, "en", MADE)]
    assert "chart" not in kinds and "planes" in kinds
    assert "this scan cannot be judged" in Reader(html(unfit, None, "en", MADE)).text
    assert pdf.pdf(unfit, None, "en", MADE).startswith(b"%PDF")


def test_weights_without_scores_say_so(diagnosis):
    bare = replace(diagnosis, weights=replace(diagnosis.weights, header={}))
    text = Reader(html(bare, None, "en", MADE)).text
    assert "None measured" in text and "the set promises nothing" in text
    assert "AD or LMCI (not calibrated, so no coverage is promised)" in text


def test_intervals_stand_on_the_bars_in_numbers_and_words(diagnosis, found):
    asked = replace(diagnosis, intervals={code: (value / 2, value + 0.1) for code, value in CHANCES.items()})
    text = html(asked, found, "en", MADE)
    page = Reader(text)
    assert "27.5%–65.0%" in page.text and "5th to 95th percentile of 20 passes" in page.text
    assert "margin-left: 27.5%; width: 37.5%" in text
    assert "percentile" not in Reader(html(diagnosis, found, "en", MADE)).text
    assert "第 5 至第 95 百分位" in Reader(html(asked, found, "zh", MADE)).text
    pages = PdfReader(io.BytesIO(pdf.pdf(asked, found, "en", MADE))).pages
    assert len(pages) == 3 and "27.5%" in pages[0].extract_text()
    assert content.data(asked, found, "en", MADE)["intervals"]["AD"] == [0.275, pytest.approx(0.65)]
    plain, lined = (np.asarray(Image.open(io.BytesIO(chart(one))).convert("L"), int) for one in (diagnosis, asked))
    assert (lined < 100).sum() > (plain < 100).sum()


def test_a_map_outside_the_brain_is_warned_of(diagnosis):
    values = np.zeros(HEAD.shape, np.float32)
    values[:10, :10, :10] = 1
    outside = explain.Map(values, "grad-cam", "AD", 1.0)
    assert "lies outside the brain" in Reader(html(diagnosis, outside, "en", MADE)).text


def test_user_text_is_escaped(diagnosis):
    text = html(diagnosis, None, "en", MADE)
    assert "<b>" not in text and "head &lt;b&gt;1&lt;/b&gt;.nii.gz" in text


def test_data_is_the_record_and_the_map_in_numbers(diagnosis, found):
    told = json.loads(json.dumps(content.data(diagnosis, found, "en", MADE)))
    assert {key: told[key] for key in diagnosis.record()} == json.loads(json.dumps(diagnosis.record()))
    assert told["map"]["method"] == "relevance" and told["map"]["code"] == "AD"
    assert sum(told["map"]["regions"].values()) == pytest.approx(1)
    assert told["made"] == "2026-01-02T03:04:00+00:00"


# --- pictures ---------------------------------------------------------------------------------------------


def test_right_is_on_the_left_and_front_on_top(diagnosis):
    axial, coronal, sagittal = figures.planes(diagnosis, None)
    for plane in (axial, coronal):
        columns = plane.grey.shape[1]
        left, right = plane.grey[:, : columns // 2], plane.grey[:, columns // 2 :]
        assert left.mean() / right.mean() == pytest.approx(3 / 2, abs=0.05)  # 2 against 1, above air at −1
        assert plane.sides == ("R", "L")
    assert sagittal.sides == ("A", "P")


def test_planes_run_through_the_strongest_place(diagnosis, found):
    axial, coronal, sagittal = figures.planes(diagnosis, found)
    # the box about the head starts 8 voxels before it: x 20…145, y 37…217, z 60…220
    row, column = ((axial.heat * grid).sum() / axial.heat.sum() for grid in np.indices(axial.heat.shape))
    right, front = 144 + 8 - column, 216 + 8 - row
    assert abs(right - 110) <= 1 and abs(front - 120) <= 1
    for plane in (axial, coronal, sagittal):
        assert plane.heat.max() > 0.9


def test_sides_are_not_claimed_without_an_affine(diagnosis):
    unsure = replace(diagnosis, prepared=replace(diagnosis.prepared, notes=["no-affine"]))
    assert all(plane.sides == ("", "") for plane in figures.planes(unsure, None))
    assert "no sides are marked" in Reader(html(unsure, None, "en", MADE)).text


def test_slices_and_chart_are_pictures(diagnosis, found):
    plain, mapped, bars = (
        Image.open(io.BytesIO(part)) for part in (slices(diagnosis), slices(diagnosis, found), chart(diagnosis))
    )
    assert plain.format == "PNG" and mapped.height == pytest.approx(2 * plain.height, abs=2)
    colours = np.asarray(mapped.convert("RGB"), int)
    assert (np.ptp(colours[: mapped.height // 2], axis=2) < 8).all()  # above, the scan in grey alone
    assert (np.ptp(colours[mapped.height // 2 :], axis=2) > 80).any()  # below, the map in colour
    assert bars.width > 300


def test_an_image_study_has_one_picture_and_no_sides():
    contract = Contract(kind="image", shape=(60, 80), channels=3)
    labels = (Label("no", "nothing"), Label("yes", "something"))
    study = Study("made", "Made up", "?", labels, contract, "X", ("X",), "A test.")
    weights = Weights("made.safetensors", "0" * 64, {}, study, torch.nn.Identity(), torch.device("cpu"))
    tensor = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))
    prepared = Prepared(tensor, np.eye(4), torch.ones(60, 80, dtype=torch.bool), np.eye(4), [], {})
    scan = Scan(tensor[0].numpy(), np.eye(4), "image", {"format": "PNG", "shape": [60, 80]})
    made = Diagnosis(
        file="x.png",
        weights=weights,
        label="yes",
        probabilities={"no": 0.3, "yes": 0.7},
        set=["yes"],
        level=0.9,
        findings=(),
        judged_anyway=False,
        seconds={"predict": 0.1},
        scan=scan,
        prepared=prepared,
    )
    values = np.zeros((60, 80), np.float32)
    values[10:20, 60:70] = 1
    found = explain.Map(values, "grad-cam", "yes", 1.0)
    [plane] = figures.planes(made, found)
    assert plane.sides == ("", "") and plane.heat[15, 65] == 1
    text = Reader(html(made, found, "en", MADE)).text
    assert "Radiological" not in text and "hippocampal" not in text and "Expected severity" not in text
    assert len(PdfReader(io.BytesIO(pdf.pdf(made, found, "en", MADE))).pages) == 3


# --- PDF and files ----------------------------------------------------------------------------------------


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


def test_write_leaves_four_files_and_no_path_in_them(diagnosis, found, tmp_path):
    named = replace(diagnosis, file="head.nii.gz")
    paths = write(named, found, tmp_path / "secret-folder" / "reports", "en")
    assert [path.suffix for path in paths] == [".html", ".pdf", ".json", ".png"]
    assert {path.name.removesuffix(path.suffix) for path in paths} == {"head.nii.gz"}
    pdf = PdfReader(paths[1])
    texts = [path.read_bytes() for path in paths] + [page.extract_text().encode() for page in pdf.pages]
    assert all(b"secret-folder" not in text for text in [*texts, str(pdf.metadata).encode()])
    assert json.loads(paths[2].read_text())["label"] == "AD"


def test_a_second_scan_of_a_name_gets_a_number(diagnosis, tmp_path):
    named = replace(diagnosis, file="head.nii.gz")
    first = write(named, None, tmp_path)
    before = [path.read_bytes() for path in first]
    second = write(named, None, tmp_path, "zh")
    assert [path.name for path in second] == [f"head.nii.gz-2{path.suffix}" for path in first]
    assert [path.read_bytes() for path in first] == before
    second[1].unlink()  # half a report is still somebody's
    assert write(named, None, tmp_path)[0].name == "head.nii.gz-3.html"
