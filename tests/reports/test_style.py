"""One style of heat map for the viewer and the report."""

import json

import numpy as np
import pytest

from diagnosis.maps.explain import Map
from networks.segmenter import CLASSES
from reports.style import HEAT, OUTLINES, strengths


def test_weak_influence_is_not_shown():
    """As on the page: what is below the threshold leaves the scan grey, the strongest is coloured."""
    grey, strength = np.full((1, 3), 0.5), np.array([[0.0, HEAT.threshold - 0.01, 1.0]])
    weakest, weak, strong = HEAT.blend(grey, strength)[0]
    assert weakest.tolist() == weak.tolist() == [0.5] * 3
    last = np.array(HEAT.stops[-1][1:]) / 255
    assert strong == pytest.approx(0.5 + HEAT.opacity * (last - 0.5))


def test_the_viewer_gets_the_same_record():
    told = json.loads(HEAT.json())
    assert told["threshold"] == HEAT.threshold == 0.4
    assert [tuple(stop) for stop in told["stops"]] == list(HEAT.stops)


def test_what_speaks_against_is_left_out_and_spikes_are_smoothed():
    values = np.zeros((20, 20, 20), np.float32)
    values[4, 4, 4], values[12, 12, 12] = -2.0, 0.5
    plain, smooth = (strengths(Map(values, method, "AD", 1.0)) for method in ("grad-cam", "relevance"))
    assert plain.min() == 0 and plain.max() == 1 == plain[12, 12, 12]
    assert smooth.max() == 1 and smooth[12, 12, 13] > 0.5
    assert not strengths(Map(0 * values, "grad-cam", "AD", 1.0)).any()


def test_every_structure_is_outlined_in_a_colour_of_its_own():
    assert set(OUTLINES) == set(CLASSES) - {"background"}
    assert len(set(OUTLINES.values())) == len(OUTLINES)
