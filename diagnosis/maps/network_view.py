"""A network made ready to be explained: batch norm folded, layers placed, its blocks taken one by one.

It explains nothing itself and changes nothing of the network in use, of which it keeps a private copy.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

from networks.base import Network, pool_size, present
from networks.blockwise import SLAB_BYTES, channels_last, convolve

CONVS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Progress = Callable[[float], None]  # hears of the share that is done, 0 to 1
Cell = tuple[float, float]  # along an axis: where on the input the first cell lies, and how far apart they lie
Cells = list[Cell]  # by axis
Survey = tuple[str, list[tuple[str, str]], Cells]  # first layer, pairs of layer and norm, cells of the CAM layer


class FoldedBlock:
    """One block conv → max pool → ReLU of a 3-D network: each cell of its output sees `field` cells of its input,
    the next one those `step` further on."""

    def __init__(self, conv: nn.Conv3d, pool: nn.MaxPool3d):
        self.weight, self.bias = channels_last(conv.weight), present(conv.bias)
        self.step, self.field = pool_size(pool), pool_size(pool) + 2

    def __call__(self, x: Tensor) -> Tensor:
        return F.max_pool3d(convolve(x, self.weight, self.bias), self.step).relu_()

    def slabs(self, x: Tensor) -> list[tuple[slice, slice]]:
        """Parts of the output's first axis and what each sees of the input's, small enough for the cache."""
        planes = (x.shape[2] - 2) // self.step
        each = max(1, SLAB_BYTES // (4 * len(self.weight) * self.step * x.shape[3] * x.shape[4]))
        parts = [slice(start, min(start + each, planes)) for start in range(0, planes, each)]
        return [(part, slice(self.step * part.start, self.step * part.stop + 2)) for part in parts]

    def whole(self, x: Tensor) -> Tensor:
        """The block of a whole input (1, C, X, Y, Z), slab by slab: its conv's output never exists at once."""
        return torch.cat([self(x[:, :, seen]) for _, seen in self.slabs(x)], 2)


class NetworkView:
    """A private copy of a network, batch norm folded into what stands before it, cut into a base and a tail.

    The base of the 3-D network is its four blocks, nearly all of the work and of the memory, which heat maps take
    one by one and in parts. Other networks have no base: their tail is all of them.
    """

    def __init__(self, network: Network, shape: torch.Size, target: int, base: Tensor | None = None):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.target, self.cam_layer = target, network.cam_layer
        self.base = base  # what `Network.base` made of the input, where that is known already
        self.first, pairs, self.cells = survey(network, shape)
        for before, norm in pairs:
            layer, bn = self.network.get_submodule(before), self.network.get_submodule(norm)
            if isinstance(layer, nn.Linear) and isinstance(bn, _BatchNorm):
                self.network.set_submodule(before, fuse_linear_bn_eval(layer, bn))
            elif isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(bn, _BatchNorm):
                self.network.set_submodule(before, fuse_conv_bn_eval(layer, bn))
            else:
                raise TypeError(f"{before}: a {type(layer).__name__} cannot take up a {type(bn).__name__}")
            self.network.set_submodule(norm, nn.Identity())
        self.network.requires_grad_(False)
        self.blocks = [FoldedBlock(conv, pool) for conv, _, pool in self.network.blocks()]

    @torch.no_grad()
    def levels(self, x: Tensor) -> list[Tensor]:
        """The input and what each block makes of it; the last is what the tail takes."""
        made = [x]
        for block in self.blocks:
            made.append(block.whole(made[-1]))
        return made

    def tail(self, x: Tensor) -> Tensor:
        """From the last level to the logits."""
        network = self.network
        if self.blocks:
            return network.head(network.top(x))
        if network.stem():  # `base` may shut gradients out there, which maps need
            return network.head(network.thaw(network.through_stem(x)))
        return network(x)

    def score(self, logits: Tensor) -> Tensor:
        """(N, classes) → (N,): the class's logit above the mean of the others."""
        others = logits.sum(1) - logits[:, self.target]
        return logits[:, self.target] - others / max(1, logits.shape[1] - 1)


class _Cells(TorchFunctionMode):
    """Follows through a forward pass where on the input the cells of every tensor lie: (start, step) an axis."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        source = next((a for a in args if isinstance(a, Tensor | list | tuple)), None)
        source = source[0] if isinstance(source, list | tuple) and source else source  # torch.cat
        cells = getattr(source, "cells", None)
        if cells and isinstance(made, Tensor):
            made.cells = [  # type: ignore[attr-defined]  # a mark on the tensor itself
                self.move(name, axis, cell, args, kwargs or {}) for axis, cell in enumerate(cells)
            ]
        return made

    @staticmethod
    def move(name: str, axis: int, cell: Cell, args: tuple, kwargs: dict) -> Cell:
        """Where the cells lie after one function."""
        if not name.startswith(("conv2d", "conv3d", "max_pool", "avg_pool")):
            return cell

        def pick(value):
            return value[axis] if isinstance(value, tuple | list) else value

        if name.startswith("conv"):
            size, stride, padding, dilation = args[1].shape[2 + axis], *map(pick, args[3:6])
        else:  # torch hands a pool's settings over by place or by name
            given = dict(zip(("kernel_size", "stride", "padding"), args[1:], strict=False)) | kwargs
            size, stride, padding = (pick(given[key]) for key in ("kernel_size", "stride", "padding"))
            dilation = pick(given.get("dilation", 1))
        return through(cell, size, stride, padding, dilation)


def through(cell: Cell, size: int, stride: int, padding: int = 0, dilation: int = 1) -> Cell:
    """Where cells lie behind a window: at its middle."""
    start, step = cell
    return start + step * (dilation * (size - 1) / 2 - padding), step * stride


def survey(network: Network, shape: torch.Size) -> Survey:
    """The first layer, the batch norms to fold, the cells of the CAM layer."""
    blocks = network.blocks()
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    by_blocks = norms == [norm for _, norm, _ in blocks]
    if blocks and by_blocks and network.get_submodule(network.cam_layer) is blocks[-1][-1]:
        return read_off(network)
    return passed(network, shape)


def read_off(network: Network) -> Survey:
    """What the blocks tell of a network that ends them with its CAM layer: at once."""
    names = {module: name for name, module in network.named_modules()}
    pairs, cell = [], (0.0, 1.0)
    for conv, norm, pool in network.blocks():
        pairs.append((names[conv], names[norm]))
        cell = through(through(cell, conv.kernel_size[0], 1), pool_size(pool), pool_size(pool))
    return pairs[0][0], pairs, [cell] * 3


def passed(network: Network, shape: torch.Size) -> Survey:
    """What one forward pass without numbers tells; the first of a process opens torch's compiler, in seconds."""
    ghost = copy.deepcopy(network).eval().to("meta")
    made: dict[int, tuple[str, Tensor]] = {}
    layers, pairs, cam_cells = [], [], []

    def look(name):
        def hook(module, inputs, output):
            if isinstance(module, NORMS) and id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], name))
            if isinstance(module, (*CONVS, nn.Linear)):
                made[id(output)] = (name, output)  # kept, so that the id stays its own
                layers.append(name)
            if name == network.cam_layer:
                cam_cells.append(output.cells)

        return hook

    for name, module in ghost.named_modules():
        module.register_forward_hook(look(name))
    x = torch.empty(shape, device="meta")
    x.cells = [(0.0, 1.0)] * (len(shape) - 2)  # type: ignore[attr-defined]
    with torch.no_grad(), _Cells():
        ghost(x)
    return layers[0], pairs, cam_cells[0]
