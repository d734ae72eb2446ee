"""The picture networks: torchvision's own weights fit them, sizes are the published ones."""

import pytest
import torch
from torchvision.models import get_model

from networks import pictures


@pytest.mark.parametrize("name", sorted(set(pictures.NETWORKS) - {"SliceCNN", "SmallCNN"}))
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


def test_the_quick_network_has_the_size_it_says_and_finds_something_bright_wherever_it_lies():
    torch.manual_seed(0)
    network = pictures.NETWORKS["SmallCNN"](2).eval()
    widths = [(3, 16), (16, 32), (32, 64), (64, 128), (128, 128)]
    wanted = sum(9 * a * b + 2 * b for a, b in widths) + 2 * 256 + 2
    assert sum(p.numel() for p in network.parameters()) == wanted
    x = torch.zeros(2, 3, 96, 96)
    x[0, :, 32:48, 32:48] = x[1, :, 48:64, 48:64] = 1.0  # moved by a whole step of its coarsest grid
    one, other = network(x)
    assert one.tolist() == pytest.approx(other.tolist(), abs=1e-5)
