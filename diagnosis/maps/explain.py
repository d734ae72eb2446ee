"""Why: maps of what moved one answer, on the study's grid, and how far each of them may be believed.

Three methods for any of the networks. All explain the same number, the *score*: how far the class's logit stands
above the mean of the others (softmax sees no more of the logits than such differences). A positive value speaks
for the class. The maps show regions that moved the answer; none of them shows a lesion.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from diagnosis.maps.grad_cam import grad_cam
from diagnosis.maps.network_view import CONVS, NetworkView, Progress
from diagnosis.maps.occlusion import occlusion
from diagnosis.maps.relevance import relevance
from model import Weights
from scans.prepare import Prepared


class ExplainError(ValueError):
    """A map that cannot be made: a code, and words that name what was asked and what there is."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Map:
    values: np.ndarray  # float32 on the study's grid, positive where it speaks for the class
    method: str
    code: str  # the class that was asked for
    score: float  # what the map explains: the class's logit above the mean of the others
    absorbed: float | None = None  # relevance only: the share of the score that the biases kept


def explain(
    weights: Weights,
    prepared: Prepared,
    code: str,
    method: str = "grad-cam",
    progress: Progress | None = None,
    base: Tensor | None = None,
) -> Map:
    """The map of one class by one of METHODS; the input is one prepared scan, `base` what the network's base made
    of it when it was judged."""
    if method not in METHODS:
        raise ExplainError("unknown-map", f"method {method!r} is unknown; choose {', '.join(METHODS)}")
    if code not in weights.study.codes:
        known = ", ".join(weights.study.codes)
        raise ExplainError("unknown-map", f"class {code!r} is unknown; {weights.study.key} has {known}")
    x = prepared.tensor[None].to(weights.device)  # (1, 1, X, Y, Z) or (1, C, H, W)
    view = NetworkView(weights.network, x.shape, weights.study.codes.index(code), base)
    values, score = METHODS[method](view, x, prepared, progress or (lambda fraction: None))
    absorbed = None
    if method == "relevance" and score:
        absorbed = 1 - float(values.sum(dtype=torch.float64)) / score
    return Map(values.float().cpu().numpy(), method, code, score, absorbed)


# name → how to get a map on the grid, and the score that it explains
METHODS: dict[str, Callable[..., tuple[Tensor, float]]] = {
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "relevance": relevance,
}


# --- may it be believed? ----------------------------------------------------------------------------------

SAME = 0.9  # a map that agrees this well with that of a shuffled network says nothing of what was learned


def agreement(a: Map, b: Map, foreground: Tensor) -> float:
    """Spearman's rank correlation of two maps over the foreground (at most 200,000 voxels, evenly picked)."""
    inside = np.flatnonzero(foreground.cpu().numpy())
    inside = inside[:: max(1, len(inside) // 200_000)]
    first, second = a.values.ravel()[inside], b.values.ravel()[inside]
    if len(inside) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0  # a map that says the same everywhere agrees with nothing
    from scipy.stats import spearmanr  # here, for it is slow to open and seldom asked for

    return float(spearmanr(first, second).statistic)


def randomised(weights: Weights, prepared: Prepared, made: Map, seed: int = 0) -> float:
    """The agreement of a map with the same map of a network whose last layers' weights are shuffled.

    A map that hardly changes (SAME or more) shows the picture's edges rather than the network's reasons.
    """
    network, draw = copy.deepcopy(weights.network), torch.Generator().manual_seed(seed)
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    last = dense or [module for module in network.modules() if isinstance(module, CONVS)][-1:]
    for value in (value for layer in last for value in layer.parameters()):
        order = torch.randperm(value.numel(), generator=draw).to(value.device)
        value.data = value.data.flatten()[order].view_as(value)
    other = explain(replace(weights, network=network), prepared, made.code, made.method)
    return agreement(made, other, prepared.foreground)
