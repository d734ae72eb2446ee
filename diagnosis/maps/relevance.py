"""Layer-wise relevance: the score handed back layer by layer to the voxels that made it.

Written here, since libraries for it run a 3-D network of this size whole, in several times the memory and time.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diagnosis.maps.network_view import CONVS, FoldedBlock, NetworkView, Progress
from networks.blockwise import CHANNELS_LAST, channels_last, convolve, unpool
from scans.prepare import Prepared

GAMMA, EPSILON = 0.25, 1e-6


def relevance(view: NetworkView, x: Tensor, prepared: Prepared, progress: Progress) -> tuple[Tensor, float]:
    """Layer-wise relevance: the score handed back layer by layer, each input paid by its share of the output.

    γ rule (what speaks for an output counts 1 + γ times) in the convolutions, ε rule in the dense layers, plain
    shares in the first layer, whose input has both signs; a max-pool pays its winner. Written as gradient × input
    of a network whose layers give their rule's output times a constant that restores the true value: the gradient
    of that is the rule. A sum of branches then shares out by size, so networks that are no chains go through too;
    only where an attention multiplies is nothing conserved.
    """
    for name, layer in view.network.named_modules():
        if isinstance(layer, (*CONVS, nn.Linear)) and name != view.first:
            layer.register_forward_hook(rule(GAMMA if isinstance(layer, CONVS) else 0.0))
    base, traces = x, []
    for number, block in enumerate(view.blocks):
        base, trace = traced(block, base, GAMMA if number else 0.0)
        traces.append(trace)
        progress(0.5 * (number + 1) / len(view.blocks))
    base = base.detach().requires_grad_()
    with torch.enable_grad():
        score = view.score(view.tail(base))
    (gradient,) = torch.autograd.grad(score.sum(), base)
    for number, block in reversed(list(enumerate(view.blocks))):
        gradient = handed_back(block, traces.pop(), gradient, GAMMA if number else 0.0)
        progress(1 - 0.5 * number / len(view.blocks))
    return (gradient * x).sum(1)[0], score.item()


# ---- a block of the 3-D network, by hand: torch's own backward of a convolution takes seven times as long here


@dataclass(frozen=True, eq=False)
class Trace:
    """What is kept of a block's forward pass: by slab which inputs its pool took, and the rule's share of each."""

    shape: torch.Size  # of the input
    winners: list[Tensor]  # (1, C, k, Y, Z): places in the slab's convolution output
    shares: list[Tensor]  # (1, C, k, Y, Z): output over the rule's output, 0 where ReLU gives nothing


@torch.no_grad()
def traced(block: FoldedBlock, x: Tensor, gamma: float) -> tuple[Tensor, Trace]:
    """A block's output and its trace; the input is not negative where the γ rule holds."""
    weight, bias = block.weight, block.bias
    if gamma:  # the same layer with what is positive in it alone, beside it
        weight = channels_last(torch.cat([weight, weight.clamp(min=0)]))
        bias = torch.cat([bias, bias.clamp(min=0)])
    made, trace = [], Trace(x.shape, [], [])
    for _, seen in block.slabs(x):
        both = convolve(x[:, :, seen], weight, bias)  # (1, 2C, X, Y, Z)
        out, winners = F.max_pool3d(both[:, : len(block.weight)], block.step, return_indices=True)
        made.append(out.clamp(min=0))
        trace.winners.append(winners)
        alive = (out > 0).float()
        if gamma:
            speaks = both[:, len(block.weight) :].flatten(2).gather(2, winners.flatten(2)).view_as(out)
            alive *= out / (out + gamma * speaks + EPSILON)
        trace.shares.append(alive)
    return torch.cat(made, 2), trace


@torch.no_grad()
def handed_back(block: FoldedBlock, trace: Trace, gradient: Tensor, gamma: float) -> Tensor:
    """The gradient of a block's rule for its input, from that for its output."""
    weight = block.weight + gamma * block.weight.clamp(min=0)
    back = torch.zeros(trace.shape, device=gradient.device).contiguous(memory_format=CHANNELS_LAST)
    parts = block.slabs(back)
    for (part, seen), winners, share in zip(parts, trace.winners, trace.shares, strict=True):
        size = (1, len(weight), *(n - 2 for n in (seen.stop - seen.start, *trace.shape[3:])))
        like = torch.empty(size, device=gradient.device, memory_format=CHANNELS_LAST)
        back[:, :, seen] += transposed(unpool(gradient[:, :, part] * share, winners, like, block.step), weight)
    return back


def transposed(x: Tensor, weight: Tensor) -> Tensor:
    """conv_transpose3d of a 3×3×3 convolution with `weight`, as convolutions, which are several times quicker."""
    flipped = weight.flip(2, 3, 4).transpose(0, 1)  # (in, out, 3, 3, 3)
    if len(flipped) > 1:
        return convolve(channels_last(x), channels_last(flipped), flipped.new_zeros(len(flipped)), padding=2)
    # One channel alone leaves a vector unit idle: eight neighbours of the output at once, as so many channels.
    size = [n + 2 for n in x.shape[2:]]
    corners = list(itertools.product((0, 1), repeat=3))
    eight = torch.cat([F.pad(flipped, [c, 1 - c, b, 1 - b, a, 1 - a]) for a, b, c in corners])  # (8, out, 4, 4, 4)
    if any(n % 2 for n in size):
        x = F.pad(x, [n % 2 * side for n in reversed(size) for side in (0, 1)])
    made = convolve(channels_last(x), channels_last(eight), eight.new_zeros(8), (2, 2, 2), 2)[0]
    # (8, X / 2, Y / 2, Z / 2)
    made = made.unflatten(0, (2, 2, 2)).permute(3, 0, 4, 1, 5, 2)  # (X / 2, 2, Y / 2, 2, Z / 2, 2)
    made = made.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    return made[: size[0], : size[1], : size[2]][None, None]


# ---- other networks, by hooks


def rule(gamma: float) -> Callable:
    """A forward hook under which gradient × input of its layer is the γ rule (γ = 0: the ε rule).

    Where an output is negative, as before the sum of two branches, it is what speaks against that counts 1 + γ
    times; so the rule's output is never smaller than the true one, and nothing is divided by almost nothing.
    """

    def hook(layer, inputs, output):
        if not torch.is_grad_enabled():
            return None
        ruled = output
        if gamma:
            favoured = copy.copy(layer)  # the same layer with what is positive in it alone
            favoured._parameters = {
                name: None if value is None else value.clamp(min=0) for name, value in layer._parameters.items()
            }
            favoured._forward_hooks = {}
            speaks = favoured(inputs[0].clamp(min=0))
            ruled = output + gamma * torch.where(output < 0, output - speaks, speaks)
        steady = ruled.detach() + EPSILON * torch.where(ruled.detach() < 0, -1.0, 1.0)
        return ruled * (output.detach() / steady)

    return hook
