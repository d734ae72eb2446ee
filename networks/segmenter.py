"""The segmentation network: a small U-Net that works at half resolution and answers at full resolution.

The eight voxels of each 2×2×2 cube go in as channels, and the last layer gives each of the eight its own class
scores, so that edges come out at the full resolution for the cost of half of it. Instance norm takes away
whatever a scanner does to brightness. No scans and no labels are read here.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.precision import card_has_bf16

CLASSES = (
    "background", "fluid", "grey", "white", "lateral", "inferior_horn", "third", "fourth", "hippocampus",
    "cerebellum", "stem",
)  # fmt: skip
CUBE = 8  # voxels of a 2×2×2 cube
PAIRS = {1: torch.int16, 2: torch.int32, 4: torch.int64, 8: torch.complex128}  # of two elements of so many bytes
MULTIPLE = 16  # voxels; every side of a volume must be a multiple of it


def to_cubes(volume: Tensor) -> Tensor:
    """(N, X, Y, Z) → (N, X/2, Y/2, Z/2, 8): the voxels of each cube side by side."""
    n, x, y, z = volume.shape
    pairs = volume.contiguous().view(PAIRS[volume.element_size()])  # moved as one, in half the time
    cubes = pairs.view(n, x // 2, 2, y // 2, 2, z // 2).permute(0, 1, 3, 5, 2, 4)
    return cubes.reshape(n, x // 2, y // 2, z // 2, CUBE // 2).view(volume.dtype)


def from_cubes(cubes: Tensor) -> Tensor:
    """(N, x, y, z, 8) → (N, 2x, 2y, 2z), the reverse of `to_cubes`."""
    n, x, y, z, _ = cubes.shape
    pairs = cubes.contiguous().view(PAIRS[cubes.element_size()])
    volume = pairs.view(n, x, y, z, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return volume.reshape(n, 2 * x, 2 * y, z).view(cubes.dtype)


def fast_bf16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 faster than float32."""
    return card_has_bf16(device) if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()


class ConvNorm(nn.Module):
    """Conv 3×3×3 → instance norm → leaky ReLU, on one volume at a time."""

    def __init__(self, fan_in: int, fan_out: int):
        super().__init__()
        self.conv = nn.Conv3d(fan_in, fan_out, 3, padding=1, bias=False)
        self.weight = nn.Parameter(torch.ones(fan_out))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        # For one volume batch norm is instance norm, and unlike torch's own it keeps the channels last.
        x = functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=1e-4)
        return functional.leaky_relu(x, 0.01, inplace=True)


class Segmenter(nn.Module):
    """`widths` are the channels from the half resolution downwards, each level at half the one above."""

    def __init__(self, classes: int = len(CLASSES), widths: tuple[int, ...] = (16, 32, 64, 96), hidden: int = 96):
        super().__init__()
        self.classes = classes
        self.down = nn.ModuleList(
            nn.Sequential(ConvNorm(above, width), ConvNorm(width, width))
            for above, width in zip((CUBE, *widths), widths, strict=False)
        )
        pairs = list(pairwise(widths))
        self.across = nn.ModuleList(nn.Conv3d(below, width, 1) for width, below in pairs)
        self.up = nn.ModuleList(ConvNorm(width, width) for width, _ in pairs)
        # A voxel is judged by where its cube lies and by its own brightness: that takes more than one layer.
        self.mix = nn.Linear(2 * widths[0] + CUBE, hidden)
        self.scores = nn.Linear(hidden, CUBE * classes)

    def features(self, cubes: Tensor) -> Tensor:
        """(1, x, y, z, 8), no signal as 0 → (1, 2 · width + 8, x, y, z): last layer, first layer, voxels."""
        x = cubes.permute(0, 4, 1, 2, 3)  # (1, 8, x, y, z), channels last in memory
        with torch.autocast(cubes.device.type, torch.bfloat16, enabled=fast_bf16(cubes.device)):
            return self.walk(x)

    def walk(self, cubes: Tensor) -> Tensor:
        """Down the levels and up again."""
        enter, stay = self.down[0].children()
        first = enter(cubes)
        kept = [stay(first)]
        for block in self.down[1:]:
            kept.append(block(functional.max_pool3d(kept[-1], 2)))
        x = kept.pop()
        for level in reversed(range(len(self.up))):
            below = functional.interpolate(self.across[level](x), scale_factor=2, mode="nearest")
            x = self.up[level](below.add_(kept.pop()))
        voxels = functional.batch_norm(cubes, None, None, training=True, eps=1e-4)
        return torch.cat([x, first, voxels.to(x.dtype)], 1)

    def mixed(self, rows: Tensor) -> Tensor:
        """Features of M cubes (M, 2 · width + 8) → (hidden, M): cubes last, which all that follows is quick at."""
        return torch.addmm(self.mix.bias[:, None], self.mix.weight, rows.float().T).relu_()

    def answer(self, rows: Tensor) -> Tensor:
        """Features of M cubes (M, 2 · width + 8) → class scores (8, classes, M)."""
        scores = torch.addmm(self.scores.bias[:, None], self.scores.weight, self.mixed(rows))
        return scores.view(CUBE, self.classes, len(rows))

    def mean_answer(self, rows: Tensor) -> Tensor:
        """The scores' mean over each cube's voxels: (classes, M); as exact as the features are."""
        weight, bias = (
            self.scores.weight.view(CUBE, self.classes, -1).mean(0),
            self.scores.bias.view(CUBE, -1).mean(0),
        )
        layers = [each.to(rows.dtype) for each in (self.mix.weight, self.mix.bias, weight, bias)]
        return functional.linear(functional.linear(rows, *layers[:2]).relu_(), *layers[2:]).T.float()

    def forward(self, volume: Tensor) -> Tensor:
        """(1, X, Y, Z) → class scores (1, classes, X, Y, Z)."""
        features = self.features(to_cubes(volume))
        scores = self.answer(features.permute(0, 2, 3, 4, 1).flatten(0, 3))
        cubes = scores.view(CUBE, self.classes, *features.shape[2:]).permute(1, 2, 3, 4, 0)
        return from_cubes(cubes.contiguous())[None]
