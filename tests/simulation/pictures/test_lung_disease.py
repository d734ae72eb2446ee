"""Findings in simulated lungs: known amounts where they lie, at the places that are usual."""

import numpy as np
import pytest

from simulation.pictures.lung_disease import OTHERS, Findings, Patch, Ragged, change, draw_findings, walls_of_cells
from simulation.pictures.thorax import draw_body, lung_depth, points_in_lungs

BODY = draw_body((5, 0))
NOISE = Ragged((5, 0))


def a_patch(**more):
    centre = (-70.0, 30.0, 60.0)
    return Patch(centre, (20.0, 20.0, 20.0), np.eye(3), **{"ground_glass": 250.0, "mottled": 0.0} | more)


def changed(findings, points):
    points = np.array(points, float)
    return change(findings, BODY, points, lung_depth(BODY, *points.T), NOISE)


def test_ground_glass_adds_its_hu_inside_and_nothing_outside():
    inside = np.array(a_patch().centre) + np.random.default_rng(0).uniform(-4, 4, (50, 3))
    outside = np.add(a_patch().centre, [[60, 0, 0], [0, -70, 0], [0, 0, 70]])
    added, solid, diseased = changed(Findings("test", (a_patch(),)), np.concatenate([inside, outside]))
    assert added[:50] == pytest.approx(250)
    assert diseased[:50] == pytest.approx(1)
    assert not added[50:].any() and not diseased[50:].any() and not solid.any()


def test_a_solid_core_displaces_the_air():
    points = np.array(a_patch().centre) + np.random.default_rng(0).uniform(-5, 5, (60, 3))
    _, solid, _ = changed(Findings("test", (a_patch(solid=0.9, ragged=0.0),)), points)
    assert solid.max() == pytest.approx(0.9)
    assert solid.mean() > 0.7


def test_fluid_lies_behind_its_level_on_its_side():
    findings = Findings("effusion", fluid=(20.0, -999.0))
    _, solid, _ = changed(findings, [(-60, 60, 40), (-60, -40, 40), (60, 60, 40)])
    assert solid == pytest.approx([0.98, 0, 0])


def test_walls_between_cells_take_a_small_share():
    points = np.random.default_rng(1).uniform(0, 60, (4000, 3))
    walls = walls_of_cells(points, 8.0, 1.0, (1,))
    assert 0.02 < (walls > 0.5).mean() < 0.35
    assert (walls == 0).mean() > 0.5


def test_covid_lies_at_the_rim_and_behind():
    levels = np.array([30.0, 80.0])
    depths, backs, sides = [], [], set()
    for k in range(5):
        body = draw_body((5, k))
        anywhere = points_in_lungs(body, np.random.default_rng(k), 300, 2.0)
        patches = draw_findings(body, "nCoV", levels).patches
        assert all(patch.ground_glass > 0 for patch in patches)
        centres = np.array([patch.centre for patch in patches])
        depths.append((lung_depth(body, *centres.T).mean(), lung_depth(body, *anywhere.T).mean()))
        backs.append(centres[:, 1].mean() - anywhere[:, 1].mean())
        sides |= set(np.sign(centres[:, 0]))
    ours, chance = np.mean(depths, 0)
    assert ours < 0.75 * chance
    assert np.mean(backs) > 10
    assert sides == {-1, 1}


def test_every_other_disease_is_drawn_and_clear_lungs_are_clear():
    levels = np.array([60.0])
    drawn = {}
    for k in range(36):
        findings = draw_findings(draw_body((16, k)), "no_nCoV", levels)
        drawn[findings.disease] = findings
    assert set(drawn) == set(OTHERS)
    assert sum(OTHERS.values()) == pytest.approx(1)
    points = points_in_lungs(BODY, np.random.default_rng(2), 100, 1.0)
    for disease, findings in drawn.items():
        _, _, diseased = changed(findings, points)
        if disease == "none":
            assert not diseased.any()
