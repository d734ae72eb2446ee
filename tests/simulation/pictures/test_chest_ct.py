"""Simulated slices of chests: known HU, no tell-tale outside the lungs, pictures as exported."""

import numpy as np
import pytest

from simulation.pictures.chest_ct import Scanner, draw_scanner, lung_mask, render, subject
from simulation.pictures.lung_disease import Findings, Patch, draw_findings
from simulation.pictures.thorax import draw_body, trees
from studies import STUDIES

X, Y = np.arange(-150, 150, 1.5, np.float32), np.arange(-110, 130, 1.5, np.float32)
PATCH = Patch((-70.0, 20.0, 80.0), (22.0, 22.0, 22.0), np.eye(3), ground_glass=220.0, mottled=0.0)


@pytest.fixture(scope="module")
def person():
    body = draw_body((8, 1))
    return body, trees(body, 600)


@pytest.fixture(scope="module")
def clear(person):
    return render(*person, Findings("none"), X, Y, 80.0, 1.0, False)


def test_lungs_and_heart_have_their_hu(clear):
    lung = clear.hu[clear.lung == 1]
    assert np.median(lung) == pytest.approx(-835, abs=70)
    assert np.median(clear.hu[clear.lung == 0]) == pytest.approx(40)


def test_ground_glass_raises_the_mean_by_its_amount(person, clear):
    sick = render(*person, Findings("test", (PATCH,)), X, Y, 80.0, 1.0, False)
    core = np.hypot(X[None] + 70, Y[:, None] - 20) < 7
    aerated = core & (clear.hu < -700)  # what vessels fill has no air to lose
    assert aerated.sum() > 60
    assert (sick.hu - clear.hu)[aerated].mean() == pytest.approx(220, rel=0.03)
    assert np.array_equal(sick.hu[sick.lung == 0], clear.hu[clear.lung == 0])
    assert sick.added[aerated].mean() == pytest.approx(220, rel=0.03)


def test_thick_slices_are_means_of_thin_ones(person):
    thick = render(*person, Findings("none"), X, Y, 80.0, 3.0, False)
    thin = [render(*person, Findings("none"), X, Y, z, 1.0, False).hu for z in (79.25, 80.75)]
    assert np.abs(thick.hu - np.mean(thin, 0)).max() < 1e-2 * 1000


def test_classes_differ_by_nothing_but_their_findings():
    for k in (2, 6):  # one of lungs alone, one of the whole body, two slices each
        shown = {label: list(subject((8, k), label)) for label in STUDIES["covid-ct"].codes}
        keys = ("pixel_mm", "thickness_mm", "noise_hu", "window_low", "window_high", "masked", "height", "age")
        rows = {label: [[truth[key] for key in keys] for _, truth in some] for label, some in shown.items()}
        assert rows["nCoV"] == rows["no_nCoV"]
        assert {str(truth["class"]) for some in shown.values() for _, truth in some} == set(shown)
        assert all(truth["disease"] == "COVID-19" for _, truth in shown["nCoV"])
        for (one, first), (other, _) in zip(shown["nCoV"], shown["no_nCoV"], strict=True):
            assert one.dtype == np.uint8 and one.ndim == 2 and one.max() > 100
            if not first["masked"]:  # outside the body
                assert abs(float(one[:12].mean()) - float(other[:12].mean())) < 2


def test_disease_can_be_seen_and_the_truth_says_how_much():
    truths = [truth for _, truth in subject((8, 2), "nCoV")]
    assert max(float(truth["diseased_share"]) for truth in truths) > 0.005
    assert all(float(truth["added_hu"]) > 50 for truth in truths if truth["diseased_share"] > 0.02)


def test_the_mask_keeps_air_and_loses_what_is_dense_at_the_rim(person):
    scanner = draw_scanner(np.random.default_rng(0))
    scanner = Scanner(**vars(scanner) | {"pixel": 1.5, "rim": 0.0, "closing": 3.0, "threshold": -400.0})
    fluid = render(*person, Findings("effusion", fluid=(20.0, 20.0)), X, Y, 80.0, 1.0, False)
    mask = lung_mask(fluid, scanner)
    assert mask[(fluid.lung == 1) & (fluid.hu < -750)].mean() > 0.98
    behind = (fluid.lung == 1) & (Y[:, None] > 50)
    assert behind.sum() > 200 and mask[behind].mean() < 0.1


def test_slices_are_drawn_where_disease_is():
    levels = np.array([40.0, 45.0])
    for k in range(4):
        heights = [patch.centre[2] for patch in draw_findings(draw_body((8, k)), "nCoV", levels).patches]
        assert np.median(np.abs(np.array(heights) - 42.5)) < 20
