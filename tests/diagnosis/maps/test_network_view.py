"""A network made ready to be explained: the same answer, cells where they look."""

import torch
from torch import nn

from diagnosis.maps import network_view
from diagnosis.maps.network_view import NetworkView
from model import ClassificationModel3D
from networks.base import Network
from tests.explained import randomise


class Branching(Network):
    """A padded network with a shortcut, as ResNet has; all its weights are positive."""

    cam_layer = "last"

    def __init__(self, classes: int = 2):
        super().__init__()
        self.start, self.norm = nn.Conv2d(1, 4, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.long, self.short = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1, stride=2)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.dense = nn.Linear(4, classes)

    def base(self, x):
        x = self.pool(self.norm(self.start(x)).relu())
        x = (self.long(x) + self.short(x)).relu()
        return self.last(x).relu().mean((2, 3))

    def head(self, features):
        return self.dense(features)


def test_cells_of_the_published_network_by_hand():
    # conv 3: +1; pool 2: +½; conv 3: +2; pool 3: +2; conv 3: +6; pool 2: +3; conv 3: +12; pool 3: +12 voxels
    start, step = 1 + 0.5 + 2 + 2 + 6 + 3 + 12 + 12, 2 * 3 * 2 * 3
    _, _, cells = network_view.survey(ClassificationModel3D(), torch.Size([1, 1, 166, 256, 256]))
    assert cells == [(start, step)] * 3


def test_what_blocks_tell_is_what_a_pass_tells():
    network, shape = ClassificationModel3D(), torch.Size([1, 1, 166, 256, 256])
    assert (
        network_view.read_off(network)
        == network_view.passed(network, shape)
        == network_view.survey(network, shape)
    )


def test_a_norm_outside_of_the_blocks_is_found_too():
    network = ClassificationModel3D(shape=(80, 79, 84))
    network.dense_1 = nn.Sequential(network.dense_1, nn.BatchNorm1d(network.dense_1.out_features))
    _, pairs, _ = network_view.survey(network.eval(), torch.Size([1, 1, 80, 79, 84]))
    assert pairs[-1] == ("dense_1.0", "dense_1.1") and len(pairs) == 5


def test_cells_lie_in_the_middle_of_what_they_see():
    network = Branching()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.01)
    _, _, [(start, step), _] = network_view.survey(network.eval(), torch.Size([1, 1, 96, 96]))
    x = torch.zeros(1, 1, 96, 96, requires_grad=True)
    kept = []
    network.pool = nn.AvgPool2d(3, stride=2, padding=1)  # which sees all of its window
    network.last.register_forward_hook(lambda module, inputs, output: kept.append(output))
    network(x)
    (gradient,) = torch.autograd.grad(kept[0][0, :, 5, 5].sum(), x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min() + rows.max()).item() / 2 == start + 5 * step


def test_front_and_tail_are_the_network(published, volume):
    view = NetworkView(published, volume.shape, 0)
    assert len(view.blocks) == 4
    torch.testing.assert_close(view.tail(view.levels(volume)[-1]), published(volume), atol=1e-4, rtol=1e-4)


def test_folding_leaves_the_answer_as_it_is():
    network, x = randomise(Branching()), torch.randn(2, 1, 64, 64)
    view = NetworkView(network, x[:1].shape, 0)
    assert isinstance(view.network.norm, nn.Identity)
    torch.testing.assert_close(view.tail(x), network(x))
