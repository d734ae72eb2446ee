"""The picture networks: torchvision's own weights fit them, sizes are the published ones."""

import pytest
import torch
from torchvision.models import get_model

from networks import pictures


@pytest.mark.parametrize("name", sorted(set(pictures.NETWORKS) - {"SliceCNN"}))
def test_torchvisions_own_weights_fit_the_trunk(name, tmp_path):
    with torch.device("meta"):
        network = pictures.NETWORKS[name]()
        whole = get_model(network.imagenet, weights=None)
    own, state = network.trunk().state_dict(), whole.state_dict()
    fitting = [key for key in own if key in state and own[key].shape == state[key].shape]
    assert len(fitting) == len(own)


def test_the_small_network_has_the_published_size():
    network = pictures.NETWORKS["SliceCNN"](4)
    # (3·2·2 + 1)·64, (64·2·2 + 1)·128, then 128·24·24 numbers into 256 and those into 4
    assert sum(p.numel() for p in network.parameters()) == 832 + 32_896 + 18_874_624 + 1_028 == 18_909_380
