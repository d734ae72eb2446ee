"""Atrophy on the anatomy: ventricles grow, tissue falls, each region alone."""

import sys

import numpy as np
import pytest

from simulation import phantom
from simulation.anatomy import AnatomyError, anatomy
from tests.simulated import SEVERITIES, box, tissue, ventricles


def horns(image, side=0):
    return (box(image, (27, -36, -30), (47, -12, -8), side) < 0.46).sum() / 1000


def test_ventricles_and_temporal_horns_grow_and_tissue_falls(aged):
    for measure, sign in ((ventricles, 1), (horns, 1), (tissue, -1)):
        course = [measure(aged[severity]) for severity in SEVERITIES]
        assert (np.diff(course) * sign > 0).all(), (measure.__name__, course)


def test_the_scale_spans_what_adults_show(aged):
    """Ventricles from about one hundredth of the brain to several hundredths."""
    share = [ventricles(aged[s]) / (tissue(aged[s]) + ventricles(aged[s])) for s in (0.0, 1.2)]
    assert share[0] < 0.015 and share[1] > 0.04


def test_each_region_grows_alone():
    only = phantom.render(phantom.plain(0.0, amounts={"horns": 4.0}))
    none = phantom.render(phantom.plain(0.0))
    assert horns(only) > horns(none) + 0.5
    assert ventricles(only) == pytest.approx(ventricles(none), rel=0.08)


def test_plain_heads_are_symmetric_and_tilts_are_not(aged):
    assert ventricles(aged[0.8], -1) == pytest.approx(ventricles(aged[0.8], 1), rel=0.02)
    lopsided = phantom.render(phantom.plain(0.8, tilts={"ventricles": (0.25, 0.0), "horns": (-0.25, 0.0)}))
    assert ventricles(lopsided, 1) > 1.1 * ventricles(lopsided, -1)
    assert horns(lopsided, 1) < horns(lopsided, -1)


def test_without_nilearn_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(AnatomyError, match=r"install it with `pip install nilearn`"):
        anatomy.__wrapped__()
