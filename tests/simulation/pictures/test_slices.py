"""Slices of simulated heads: fluid by severity, one head alike in all of its slices."""

import numpy as np
import pytest

from simulation.pictures import slices
from studies import STUDIES


@pytest.fixture(scope="module")
def by_severity():
    """The slices of one head in each class, from least to most severe."""
    return [list(slices.subject((2, 4), code)) for code in STUDIES["dementia-slices"].by_severity]


def fluid(picture):
    """Share of the dark within the brain's outline, a row from its first to its last bright pixel."""
    white = np.percentile(picture[picture > 20], 90)
    bright = picture > 0.6 * white
    inside = np.logical_or.accumulate(bright, 1) & np.logical_or.accumulate(bright[:, ::-1], 1)[:, ::-1]
    return (inside & ~bright).sum() / inside.sum()


def test_fluid_grows_with_each_class(by_severity):
    shares = [np.mean([fluid(picture) for picture, _ in head]) for head in by_severity]
    assert shares == sorted(shares)
    assert shares[-1] > 1.15 * shares[0]


def test_slices_go_upwards_and_share_one_severity(by_severity):
    for head, code in zip(by_severity, STUDIES["dementia-slices"].by_severity, strict=True):
        levels = [truth["level"] for _, truth in head]
        assert levels == sorted(set(levels)) and len(levels) == slices.SHOWN
        assert len({truth["severity"] for _, truth in head}) == 1
        assert head[0][1]["severity"] == pytest.approx(slices.SEVERITIES[code], abs=2 * slices.SPREAD)


def test_the_brain_lies_on_black_inside_the_picture(by_severity):
    for picture, _ in by_severity[0]:
        assert picture.shape == (208, 176)
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert np.median(edge) == 0
