"""The simulated thorax: sizes that textbooks give, HU where organs lie, and one body a seed."""

import numpy as np
import pytest

from simulation.pictures import thorax
from simulation.pictures.thorax import anatomy, cage_bones, draw_body, lung_depth, tissues, trees

SEEDS = [(4, k) for k in range(4)]


def hu_at(body, points):
    x, y, z = np.array(points, float).T
    return tissues(body, x, y, z, anatomy(body, x, y, z), 0.5)


def test_a_seed_gives_one_body_and_another_seed_another():
    first, again, other = draw_body((3, 1)), draw_body((3, 1)), draw_body((3, 2))
    assert (first.width, first.age, first.sway) == (again.width, again.age, again.sway)
    assert first.width != other.width
    assert np.array_equal(trees(first, 200).vessels, trees(again, 200).vessels)


@pytest.mark.parametrize("upright", [False, True])
def test_lungs_hold_some_litres_and_the_right_one_more(upright):
    step = 10.0
    x, y, z = np.meshgrid(
        *(np.arange(a, b, step) for a, b in [(-160, 160), (-130, 140), (-110, 250)]), indexing="ij"
    )
    litres = []
    for seed in SEEDS:
        inside = lung_depth(draw_body(seed, upright), x, y, z) > 0
        litres.append([inside[x < 0].sum() * step**3 / 1e6, inside[x > 0].sum() * step**3 / 1e6])
    right, left = np.mean(litres, 0)
    assert 3.0 < right + left < 7.5  # total lung capacity of adults is about 6 l, less when breathing quietly
    assert right > left


def test_air_lung_blood_and_the_world_around_have_their_hu():
    for seed in SEEDS:
        body = draw_body(seed)
        up = body.height / thorax.FULL_HEIGHT
        heart = body.great[0, :3]
        hu = hu_at(body, [(-70, 0, 85 * up), (70, 10, 85 * up), heart, (-60, -10, -60), (0, -300, 60)])
        assert hu[:2] == pytest.approx([-835, -835], abs=90)
        assert hu[2] == pytest.approx(40, abs=5)
        assert hu[3] == pytest.approx(60, abs=10)  # liver
        assert hu[4] == -1000
        x, y, z = (body.airway[0, :3] + body.airway[0, 3:6]) / 2
        assert hu_at(body, [(x, y, z)]).min() == pytest.approx(-1000, abs=30)


def test_vessels_run_in_the_lungs_and_airways_beside_them_hold_air():
    body = draw_body((4, 0))
    branches = trees(body, 800)
    ends = branches.vessels[branches.vessels[:, 7] < 1]
    assert (lung_depth(body, *ends[:, 3:6].T) > 0).mean() > 0.9
    assert (branches.lumens[:, 6] < branches.walls[:, 6]).all()
    assert 4 < branches.vessels[:, 6].max() < 14  # a pulmonary artery is 10 to 25 mm wide


def test_ribs_lie_outside_the_lungs():
    body = draw_body((4, 1), upright=True)
    ribs = cage_bones(body)["ribs"]
    depth = lung_depth(body, *ribs[:, :3].T)
    assert (depth < 2).mean() > 0.85  # the upper ones curve over the lungs' tips
    assert np.unique(np.sign(ribs[:, 0])).tolist() == [-1, 1]


def test_a_rounded_corner_lies_inside_both():
    a, b = np.array([5.0, 1.0, 9.0]), np.array([5.0, 8.0, 0.0])
    assert thorax.both(a, b, 4) == pytest.approx([4, 1, 0])
    assert thorax.either(a, b, 4) == pytest.approx([6, 8, 9])
