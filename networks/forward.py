"""The fast way through a network, for the page, the API, the command line and validation alike."""

import copy

import torch
from torch import Tensor, nn

from networks import dropout
from networks.base import Network, WeightsError, in_memory_format
from networks.precision import HALVES, chosen


class Forward:
    """One way through a network in eval mode: `forward(x) -> (logits, features)`; several threads may call it.

    The 3-D network goes block by block on the processor; on CUDA all run channels-last, up to the penultimate
    features in `precision`; the others are the plain modules. `forward.base` alone is what the passes with
    dropout, `forward.passes`, share; networks that drop nothing have none.
    """

    def __init__(self, network: Network, precision: str = "auto"):
        self.network = network
        self.device = next(network.parameters(), torch.empty(0)).device
        self.precision = chosen(precision, self.device)
        self.folded = None
        self.passes = dropout.Passes(network) if network.drops else None
        if self.device.type == "cuda":
            if self.precision == "fp32":  # left to itself, a card multiplies in 10 bits of its 23
                torch.backends.cudnn.allow_tf32 = False
            self.network = copy.deepcopy(network)
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d | nn.Conv3d):
                    last = torch.channels_last_3d if isinstance(module, nn.Conv3d) else torch.channels_last
                    in_memory_format(module, last)
            return
        self.folded = network.folded(HALVES.get(self.precision, torch.float32))
        if self.folded is None and self.precision == "bf16":
            name = type(network).__name__
            raise WeightsError(f"precision bf16 is not made for {name}; use --precision fp32")

    @torch.inference_mode()
    def base(self, x: Tensor) -> Tensor:
        """(N, C, …) → what comes before the first dropout behind the convolutions; without one, the features."""
        x = x.to(self.device)
        if self.folded:
            return torch.cat([self.folded(volume[None]) for volume in x])  # (N, 64, 3, 5, 5)
        with self._half():
            return self.network.base(x)

    def _half(self) -> torch.autocast:
        """Half precision for the plain modules, where it was chosen; what is folded has its own."""
        dtype = None if self.folded else HALVES.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @torch.inference_mode()
    def answer(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """What `base` gave → logits (N, K) and penultimate features (N, F), both float32 on the device."""
        with self._half():
            features = self.network.top(base.float()).float()
        return self.network.head(features), features

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, …) → logits (N, K) and penultimate features (N, F), both float32 on the device."""
        return self.answer(self.base(x))
