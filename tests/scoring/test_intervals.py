"""Intervals over people: Wilson's by its definition, resampling of whole people, what is not defined."""

import numpy as np
import pytest
from scipy.stats import binomtest

from scoring.intervals import draws, interval, rows_of, share, widened, wilson


@pytest.mark.parametrize(("right", "people"), [(0, 5), (5, 5), (3, 10), (20, 20), (1, 1)])
def test_wilson_is_wilson(right, people):
    wanted = binomtest(right, people).proportion_ci(method="wilson")
    assert wilson(right / people, people) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_people_are_drawn_whole():
    rows = rows_of(["b", "a", "b", "c"])
    assert [own.tolist() for own in rows] == [[1], [0, 2], [3]]
    for drawn in draws(rows, 30, 0):
        counts = np.bincount(drawn, minlength=4)
        assert counts[0] == counts[2] and counts[1] + counts[0] + counts[3] == 3
    assert draws(rows[:1], 30, 0) == []


def test_what_is_not_defined_has_no_interval():
    assert interval(np.nan, [0.5] * 10, 10) == {"value": None, "low": None, "high": None}
    assert interval(0.5, [np.nan] * 6 + [0.5] * 4, 10)["low"] is None
    assert share(np.array([], bool), [], 10, 0)["value"] is None
    certain = {"value": 1.0, "low": 1.0, "high": 1.0}
    assert widened(certain, 0) == certain and widened(certain, 4)["low"] < 0.6


def test_a_share_is_resampled_by_people():
    hits = np.array([True] * 30 + [False] * 10)
    alone = share(hits, [str(i) for i in range(40)], 400, 0)
    pairs = share(np.repeat(hits, 2), [str(i // 2) for i in range(80)], 400, 0)
    assert alone["value"] == pairs["value"] == 0.75
    assert (pairs["low"], pairs["high"]) == (alone["low"], alone["high"])
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 40)
    assert alone["high"] - alone["low"] == pytest.approx(2 * spread, rel=0.2)
    assert share(hits[:5], list("aaaab"), 50, 0)["low"] == pytest.approx(wilson(1.0, 2)[0])
