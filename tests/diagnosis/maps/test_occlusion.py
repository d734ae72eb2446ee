"""Occlusion: captum's values, worked out only where a patch is seen."""

import pytest
import torch
from captum.attr import Occlusion

from diagnosis.maps import occlusion
from diagnosis.maps.network_view import NetworkView
from tests.explained import chain, prepared_of, with_score


def test_a_patch_is_worked_out_where_it_is_seen_and_nowhere_else(published, volume):
    view = NetworkView(published, volume.shape, 0)
    levels, filled = view.levels(volume), torch.zeros_like(volume)
    spots = [((0, 9), (0, 11), (0, 10)), ((31, 40), (40, 51), (33, 43)), ((72, 80), (81, 90), (75, 84))]
    expected = []
    for spot in spots:
        whole = volume.clone()
        whole[(0, 0, *occlusion.cut(spot))] = 0
        expected.append(published(whole))
    torch.testing.assert_close(
        occlusion.occluded(view, levels, filled, spots), torch.cat(expected), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("target", [0, 2])
def test_occlusion_agrees_with_captum(cube, target):
    network, prepared = chain(), prepared_of(cube[0])
    ours, _ = occlusion.occlusion(
        NetworkView(network, cube.shape, target), cube, prepared, lambda fraction: None, 6.0, 0
    )
    expected = Occlusion(with_score(network, target)).attribute(
        cube, (1, 6, 6, 6), strides=(1, 6, 6, 6), baselines=occlusion.blurred(cube, (6, 6, 6)), target=0
    )
    torch.testing.assert_close(ours, expected[0, 0].detach().float(), atol=1e-3, rtol=1e-3)
