"""What a report says of a diagnosis, and what it does not claim."""

import json
from dataclasses import replace

import numpy as np
import pytest

from diagnosis import explain, gate
from networks.header import Header
from reports import content, pdf
from reports.html import html
from reports.wording import Texts
from studies import HEAD
from tests.diagnoses import MADE, Reader


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
