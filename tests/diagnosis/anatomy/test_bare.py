"""Brains without a skull: told from whole heads, and given a shell where the scalp would lie."""

import numpy as np
import pytest
import torch

from diagnosis.anatomy import bare
from networks.segmenter import CLASSES

SIDE = 96
WHITE = CLASSES.index("white")


def ball(radius: float) -> np.ndarray:
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    return np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2) <= radius


@pytest.fixture
def brain():
    """A ball of white matter, 20 voxels in radius, and its classes."""
    inside = ball(20)
    return torch.from_numpy(2.0 * inside)[None].float(), (WHITE * inside).astype(np.uint8)


def test_a_shell_is_drawn_where_the_scalp_would_lie_and_nothing_else_changes(brain):
    volume, classes = brain
    drawn = bare.in_a_scalp(volume, classes)
    assert float(drawn.std()) == pytest.approx(1, rel=1e-4)
    drawn = drawn / drawn[volume > 0].mean() * 2.0
    changed = (drawn - volume).abs()[0].numpy() > 1e-3
    assert changed.any() and np.allclose(drawn[0].numpy()[changed], bare.BRIGHT * 2.0, atol=1e-3)
    radius = np.sqrt(((np.argwhere(changed) - (SIDE - 1) / 2) ** 2).sum(1))
    assert radius.mean() == pytest.approx(20 + sum(bare.SHELL) / 2, abs=1)
    assert radius.min() > 20 and np.ptp(radius) < np.ptp(bare.SHELL) + 4  # measured at every second voxel


@pytest.mark.parametrize(
    ("thick", "bright", "whole"), [(0, 0.0, False), (4, 2.5, True), (4, 0.3, False), (1, 2.5, True)]
)
def test_a_head_with_a_scalp_is_left_as_it_is(brain, thick, bright, whole):
    volume, classes = brain
    scalp = ball(30 + thick) & ~ball(30)
    volume = volume + bright * torch.from_numpy(scalp)
    assert (bare.in_a_scalp(volume, classes) is None) is whole


def test_without_white_matter_nothing_is_known(brain):
    volume, classes = brain
    assert bare.in_a_scalp(volume, np.where(classes, CLASSES.index("grey"), 0).astype(np.uint8)) is None


@pytest.mark.parametrize("step", [bare.ROUGH, bare.FINE])
def test_holes_of_an_outline_are_no_surroundings(step):
    every = (slice(None, None, step),) * 3
    found = bare.distance(ball(20) & ~ball(12), step)
    assert found[ball(20)[every]].max() <= step * 3**0.5
    assert found[SIDE // 2 // step, SIDE // 2 // step, (SIDE // 2 + 30) // step] == pytest.approx(10, abs=step)
