"""A network made ready to be explained: batch norm folded, layers placed, cut where it may run in parts.

It explains nothing itself and changes nothing of the network in use, of which it keeps a private copy.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

from networks.base import Network

CONVS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Progress = Callable[[float], None]  # hears of the share that is done, 0 to 1
Cells = list[tuple[float, float]]  # an axis: where on the input its first cell lies, and how far apart they lie


class NetworkView:
    """A private copy of a network, batch norm folded into what stands before it, cut into a front and a tail.

    The front of the big 3-D network (blocks 1 and 2, nearly all of the work and of the memory) runs on pieces of
    its input: each cell of its output sees `FIELD` voxels and lies `STEP` further on. Other networks have none.
    """

    STEP, FIELD = 6, 12

    def __init__(self, network: Network, shape: torch.Size, target: int):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.target, self.cam_layer = target, network.cam_layer
        self.first, pairs, self.cells = survey(network, shape)
        for before, norm in pairs:
            folded, bn = self.network.get_submodule(before), self.network.get_submodule(norm)
            fuse = fuse_linear_bn_eval if isinstance(folded, nn.Linear) else fuse_conv_bn_eval
            self.network.set_submodule(before, fuse(folded, bn))
            self.network.set_submodule(norm, nn.Identity())
        self.network.requires_grad_(False)
        self.cut = len(network.blocks()) > 2
        if self.cut:
            self.network.to(memory_format=torch.channels_last_3d)

    def front(self, x: Tensor) -> Tensor:
        """From the input to where the network is cut, without gradients."""
        if not self.cut:
            return x
        with torch.no_grad():
            done = [self.piece(slabs) for _, slabs in self.slabs(x)]  # each (n, 16, 13, 41, 41)
        return torch.cat(done).transpose(0, 1).flatten(1, 2)[None]  # (1, 16, 26, 41, 41)

    def piece(self, x: Tensor) -> Tensor:
        """The front of some pieces (n, 1, X, Y, Z) of an input; ReLU after the pool is the same, and cheaper."""
        x = self.network.Conv_1_mp(self.network.Conv_1(x)).relu()
        return self.network.Conv_2_mp(self.network.Conv_2(x)).relu()

    def slabs(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The input (1, 1, X, Y, Z) in batches of overlapping slabs, each with its first cell's number."""
        count = (x.shape[2] - self.FIELD) // self.STEP + 1  # cells along the first axis: 26
        thick = max(k for k in range(1, 14) if count % k == 0)  # cells a slab: 13
        size = self.STEP * (thick - 1) + self.FIELD  # 84
        slabs = x[0, 0].unfold(0, size, self.STEP * thick)  # (2, Y, Z, 84)
        slabs = slabs.movedim(-1, 1)[: count // thick, None]  # (2, 1, 84, Y, Z)
        batch = max(1, 110 // size)
        for start in range(0, len(slabs), batch):
            yield start * thick, slabs[start : start + batch].contiguous()

    def tail(self, x: Tensor) -> Tensor:
        """From where the network is cut to the logits."""
        network = self.network
        if self.cut:
            return network.head(network.thaw(x))  # blocks 3 and 4, then the dense layers
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
            made.cells = [self.move(name, axis, cell, args, kwargs or {}) for axis, cell in enumerate(cells)]
        return made

    @staticmethod
    def move(name: str, axis: int, cell: tuple[float, float], args: tuple, kwargs: dict) -> tuple[float, float]:
        """Where the cells lie after one function: a window's cell lies at the window's middle."""
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
        start, step = cell
        return start + step * (dilation * (size - 1) / 2 - padding), step * stride


def survey(network: Network, shape: torch.Size) -> tuple[str, list[tuple[str, str]], Cells]:
    """One forward pass without numbers: the first layer, the batch norms to fold, the cells of the CAM layer."""
    ghost = copy.deepcopy(network).eval().to("meta")
    made: dict[int, tuple[str, Tensor]] = {}
    layers, pairs, found = [], [], []

    def look(name):
        def hook(module, inputs, output):
            if isinstance(module, NORMS) and id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], name))
            if isinstance(module, (*CONVS, nn.Linear)):
                made[id(output)] = (name, output)  # kept, so that the id stays its own
                layers.append(name)
            if name == network.cam_layer:
                found.append(output.cells)

        return hook

    for name, module in ghost.named_modules():
        module.register_forward_hook(look(name))
    x = torch.empty(shape, device="meta")
    x.cells = [(0.0, 1.0)] * (len(shape) - 2)
    with torch.no_grad(), _Cells():
        ghost(x)
    return layers[0], pairs, found[0]
