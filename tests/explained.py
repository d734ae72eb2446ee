"""Networks and contracts small enough to check a heat map by hand."""

import copy

import numpy as np
import torch
from torch import nn

from diagnosis.maps import network_view
from diagnosis.maps.explain import Map
from model import Weights
from networks.base import Network
from networks.header import Header
from scans.prepare import Prepared
from studies import Contract, Label, Study

SMALL = Contract(
    kind="volume",
    shape=(64, 76, 76),
    spacing=(3.0, 3.0, 3.0),
    place="head",
    scale="foreground",
    anchor=(0.5, 0.5, 0.55),
)


def weights_of(network: nn.Module, contract: Contract = SMALL, codes=("yes", "no")) -> Weights:
    study = Study(
        "made",
        "Made up",
        "Is it there?",
        tuple(Label(code, code) for code in codes),
        contract,
        "Finder",
        ("Finder",),
        "A test.",
    )
    network = network.eval().requires_grad_(False)
    return Weights("made.safetensors", "0" * 64, Header(study, "Finder"), network, torch.device("cpu"))


def prepared_of(tensor: torch.Tensor, spacing=(1.0, 1.0, 1.0)) -> Prepared:
    return Prepared(
        tensor, np.eye(4), torch.ones(tensor.shape[1:], dtype=torch.bool), np.diag([*spacing, 1.0]), [], {}
    )


class Finder(Network):
    """Made by hand: "yes" grows with every place whose 3×3×3 mean is bright, two pools deep."""

    cam_layer = "second_pool"

    def __init__(self, bright: float = 3.0):
        super().__init__()
        self.first, self.first_pool = nn.Conv3d(1, 1, 3), nn.MaxPool3d(2)
        self.second, self.second_pool = nn.Conv3d(1, 1, 3), nn.MaxPool3d(2)
        cells = [((side - 2) // 2 - 2) // 2 for side in SMALL.shape]
        self.dense = nn.Linear(cells[0] * cells[1] * cells[2], 2, bias=False)
        with torch.no_grad():
            for layer, bias in ((self.first, -bright), (self.second, 0.0)):
                layer.weight.fill_(1 / 27)
                layer.bias.fill_(bias)
            self.dense.weight.zero_()
            self.dense.weight[0] = 1.0

    def base(self, x):
        x = self.first_pool(self.first(x).relu())
        return self.second_pool(self.second(x).relu()).flatten(1)

    def head(self, features):
        return self.dense(features)


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and batch statistics as after some training."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, network_view.NORMS):
            module.running_mean = torch.randn(module.num_features, generator=draw) * 0.2
            module.running_var = torch.rand(module.num_features, generator=draw) + 0.5
            module.weight.data = torch.rand(module.num_features, generator=draw) + 0.5
            module.bias.data = torch.randn(module.num_features, generator=draw) * 0.2
        elif isinstance(module, (nn.Linear, *network_view.CONVS)):
            fan = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=draw) * (2 / fan) ** 0.5
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=draw) * 0.1
    return network.eval().requires_grad_(False)


class Chain(nn.Sequential, Network):
    """A chain of layers with what heat maps ask of a network."""


def chain(bias: bool = True) -> Chain:
    network = Chain(
        nn.Conv3d(1, 4, 3, bias=bias),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 3, bias=bias),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(6 * 27, 8, bias=bias),
        nn.ReLU(),
        nn.Linear(8, 3, bias=bias),
    )
    network.cam_layer = "4"
    return randomise(network, seed=3)


def with_score(network: nn.Sequential, target: int) -> nn.Sequential:
    """The chain, then the score as one more layer: the target's logit less the mean of the two others."""
    margin = nn.Linear(3, 1, bias=False)
    margin.weight.data.fill_(-0.5)[0, target] = 1.0
    return nn.Sequential(*copy.deepcopy(network), margin).requires_grad_(True)


def as_map(values: np.ndarray) -> Map:
    return Map(values.astype(np.float32), "grad-cam", "yes", 1.0)
