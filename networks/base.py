"""`Network`: what every network offers to training, diagnosis and the heat maps, with a default for each part.

A new network implements `base`, `head` and `cam_layer`; it overrides the rest where it has more to offer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

Block = tuple[nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d]


class WeightsError(ValueError):
    """A weights file, device or precision that cannot be used; the message says why and what to do."""


def present(value: T | None) -> T:
    """A part that torch calls optional and that every layer here has."""
    if value is None:
        raise TypeError("a layer without bias or running statistics; networks here have both")
    return value


def pool_size(pool: nn.MaxPool3d) -> int:
    """The side of a cubic pool."""
    size = pool.kernel_size
    if not isinstance(size, int):
        raise TypeError(f"a pool of {size}; networks here have cubic ones, given by one number")
    return size


def in_memory_format(module: M, layout: torch.memory_format) -> M:
    """The module with its weights in a memory format, which torch's own types for `to` do not know of."""
    return module.to(memory_format=layout)  # type: ignore[call-overload]


class Network(nn.Module):
    """Logits are `head(top(base(x)))`; what `top` gives are the features that an answer is judged by.

    The constructor takes the number of classes first, and by name whatever a weights file's header keeps for it.
    """

    cam_layer: str  # dotted name of the layer whose channels Grad-CAM weighs
    imagenet = ""  # torchvision's name of the network whose ImageNet weights fit `trunk()`

    def base(self, x: Tensor) -> Tensor:
        """(N, C, …) → what comes before the first dropout behind the convolutions."""
        raise NotImplementedError

    def top(self, x: Tensor) -> Tensor:
        """What `base` gave → features (N, F)."""
        return x

    def head(self, features: Tensor) -> Tensor:
        """Features (N, F) → logits (N, classes)."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        return self.top(self.base(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @property
    def drops(self) -> bool:
        """Whether anything is dropped, so that passes with dropout can differ."""
        return any(isinstance(module, nn.Dropout) for module in self.modules())

    def shares(self, features: Tensor) -> dict[str, dict[str, float]]:
        """What else an answer tells of itself, from its features (1, F): groups of shares that sum to one."""
        return {}

    # ---- the first layers, which `--freeze` keeps as they are

    def stem(self) -> list[nn.Module]:
        """The modules that come first and can be kept as they are; none where the network has no such part."""
        return []

    def through_stem(self, x: Tensor) -> Tensor:
        """The input → what the stem gives."""
        raise NotImplementedError

    def frozen(self, x: Tensor) -> Tensor:
        """The same in eval mode and without gradients, by the quickest way."""
        with torch.no_grad():
            return self.through_stem(x)

    def thaw(self, frozen: Tensor) -> Tensor:
        """What the stem gave → features (N, F)."""
        raise NotImplementedError

    # ---- ways that are faster than the modules

    def blocks(self) -> Sequence[Block]:
        """The blocks conv → batch norm → ReLU → max pool that `base` consists of, where it does."""
        return ()

    def folded(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        """A faster `base` for one volume at a time on the processor, where there is one."""
        return None

    # ---- beginning with ImageNet weights

    def trunk(self) -> nn.Module:
        """The part that ImageNet weights fit."""
        raise NotImplementedError

    def start_from(self, file: Path | None) -> int:
        """Begin with ImageNet weights from a file, or else a download; how many tensors fit."""
        raise ValueError(f"{type(self).__name__} has no ImageNet weights; train it from the start")
