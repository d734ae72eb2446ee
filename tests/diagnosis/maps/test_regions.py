"""Regions of the head under places known in MNI space, and the warnings of a map."""

import numpy as np
import pytest
import torch

from diagnosis.maps.regions import OUTSIDE, regions, warnings
from studies import HEAD, Contract
from tests.explained import as_map, prepared_of

# middles of structures in MNI space, mm (from the published probabilistic atlases)
PLACES = [
    ("hippocampus-left", (-27, -20, -15)),
    ("hippocampus-right", (28, -20, -15)),
    ("ventricles", (10, 10, 15)),
    ("cerebellum", (25, -65, -40)),
    ("frontal", (30, 45, 20)),
    ("parietal", (35, -50, 55)),
    ("occipital", (15, -90, 5)),
    ("temporal", (58, -20, -15)),
    ("deep", (0, -28, -30)),
]


def head_map(mni: tuple[float, ...]) -> np.ndarray:
    """A ball of 6 mm on the head grid, at a place of MNI space, seen from where the brain's middle lies there."""
    anchor = np.array(HEAD.anchor) * (np.array(HEAD.shape) - 1)
    middle = anchor + np.array([0, -1, 3]) / HEAD.spacing  # measured on real heads
    centre = middle + (np.array(mni) - [0, -22, 9.5]) / HEAD.spacing
    index = np.ix_(*(np.arange(n) for n in HEAD.shape))
    return sum(((i - c) * mm) ** 2 for i, c, mm in zip(index, centre, HEAD.spacing, strict=True)) < 36


@pytest.mark.parametrize(("name", "mni"), PLACES)
def test_regions_name_known_places(name, mni):
    made = as_map(head_map(mni))
    shares = regions(made, prepared_of(torch.zeros(1, 1, 1, 1)), HEAD)
    assert shares[name] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert warnings(made, shares) == []


def test_a_map_outside_the_brain_warns():
    values = np.zeros(HEAD.shape)
    values[:20, :20, :20] = 1
    values[80:90, 120:130, 140:150] = -5  # what speaks against is not counted
    shares = regions(as_map(values), prepared_of(torch.zeros(1, 1, 1, 1)), HEAD)
    assert shares[OUTSIDE] == pytest.approx(1)
    assert warnings(as_map(values), shares) == ["mostly-outside"]


def test_a_map_in_which_nothing_speaks_for_the_class_says_so():
    nothing = as_map(-np.ones(HEAD.shape))
    assert warnings(nothing, {}) == ["empty"]


def test_no_regions_where_no_head_was_placed():
    picture = Contract(kind="image", shape=(8, 8))
    assert regions(as_map(np.ones((8, 8))), prepared_of(torch.zeros(1, 8, 8)), picture) == {}
