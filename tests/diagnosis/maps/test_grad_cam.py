"""Grad-CAM: captum's values, placed by the cells they belong to, within what the foreground encloses."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from diagnosis.maps import grad_cam
from diagnosis.maps.network_view import NetworkView
from tests.explained import chain, prepared_of, with_score


def test_a_map_is_placed_by_its_cells_not_stretched():
    cam = torch.zeros(4, 4)
    cam[2, 1] = 1
    placed = grad_cam.place(cam, [(5.0, 8.0), (3.0, 8.0)], torch.Size([40, 40])).numpy()
    assert np.unravel_index(placed.argmax(), placed.shape) == (5 + 2 * 8, 3 + 8)
    assert placed[25, 11] == pytest.approx(0.5)  # half-way to the next cell


@pytest.mark.parametrize("shape", [(7, 8), (6, 7, 8)], ids=["picture", "volume"])
def test_what_the_foreground_encloses_is_the_head(shape):
    hollow, full = torch.zeros(2, *shape, dtype=torch.bool)
    full[..., 1:6, 2:7] = True
    hollow[:] = full
    hollow[..., 3, 3:6] = False  # a dark hole, in a volume a tube
    if len(shape) == 3:
        hollow[[0, -1]] = full[[0, -1]]  # and closed
    assert torch.equal(grad_cam.enclosed(hollow), full)
    assert not grad_cam.enclosed(torch.zeros(shape, dtype=torch.bool)).any()


def test_the_gap_between_two_lungs_is_not_enclosed():
    lungs = torch.zeros(9, 12, dtype=torch.bool)
    lungs[1:8, 1:4] = lungs[1:8, 8:11] = lungs[3, 4] = True
    assert torch.equal(grad_cam.enclosed(lungs), lungs)


@pytest.mark.parametrize("target", [0, 2])
def test_grad_cam_agrees_with_captum(cube, target):
    network = chain()
    view = NetworkView(network, cube.shape, target)
    theirs = with_score(network, target)
    expected = LayerGradCam(theirs, theirs[4]).attribute(cube, target=0)
    expected = grad_cam.place(expected[0, 0].detach().relu(), view.cells, cube.shape[2:])
    ours, _ = grad_cam.grad_cam(view, cube, prepared_of(cube[0]), lambda fraction: None)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)
