"""Layer-wise relevance: the score handed back layer by layer to the voxels that made it.

Written here, since libraries for it run a 3-D network of this size whole, in several times the memory and time.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diagnosis.network_view import CONVS, NetworkView, Progress
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
    with torch.enable_grad():
        middle = view.front(x).detach().requires_grad_()
        score = view.score(view.tail(middle))
    (gradient,) = torch.autograd.grad(score.sum(), middle)
    progress(0.2)
    if not view.cut:
        return (gradient * x).sum(1)[0], score.item()
    values = torch.zeros_like(x[0, 0])
    for start, slabs in view.slabs(x):
        slabs.requires_grad_()
        with torch.enable_grad():
            made = view.piece(slabs)  # (n, 16, k, 41, 41)
        thick = made.shape[2]
        share = gradient[0, :, start : start + len(made) * thick]  # (16, n · k, 41, 41)
        share = share.unflatten(1, (len(made), thick)).transpose(0, 1)  # (n, 16, k, 41, 41)
        (back,) = torch.autograd.grad(made, slabs, share)
        for number, slab in enumerate((back * slabs.detach())[:, 0]):
            first = view.STEP * (start + number * thick)
            values[first : first + len(slab)] += slab
        progress(0.2 + 0.8 * (start + len(made) * thick) / gradient.shape[2])
    return values, score.item()


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
