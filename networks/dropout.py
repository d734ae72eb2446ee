"""Monte-Carlo dropout: what follows a network's convolutions, asked again and again with other numbers dropped.

The convolutions run once. The draws are the same for every scan, so that the same scan gets the same answer, and
nothing outside is touched, so that several threads may ask at once.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from networks.base import Network

PASSES = 20
PERCENTILES = (5, 95)  # of the passes' probabilities: the ends of an interval


class Drop(nn.Module):
    """Dropout that keeps at work outside training, always with the same draws, which are therefore made once."""

    def __init__(self, share: float, seed: int):
        super().__init__()
        self.share, self.seed = share, seed
        self.kept: Tensor | None = None  # 0, or what makes up for what was dropped

    def forward(self, x: Tensor) -> Tensor:
        kept = self.kept
        if kept is None or kept.shape != x.shape:
            draw = torch.Generator().manual_seed(self.seed)  # on the processor: the same on every device
            kept = (torch.rand(x.shape, generator=draw) >= self.share).float() / max(1 - self.share, 1e-6)
            self.kept = kept = kept.to(x.device)
        return x * kept


class Passes:
    """A network's `top` and `head` with dropout at work; its weights are the network's own, not copies."""

    def __init__(self, network: Network):
        shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
        self.network = copy.deepcopy(network, shared)
        for seed, (name, module) in enumerate(self.network.named_modules()):
            if isinstance(module, nn.Dropout):
                self.network.set_submodule(name, Drop(module.p, seed))

    @torch.inference_mode()
    def __call__(self, base: Tensor, count: int = PASSES) -> Tensor:
        """(1, …) of what `base` gave → logits (count, K)."""
        rows = base.float().expand(count, *base.shape[1:])  # one row a pass
        return self.network.head(self.network.top(rows))


def intervals(probabilities: np.ndarray) -> list[tuple[float, float]]:
    """The 5th and 95th percentile of each class over the passes' probabilities (count, K)."""
    return [(float(low), float(high)) for low, high in np.percentile(probabilities, PERCENTILES, axis=0).T]
