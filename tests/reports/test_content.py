"""What a report says of a diagnosis, and what it does not claim."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pypdf import PdfReader

from diagnosis import gate
from diagnosis.anatomy import norms
from diagnosis.anatomy.norms import Person
from diagnosis.maps import explain
from networks.header import Header
from reports import content, pdf
from reports.html import html
from reports.wording import Texts
from studies import HEAD
from tests.diagnoses import MADE, Reader
from tests.norms import LAWFUL, SEGMENTER, made, written


def test_a_scan_that_cannot_be_judged_gets_no_class_and_no_chart(diagnosis):
    unfit = replace(
        diagnosis, label=None, probabilities=None, set=None, findings=(gate.Finding(gate.UNFIT, "no-affine"),)
    )
    kinds = [block.kind for block in content.content(unfit, None, Texts("en"), MADE)]
    assert "chart" not in kinds and "planes" in kinds
    assert "This scan cannot be judged" in Reader(html(unfit, None, "en", MADE)).text
    assert pdf.pdf(unfit, None, "en", MADE).startswith(b"%PDF")


def test_weights_without_scores_say_so(diagnosis):
    bare = replace(diagnosis, weights=replace(diagnosis.weights, header=Header(diagnosis.weights.study, "made")))
    text = Reader(html(bare, None, "en", MADE)).text
    assert "no measured score" in text and "the set promises nothing" in text
    assert "AD or LMCI (not calibrated, so no coverage is promised)" in text


def test_a_map_outside_the_brain_is_warned_of(diagnosis):
    values = np.zeros(HEAD.shape, np.float32)
    values[:10, :10, :10] = 1
    outside = explain.Map(values, "grad-cam", "AD", 1.0)
    assert "lies outside the brain" in Reader(html(diagnosis, outside, "en", MADE)).text


def test_data_is_the_record_and_the_map_in_numbers(diagnosis, found):
    told = json.loads(json.dumps(content.data(diagnosis, found, "en", MADE)))
    assert {key: told[key] for key in diagnosis.record()} == json.loads(json.dumps(diagnosis.record()))
    assert told["map"]["method"] == "relevance" and told["map"]["code"] == "AD"
    assert sum(told["map"]["regions"].values()) == pytest.approx(1)
    assert told["made"] == "2026-01-02T03:04:00+00:00"


def test_the_curves_stand_in_the_report_where_an_age_of_the_controls_was_told(measured, found, tmp_path):
    known = norms.load(written(tmp_path, made(LAWFUL)), SEGMENTER)
    who = Person(70, "F")
    told = replace(measured, measures=known.placed(measured.measures, who), norms=known, person=who)
    t = Texts("en")
    for asked, there in ((told, True), (replace(told, person=Person(30)), False), (measured, False)):
        blocks = content.content(asked, found, t, MADE)
        assert any(block.kind == "curves" for block in blocks) == there
        assert (html(asked, found, "en", MADE).count('<svg class="curves"') == 4) == there
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf.pdf(told, found, "en", MADE))).pages)
    assert t("curves.heading") in text and "at 70 years (women)" in text.replace("\n", " ")
    (curves,) = (block for block in content.content(told, found, t, MADE) if block.kind == "curves")
    titles, centiles = zip(*curves.rows, strict=True)
    assert titles[0] == "Brain, of the volume inside the skull, %" and all(centiles)
