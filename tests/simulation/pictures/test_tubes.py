"""Tubes against closed forms: areas where a plane cuts them, chords and volumes in their shadows."""

import numpy as np
import pytest

from simulation.pictures.tubes import chain, cut, distance, grow, shadow

GRID = np.arange(-20, 20, 0.5)


@pytest.mark.parametrize("slant", [0.0, 45.0, 60.0])
def test_a_plane_cuts_an_ellipse_out_of_a_tube(slant):
    lean = 60 * np.tan(np.radians(slant))
    tube = chain(np.array([[-lean, 0, -60], [lean, 0, 60]]), 4.0)
    area = cut(tube, GRID, GRID, 0.0).sum() * 0.25
    assert area == pytest.approx(np.pi * 16 / np.cos(np.radians(slant)), rel=0.03)


def test_a_tube_thinner_than_a_pixel_fills_a_part_of_it():
    tube = chain(np.array([[3.0, 0, -9], [3.0, 0, 9]]), 0.1)
    picture = cut(tube, GRID, GRID, 0.0)
    assert 0 < picture.max() < 0.5
    assert picture[np.abs(GRID) > 1].max() == 0


def test_what_does_not_reach_the_plane_is_not_there():
    assert not cut(chain(np.array([[0, 0, 5.0], [0, 0, 9.0]]), 4.0), GRID, GRID, 0.0).any()


def test_distances_are_those_to_the_nearest_axis():
    tubes = np.concatenate(
        [chain(np.array([[0, 0, 0], [0, 0, 9.0]]), 2), chain(np.array([[9.0, 0, 0], [9, 0, 9]]), 3)]
    )
    assert distance(tubes, np.array([0.0, 4.0, 9.0]), 0.0, 4.0) == pytest.approx([2, -2, 3])
    assert distance(tubes, 0.0, 0.0, 14.0) == pytest.approx(-3)


def test_the_shadow_of_a_row_of_discs_is_a_tube_s_thickness():
    columns = np.arange(-30, 130.0)
    places = np.stack([np.full(len(columns), 50.0), columns], 1)
    thick = shadow(places, np.full(len(columns), 6.0), np.ones(len(columns)), (100, 100))
    assert thick[50, 20:80] == pytest.approx(12, rel=0.12)  # its radius is rounded, its volume is not
    assert thick[:, 40].sum() == pytest.approx(np.pi * 36, rel=0.01)
    assert abs(thick[20, 40]) < 0.05


def test_a_tree_reaches_every_leaf_and_thins_on_its_way():
    numbers = np.random.default_rng(0)
    leaves = [numbers.uniform(0, 50, (40, 3)), numbers.uniform(-50, 0, (25, 3))]
    tree = grow(numbers, np.array([[0.0, 0, 0], [-1, -1, -1]]), leaves, 0.3)
    ends = tree[:, 3:6]
    for leaf in np.concatenate(leaves):
        assert np.linalg.norm(ends - leaf, axis=1).min() < 1e-6
    assert tree[:, 6].max() == pytest.approx(0.3 * 40**0.42)
    assert (tree[:, 7] <= tree[:, 6] + 1e-9).all()
    starts = {tuple(row) for row in np.round(tree[:, :3], 6)}
    loose = [row for row in np.round(ends, 6) if tuple(row) not in starts]
    assert len(loose) == 65  # only leaves end in nothing
