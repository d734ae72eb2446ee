"""Measures of heads built of boxes: every number has a closed form."""

import numpy as np
import pytest
import torch

from diagnosis.anatomy import measures
from diagnosis.anatomy.measures import MEASURES, measure
from diagnosis.anatomy.segment import SHAPE
from networks.segmenter import CLASSES
from studies import HEAD
from tests import support

CELL = np.prod(HEAD.spacing) / 1000  # ml


def boxes(**changes):
    """A brain of a box inside a box of fluid; left structures may be given other sizes than right ones."""
    classes = np.zeros(SHAPE, np.uint8)

    def put(name, x, y, z):
        classes[slice(*x), slice(*y), slice(*z)] = CLASSES.index(name)

    put("fluid", (20, 124), (20, 190), (20, 150))
    put("grey", (24, 120), (24, 186), (24, 146))
    put("lateral", (54, 90), (100, 150), (80, 100))
    put("third", (70, 74), (100, 120), (60, 80))
    for name, y, z in (("hippocampus", (80, 110), (50, 60)), ("inferior_horn", (80, 110), (60, 62))):
        put(name, changes.get(f"{name}_left", (34, 46)), y, z)
        put(name, (98, 110), y, z)
    return support.segmentation_of(classes, plane=(72.0, 0.0, 0.0))


def test_volumes_shares_and_sides_have_their_closed_forms():
    found = measure(boxes(hippocampus_left=(34, 43)))
    assert found["hippocampus_left"].value == pytest.approx(9 * 30 * 10 * CELL, rel=1e-3)
    assert found["hippocampus_right"].value == pytest.approx(12 * 30 * 10 * CELL, rel=1e-3)
    assert found["hippocampus_asymmetry"].value == pytest.approx(200 * (9 - 12) / (9 + 12), rel=1e-3)
    inside = 104 * 170 * 130 * CELL
    assert found["intracranial"].value == pytest.approx(inside, rel=1e-3)
    ventricles = (36 * 50 * 20 + 4 * 20 * 20 + 2 * 12 * 30 * 2) * CELL
    assert found["ventricles"].value == pytest.approx(ventricles, rel=1e-3)
    assert found["ventricles_share"].value == pytest.approx(100 * ventricles / inside, rel=1e-3)
    assert found["brain"].value == pytest.approx(
        inside - ventricles - (104 * 170 * 130 - 96 * 162 * 122) * CELL, rel=1e-3
    )


def test_indices_have_their_closed_forms():
    found = measure(boxes())
    assert found["evans"].value == pytest.approx(36 / 104, rel=1e-3)
    assert found["occupancy_left"].value == pytest.approx(10 / 12, rel=1e-3)
    assert found["mta_left"].value == pytest.approx(1 + (0.85 - 10 / 12) / 0.10, abs=0.01)


def test_a_smaller_hippocampus_raises_the_temporal_grade_of_its_side_alone():
    whole, shrunken = measure(boxes()), measure(boxes(hippocampus_left=(34, 38)))
    assert shrunken["mta_left"].value > whole["mta_left"].value + 0.5
    assert shrunken["mta_right"].value == whole["mta_right"].value


def test_low_and_high_lie_a_share_of_the_surface_around_the_value():
    found = boxes()
    found.header["calibration"] = {"hippocampus": {"factor": 1.0, "doubt": 0.25}}
    left, both = measure(found)["hippocampus_left"], measure(found)["hippocampi"]
    doubt = pytest.approx(0.25 * left.value ** (2 / 3))
    assert left.high - left.value == doubt and left.value - left.low == doubt
    assert both.high - both.value == pytest.approx(2 * (left.high - left.value))  # the sides are alike


def test_no_volume_is_less_than_nothing():
    found = boxes()
    found.header["calibration"] = {"third": {"factor": 1.0, "doubt": 9.0}}
    third = measure(found)["third"]
    assert third.low == 0 < third.value


def test_calibration_scales_volumes():
    found = boxes()
    found.header["calibration"] = {"third": {"factor": 0.5, "doubt": 1.0}}
    assert measure(found)["third"].value == pytest.approx(0.5 * 4 * 20 * 20 * CELL, rel=1e-3)


def test_a_calibration_that_knows_no_doubt_is_given_one():
    found = boxes()
    found.header["calibration"] = {"third": {"factor": 0.5, "widen": 1.0}}  # as files of before have it
    third = measure(found)["third"]
    assert (
        third.value == pytest.approx(0.5 * 4 * 20 * 20 * CELL, rel=1e-3) and third.low < third.value < third.high
    )


def test_the_table_is_whole():
    found = measure(boxes())
    assert list(found) == list(MEASURES)
    for name, value in found.items():
        assert value.low <= value.value <= value.high, name
        assert value.unit == MEASURES[name].unit
        assert MEASURES[name].kind in measures.KINDS
    grades = {name for name, asked in MEASURES.items() if asked.unit == "grade"}
    assert grades == {name for name, asked in MEASURES.items() if asked.computed}


def test_an_empty_answer_is_measured_as_nothing():
    found = support.segmentation_of(np.zeros(SHAPE, np.uint8))
    assert isinstance(found.shares, torch.Tensor)
    assert measure(found)["brain"].value == 0
    assert measure(found)["evans"].value == 0
