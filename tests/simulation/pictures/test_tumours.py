"""Masses in simulated heads: pushed tissue keeps its volume, and what lies far away stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from simulation.anatomy import CENTRE, anatomy
from simulation.phantom import plain, voxels
from simulation.pictures import tumours
from simulation.pictures.tumours import Mass

BALL = Mass("ring", (30.0, -20.0, 25.0), 12.0, 0.0, 0.0, 0.0, 1.8, 0.5, 7)


def slice_through(masses, agent=True, spots=0.0, level=25.0, tones=None):
    """The template's slice at a level (z, mm), 1 mm, RAS, without noise; T1 with contrast agent."""
    up = level - CENTRE[2]
    tones = tones or {
        "fluid": 0.2,
        "grey": 0.7,
        "white": 1.0,
        "solid": 0.6,
        "core": 0.3,
        "oedema": 0.4,
        "spots": 0.8,
    }
    recipe = replace(
        plain(),
        low=(-98.0, -116.0, up),
        high=(98.0, 116.0, up),
        tones=(tones["fluid"], tones["grey"], tones["white"]),
    )
    image, affine = voxels(recipe, tumours.brain_of(recipe, tones, masses, spots, agent))
    return image[:, :, 0], affine


def at(affine, x, y):
    return round(x - affine[0, 3]), round(y - affine[1, 3])


def test_tissue_around_a_ball_makes_room_for_a_share_of_its_volume():
    centre = torch.tensor(BALL.centre) - anatomy().origin
    far = torch.tensor([13.0, 20.0, 40.0])  # mm from the centre, along x
    index = centre.view(3, 1, 1, 1).repeat(1, 3, 1, 1).float()
    index[0, :, 0, 0] += far
    away = (far - BALL.radius).view(3, 1, 1)
    came = tumours.pushed(BALL, index, away)[0, :, 0, 0] - centre[0]
    assert (far**3 - came**3).numpy() == pytest.approx(BALL.push * BALL.radius**3, rel=1e-3)


@pytest.mark.parametrize(("agent", "tone"), [(True, BALL.takes_up), (False, 0.6)])
def test_a_mass_is_as_bright_as_its_kind_says_and_far_away_nothing_changes(agent, tone):
    with_it, affine = slice_through([BALL], agent)
    without, _ = slice_through([], agent)
    x, y = at(affine, *BALL.centre[:2])
    inside = with_it[x - 5 : x + 6, y - 5 : y + 6]
    assert np.median(inside) == pytest.approx(tone, rel=0.12)
    other = at(affine, -45, 40)  # some 95 mm away, where tissue moves by a hundredth of a mm
    there = tuple(slice(n - 4, n + 5) for n in other)
    assert with_it[there] == pytest.approx(without[there], abs=0.05)


def test_a_core_lies_in_its_rim_and_oedema_outside():
    shaped = replace(BALL, core=0.6, oedema=10.0)
    image, affine = slice_through([shaped])
    x, y = at(affine, *BALL.centre[:2])
    assert np.median(image[x - 2 : x + 3, y - 2 : y + 3]) == pytest.approx(0.3, abs=0.1)
    assert image[x - 14 : x + 15, y].max() > 1.4
    plain_image, _ = slice_through([BALL])
    ring = [(x + round(17 * np.cos(a)), y + round(17 * np.sin(a))) for a in np.linspace(0, 6.28, 40)]
    assert np.mean([image[i, j] for i, j in ring]) < np.mean([plain_image[i, j] for i, j in ring]) - 0.1


def test_heads_with_and_without_a_mass_show_alike_levels_and_sequences():
    yes, no = (list(tumours.subject((4, 9), label)) for label in ("yes", "no"))
    assert len(yes) == len(no) == tumours.SHOWN
    for (_, one), (_, other) in zip(yes, no, strict=True):
        assert one["plane"] in tumours.PLANES and one["sequence"] in tumours.SEQUENCES
        assert one["masses"] > 0 and other["masses"] == 0 and other["kind"] == ""
    assert yes[0][1]["sequence"] == no[0][1]["sequence"] and yes[0][1]["severity"] == no[0][1]["severity"]


def test_a_mass_too_large_for_the_brain_is_refused():
    with pytest.raises(ValueError, match="a mass of 400 mm has no place"):
        tumours.place(np.random.default_rng(1), 400.0, outside=False)
