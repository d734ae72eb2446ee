"""What every network offers."""

import pytest
from torch import nn

import model
from model import ClassificationModel3D
from tests.small_networks import small


@pytest.mark.parametrize("name", model.NETWORKS)
def test_every_network_has_features_a_head_and_a_layer_to_look_at(name):
    network = model.NETWORKS[name]
    assert issubclass(network, nn.Module) and callable(network.features) and callable(network.head)
    assert isinstance(network.cam_layer, str)


def test_the_layer_to_look_at_is_there():
    assert small().get_submodule(ClassificationModel3D.cam_layer).kernel_size == 3
