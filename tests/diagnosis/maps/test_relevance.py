"""Relevance: captum's values, conserved, the same in slabs as in one piece."""

import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import nn

from diagnosis.maps import explain, relevance
from diagnosis.maps.network_view import NetworkView
from tests.explained import chain, prepared_of, weights_of, with_score


def test_relevance_in_slabs_is_relevance_in_one_piece(published, volume):
    weights = weights_of(published, codes="abcde")
    in_slabs = explain.explain(weights, prepared_of(volume[0]), "b", "relevance").values
    view = NetworkView(published, volume.shape, 1)
    view.blocks, view.tail = [], view.network.forward
    whole, _ = relevance.relevance(view, volume, prepared_of(volume[0]), lambda fraction: None)
    np.testing.assert_allclose(in_slabs, whole, atol=1e-5 * float(whole.abs().max()))


def without_flatten(network: nn.Sequential) -> nn.Sequential:
    """The same with dense layers written as convolutions: captum's LRP knows no layer that flattens."""
    layers_, shape = [], (3, 3, 3)
    for layer in network:
        if isinstance(layer, nn.Linear):
            conv = nn.Conv3d(layer.in_features // int(np.prod(shape)), layer.out_features, shape)
            conv.weight.data = layer.weight.data.view_as(conv.weight)
            conv.bias.data = torch.zeros_like(conv.bias) if layer.bias is None else layer.bias.data
            layer, shape = conv, (1, 1, 1)
        if not isinstance(layer, nn.Flatten):
            layers_.append(layer)
    return nn.Sequential(*layers_).requires_grad_(True)


@pytest.mark.parametrize("target", [0, 2])
def test_relevance_agrees_with_captum(cube, target):
    network = chain()
    theirs = without_flatten(with_score(network, target))
    for number, layer in enumerate(theirs):
        if isinstance(layer, nn.Conv3d):
            gamma = number and layer.kernel_size == (3, 3, 3) and layer.out_channels == 6
            layer.rule = GammaRule(gamma=relevance.GAMMA) if gamma else EpsilonRule(epsilon=relevance.EPSILON)
    expected = LRP(theirs).attribute(cube.clone().requires_grad_(), target=(0, 0, 0, 0))[0, 0].detach()
    ours, _ = relevance.relevance(
        NetworkView(network, cube.shape, target), cube, prepared_of(cube[0]), lambda f: None
    )
    torch.testing.assert_close(ours, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


def test_relevance_is_conserved_without_biases_and_its_loss_reported_with_them(cube):
    found = {}
    for bias in (False, True):
        weights = weights_of(chain(bias), codes="abc")
        found[bias] = explain.explain(weights, prepared_of(cube[0]), "a", "relevance")
    assert abs(found[False].values.sum() / found[False].score - 1) < 0.01
    assert abs(found[False].absorbed) < 0.01
    assert found[True].absorbed == pytest.approx(1 - found[True].values.sum() / found[True].score, abs=1e-4)
    assert abs(found[True].absorbed) > 0.01
