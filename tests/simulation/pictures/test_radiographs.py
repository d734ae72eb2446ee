"""Simulated radiographs: what a nodule of known place weakens, and nothing else by class."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.pictures.lung_disease import Ragged
from simulation.pictures.radiographs import (
    Geometry,
    Nodule,
    nodule_shadow,
    soft_parts,
    subject,
    tube_shadow,
    water,
)
from simulation.pictures.thorax import draw_body, lung_depth
from simulation.pictures.tubes import chain

GEOMETRY = Geometry(200, 1.6, 1700.0, -150.0, (0.0, 90.0))
BALL = Nodule((-70.0, 30.0, 110.0), 20.0, 900.0, 0.0)
MAGNIFIED = 1700 / (1700 - 180)  # the ball lies 180 mm before the detector


def test_a_nodule_casts_its_chord_where_it_lies():
    mm = nodule_shadow(BALL, GEOMETRY, Ragged((1,)))
    row, column = np.unravel_index(mm.argmax(), mm.shape)
    expected = (99.5 - 20 * MAGNIFIED / 1.6, 99.5 - 70 * MAGNIFIED / 1.6)
    assert (row, column) == pytest.approx(expected, abs=1)
    assert GEOMETRY.place(np.array([BALL.centre]))[0] == pytest.approx(expected)
    assert mm.max() == pytest.approx(20, rel=0.05)
    assert mm.sum() * 1.6**2 == pytest.approx(4 / 3 * np.pi * 10**3 * MAGNIFIED**2, rel=0.05)


def test_a_tube_casts_its_thickness_however_it_lies():
    level = chain(np.array([[-60.0, -150, 90], [60, -150, 90]]), 5.0)
    mm = tube_shadow([(level, 0, 1.0)], GEOMETRY)
    assert mm[:, 100].max() == pytest.approx(10, rel=0.15)
    assert mm.sum() * 1.6**2 == pytest.approx(np.pi * 25 * 120, rel=0.02)
    along_beam = chain(np.array([[0.0, -150, 90], [0, -110, 90]]), 5.0)
    assert tube_shadow([(along_beam, 0, 1.0)], GEOMETRY).max() == pytest.approx(40, rel=0.22)
    hollow = tube_shadow([(level, 0, 1.0), (level, 2, -1.0)], GEOMETRY)
    assert hollow.sum() * 1.6**2 == pytest.approx(np.pi * (25 - 9) * 120, rel=0.03)


def test_the_body_weakens_the_beam_as_its_tissues_say():
    assert water(np.array([-1000.0, -850.0, 0.0, 40.0])) == pytest.approx([0, 0.15, 1, 1.04])
    body = draw_body((7, 0), upright=True)
    geometry = replace(GEOMETRY, detector=-body.depth - 60, middle=(0.0, 90.0))
    total, lungs = soft_parts(body, geometry)
    assert total.shape == lungs.shape
    assert 60 < lungs.max() < 260
    # Along a ray beside the heart the lung that the body's formulas give is the lung that is summed up.
    x = -70 * geometry.scale(np.arange(-140, 160, 1.0))
    y = np.arange(-140, 160, 1.0)
    mm = (lung_depth(body, x, y, np.full(300, 90.0)) > 0).sum()
    n = len(lungs)
    column = round((n - 1) / 2 - 70 / (320 / (n - 1)))
    assert lungs[n // 2, column] == pytest.approx(mm, abs=8)


@pytest.fixture(scope="module")
def films():
    return {label: [next(subject((7, k), label)) for k in (1,)] for label in ("normal", "nodule")}


def test_only_the_nodules_differ_between_the_classes(films):
    for (clear, none), (sick, truth) in zip(films["normal"], films["nodule"], strict=True):
        assert clear.shape == sick.shape and clear.dtype == np.uint8
        assert list(none) == list(truth)
        assert none["nodules"] == 0 and none["diameter_mm"] == "" and truth["nodules"] >= 1
        row, column = round(truth["row"]), round(truth["column"])
        difference = sick.astype(float) - clear
        spot = difference[row - 1 : row + 2, column - 1 : column + 2].mean()
        assert spot > 2
        reach = 1.5 * truth["diameter_mm"] / truth["pixel_mm"] + 4
        rows, columns = np.ogrid[: len(clear), : clear.shape[1]]
        far = np.hypot(rows - row, columns - column) > reach
        if truth["nodules"] == 1:
            assert np.abs(difference[far]).mean() < 1
        borders = np.concatenate([difference[:8].ravel(), difference[:, :8].ravel(), difference[:, -8:].ravel()])
        assert abs(borders.mean()) < 0.5
