"""What is fluid told by brightness: what is half fluid counts half, in any contrast; the unclear stays."""

import pytest
import torch

from diagnosis.anatomy.partial_volume import by_brightness
from networks.segmenter import CLASSES

LATERAL, WHITE, GREY, CEREBELLUM, STEM, HIPPOCAMPUS, SULCI = map(
    CLASSES.index, ("lateral", "white", "grey", "cerebellum", "stem", "hippocampus", "fluid")
)


def scene(fluid: float, white: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Surely fluid and each tissue, and 40 voxels of rim of which nobody knows more than half and half."""
    grey = fluid + 0.6 * (white - fluid)
    shares, values = torch.zeros(8, len(CLASSES), 640, dtype=torch.uint8), torch.zeros(8, 640)
    sure = ((LATERAL, fluid), (WHITE, white), (GREY, grey), (CEREBELLUM, grey), (STEM, white))
    for number, (place, level) in enumerate(sure):
        part = slice(120 * number, 120 * (number + 1))
        shares[:, place, part], values[:, part] = 255, level
    shares[:, LATERAL, 600:], shares[:, WHITE, 600:] = 128, 127
    held = torch.linspace(0, 1, 40)  # of white matter in the rim
    values[:, 600:] = fluid + held * (white - fluid)
    return shares, values


@pytest.mark.parametrize(("fluid", "white"), [(10.0, 50.0), (90.0, 30.0)])  # as in T1, as in T2
def test_a_rim_is_shared_out_by_its_brightness(fluid, white):
    shares, values = scene(fluid, white)
    redrawn = by_brightness(shares, values)
    assert torch.equal(redrawn[:, :, :600], shares[:, :, :600])
    rim = redrawn[0, LATERAL, 600:].float() / 255
    assert rim[0] > 0.99 and rim[-1] < 0.01 and bool((rim.diff() <= 0).all())
    assert float(rim.mean()) == pytest.approx(0.5, abs=0.02)  # evenly mixed, so half of it is fluid
    assert redrawn[:, :, 600:].sum(1, dtype=torch.int32).sub(255).abs().max() <= 2


def test_where_fluid_is_as_bright_as_tissue_nothing_is_redrawn():
    shares, values = scene(40.0, 42.0)
    values[:, 240:480] = 40.0  # grey matter and cerebellum cannot be told from fluid
    assert by_brightness(shares, values) is shares


def test_without_voxels_that_tell_a_level_nothing_is_redrawn():
    shares, values = scene(10.0, 50.0)
    shares[:, :, 480:600] = 0  # no brain stem
    assert by_brightness(shares, values) is shares


def test_what_may_be_background_is_left_alone():
    shares, values = scene(10.0, 50.0)
    shares[:, 0, 600:], shares[:, LATERAL, 600:] = 64, 64
    assert torch.equal(by_brightness(shares, values), shares)


def with_hippocampus(fluid: float, white: float, level: float, share: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene, 120 voxels that surely are hippocampus, and 40 taken for one by `share` that get brighter."""
    shares, values = scene(fluid, white)
    more, seen = torch.zeros(8, len(CLASSES), 160, dtype=torch.uint8), torch.full((8, 160), level)
    more[:, HIPPOCAMPUS, :120], more[:, HIPPOCAMPUS, 120:], more[:, WHITE, 120:] = 255, share, 255 - share
    seen[:, 120:] = fluid + torch.linspace(0, 1, 40) * (level - fluid)
    return torch.cat([shares, more], 2), torch.cat([values, seen], 1)


@pytest.mark.parametrize(("fluid", "white"), [(10.0, 50.0), (90.0, 30.0)])
def test_fluid_in_what_is_taken_for_a_hippocampus_is_fluid(fluid, white):
    shares, values = with_hippocampus(fluid, white, fluid + 0.7 * (white - fluid), share=200)
    redrawn = by_brightness(shares, values)
    assert torch.equal(redrawn[:, :, 640:760], shares[:, :, 640:760])
    held, wet = redrawn[0, HIPPOCAMPUS, 760:].float(), redrawn[0, SULCI, 760:].float()
    assert bool((held[:19] == 0).all()) and bool((held[-3:] == 200).all()) and bool((held.diff() >= 0).all())
    assert bool((held + wet == 200).all())  # what is not the one is the other, and white matter stays
    assert torch.equal(redrawn[:, WHITE, 760:], shares[:, WHITE, 760:])


def test_a_hippocampus_as_dark_as_fluid_stays_as_it_was_outlined():
    shares, values = with_hippocampus(10.0, 50.0, level=12.0, share=200)
    assert torch.equal(by_brightness(shares, values)[:, :, 640:], shares[:, :, 640:])
