"""The 3-D block conv → batch norm → ReLU → max pool walked a few planes at a time: the fast forward and training.

The conv's output, by far the largest tensor, never exists whole: each slab of it is pooled while it is still in
the cache. Values and gradients are those of the plain modules; batch norm's statistics cover every conv output.
It is our own because neither torch (eager or compiled), ONNX Runtime nor OpenVINO fuses the conv with its pool: on
the same processor each of them took longer and more memory (`benchmarks/bench_forward.py`, `bench_train.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.base import pool_size, present

CHANNELS_LAST = torch.channels_last_3d
FIRST_BLOCK_PLANES = 3  # planes of block 1 at a time in the fast forward
SLAB_BYTES = 16 << 20  # of one slab's conv output: more leaves the cache, and malloc hands it back to the system


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; others only imitate it, slowly."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int] = (1, 1, 1), padding: int = 0
) -> Tensor:
    """conv3d by oneDNN where torch has it: left to itself, torch takes a slow path for one small volume."""
    if not x.is_cuda and torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution"):
        return torch.mkldnn_convolution(x, weight, bias, [padding] * 3, list(stride), [1] * 3, 1)
    return F.conv3d(x, weight, bias, stride, padding)


def channels_last(x: Tensor) -> Tensor:
    if x.shape[1] == 1:  # torch cannot tell the two orders apart for one channel, oneDNN goes by the strides
        return x.contiguous().view(x.shape[0], *x.shape[2:], 1).permute(0, 4, 1, 2, 3)
    return x.contiguous(memory_format=CHANNELS_LAST)


# --- the fast forward -------------------------------------------------------------------------------------


class Folded:
    """Four blocks in eval mode, batch norm folded into the conv's weights: one volume in, block 4 out.

    Folding comes before pooling, so ReLU after the pool is exact whatever the sign of the batch-norm scale.
    """

    def __init__(self, blocks: Sequence[tuple[nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d]], dtype: torch.dtype):
        self.layers: list[tuple[Tensor, Tensor, int]] = []  # (weight, bias, pool)
        for conv, norm, pool in blocks:
            mean, variance = present(norm.running_mean), present(norm.running_var)
            scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
            weight = conv.weight.double() * _per_output(scale)
            bias = (present(conv.bias).double() - mean) * scale + norm.bias
            self.layers.append(
                (channels_last(weight.detach()).to(dtype), bias.detach().to(dtype), pool_size(pool))
            )
        self.dtype = dtype
        weight, bias, first_pool = self.layers[0]
        # Eight outputs fill half an AVX-512 register: do two neighbours along the last axis as sixteen.
        self.doubles_outputs = (
            first_pool == 2 and len(weight) == 8 and torch.backends.cpu.get_cpu_capability() == "AVX512"
        )
        if self.doubles_outputs:
            both = torch.cat([F.pad(weight, (0, 1)), F.pad(weight, (1, 0))])  # (16, 1, 3, 3, 4)
            self.doubled = channels_last(both), bias.repeat(2)
        second_pool = self.layers[1][2]
        self.step, self.field = first_pool * second_pool, first_pool * (second_pool + 2) + 2  # of block 2's cells
        self.of_nothing = self._two_blocks(torch.zeros(1, 1, self.field, self.field, self.field), 1)

    def __call__(self, x: Tensor, planes: int = 2) -> Tensor:
        """(1, 1, D, H, W) → (1, C, …), blocks 1 and 2 `planes` of block 2's planes at a time.

        Around an outlined brain lies nothing but 0, of which all cells are alike: only the box that holds
        something is walked.
        """
        cells = [(n - self.field) // self.step + 1 for n in x.shape[2:]]  # 26, 41, 41
        box = tuple(self._seeing(*each) for each in zip(filled(x[0, 0]), cells, strict=True))
        whole = self.of_nothing.expand(1, -1, *cells).clone(memory_format=CHANNELS_LAST)
        if all(part.start < part.stop for part in box):
            seen = tuple(slice(self.step * part.start, self.step * (part.stop - 1) + self.field) for part in box)
            whole[0][(slice(None), *box)] = self._two_blocks(x[0, 0][seen].contiguous()[None, None], planes)[0]
        x = whole  # (1, 16, 26, 41, 41)
        for number in range(2, len(self.layers)):
            x = self._block(x, number)
        return x

    def _seeing(self, part: slice, count: int) -> slice:
        """Which of `count` cells of block 2 see anything of a part of an axis."""
        first = -((self.field - 1 - part.start) // self.step)
        return slice(max(0, first), min(count, (part.stop - 1) // self.step + 1))

    def _two_blocks(self, x: Tensor, planes: int) -> Tensor:
        """A slab of k planes needs input planes 6a … 6(a + k) + 6; what its last two planes of block 1 share with
        the next slab is kept, not done twice."""
        x = channels_last(x.to(self.dtype))
        pool_1, pool_2 = self.layers[0][2], self.layers[1][2]
        depth = ((x.shape[2] - 2) // pool_1 - 2) // pool_2  # 26
        done = 0
        kept: list[Tensor] = []
        slabs: list[Tensor] = []
        for start in range(0, depth, planes):
            stop = pool_2 * min(start + planes, depth) + 2  # of block 1's planes
            for at in range(done, stop, FIRST_BLOCK_PLANES):
                kept.append(
                    self._first_block(x[:, :, pool_1 * at : pool_1 * min(at + FIRST_BLOCK_PLANES, stop) + 2])
                )
            h = torch.cat(kept, 2).relu_()  # (1, 8, 3k + 2, 127, 127)
            slabs.append(self._block(h, 1))  # (1, 16, k, 41, 41)
            done, kept = stop, [h[:, :, -2:]]
        return torch.cat(slabs, 2)

    def _block(self, x: Tensor, number: int) -> Tensor:
        return self._pooled(x, number).relu_()

    def _pooled(self, x: Tensor, number: int) -> Tensor:
        weight, bias, pool = self.layers[number]
        return F.max_pool3d(convolve(x, weight, bias), pool)

    def _first_block(self, x: Tensor) -> Tensor:
        """Block 1 up to its pool; ReLU comes once for a whole slab, since few large steps stall less than many."""
        if not self.doubles_outputs or x.shape[4] % 2:
            return self._pooled(x, 0)
        x = convolve(x, *self.doubled, (1, 1, 2))  # (1, 16, D, 254, 127)
        x = _max_in_place(x[:, :, 0::2], x[:, :, 1::2])  # (1, 16, D / 2, 254, 127)
        even = x.shape[3] // 2 * 2
        x = _max_in_place(x[:, :, :, 0:even:2], x[:, :, :, 1:even:2])  # (1, 16, D / 2, 127, 127)
        return torch.maximum(x[:, :8], x[:, 8:])


def filled(x: Tensor) -> list[slice]:
    """The box of a volume that holds all that is not 0; empty where nothing is."""
    values = x.numpy()  # whose `any` takes a tenth of torch's time
    across = np.any(values, axis=0)  # (H, W)
    by_axis = (values.any(axis=(1, 2)), across.any(axis=1), across.any(axis=0))
    found = [np.flatnonzero(each) for each in by_axis]
    return [slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0) for at in found]


def _max_in_place(a: Tensor, b: Tensor) -> Tensor:
    """The larger of the two, in a's place: half a max pool, faster than torch's, which is not vectorised so."""
    return torch.maximum(a, b, out=a)


# --- training ---------------------------------------------------------------------------------------------


def can_walk(x: Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d, pool: nn.MaxPool3d) -> bool:
    """Whether `train_block` can stand in for the modules: CPU, float32, plain 3-D kernels, batch statistics."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_grad_enabled()
        and norm.training
        and type(norm) is nn.BatchNorm3d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and not torch.is_autocast_enabled("cpu")
        and conv.kernel_size == (3, 3, 3)
        and conv.bias is not None
        and torch.backends.mkldnn.is_available()
        and min(x.shape[2:]) >= pool_size(pool) + 2
    )


def train_block(x: Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d, pool: nn.MaxPool3d) -> Tensor:
    """`pool(relu(norm(conv(x))))` in training, running statistics updated as the module does."""
    out, mean, variance = _Block.apply(
        x, conv.weight, conv.bias, norm.weight, norm.bias, pool_size(pool), norm.eps
    )
    with torch.no_grad():
        momentum = present(norm.momentum)
        present(norm.num_batches_tracked).add_(1)
        present(norm.running_mean).lerp_(mean, momentum)
        present(norm.running_var).lerp_(variance, momentum)
    return out


def _planes_of(x: Tensor, planes: list[tuple[int, int, int]]) -> Tensor:
    """Planes start…stop of volume n, one after the other along the batch, channels last."""
    return channels_last(torch.cat([x[n : n + 1, :, start:stop] for n, start, stop in planes]))


def _slabs(x: Tensor, outputs: int, pool: int) -> tuple[list, list]:
    """Slabs of (volume, start, stop) that pooling meets, and one of the planes left over at the end, if any.

    Each entry gives one pooled plane. A slab has two or more, since torch's backward of one volume is slow.
    """
    depth, height, width = (size - 2 for size in x.shape[2:])  # of the conv's output
    per = max(2, SLAB_BYTES // (4 * outputs * pool * height * width))
    planes = [(n, z, z + pool + 2) for n in range(len(x)) for z in range(0, depth - pool + 1, pool)]
    rest = [(n, depth - depth % pool, depth + 2) for n in range(len(x))]
    return [planes[i : i + per] for i in range(0, len(planes), per)], [rest] if depth % pool else []


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, needs_grad_x: bool):
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1, [needs_grad_x, True, True]
    )


def _patch_sums(x: Tensor) -> Tensor:
    """For each offset in the 3×3×3 kernel the sum of what it meets: the conv of it is the sum of conv(x)."""
    size = [n - 2 for n in x.shape[2:]]
    x = x.sum(0)  # (C, D, H, W)
    x = torch.stack([x.narrow(1, i, size[0]).sum(1) for i in range(3)], 1).double()  # (C, 3, H, W)
    x = torch.stack([x.narrow(2, i, size[1]).sum(2) for i in range(3)], 2)  # (C, 3, 3, W)
    return torch.stack([x.narrow(3, i, size[2]).sum(3) for i in range(3)], 3)  # (C, 3, 3, 3)


def _per_output(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


class _Block(torch.autograd.Function):
    """Written by hand, because the statistics need no second look at the conv's output.

    With y = sign(γ)·(conv(x) − its mean), the block is relu(|γ|/σ · pool(y) + β): pooling first is exact
    whatever the sign of γ. Where x needs no gradient, T = Σ y·patch(x), the conv's weight gradient of y itself,
    gives both the variance (w·T) and the statistics' share of the weight gradient, in closed form.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, gamma, beta, pool, eps):
        ctx.needs_grad_x = ctx.needs_input_grad[0]
        depth, height, width = (size - 2 for size in x.shape[2:])
        count = len(x) * depth * height * width
        sign = torch.where(gamma < 0, -1.0, 1.0).double()
        patch = _patch_sums(x)
        w = weight.double() * _per_output(sign)
        centre = (w * patch).sum((1, 2, 3, 4)) / count  # the mean of sign(γ)·conv(x), bias aside
        w32, b32 = w.float().contiguous(memory_format=CHANNELS_LAST), (-centre).float()
        ctx.slabs, ctx.rest = _slabs(x, len(w), pool)
        pooled = x.new_empty((len(x), len(w), depth // pool, height // pool, width // pool)).contiguous(
            memory_format=CHANNELS_LAST
        )
        products, total = torch.zeros_like(w), torch.zeros_like(centre)  # T (or only Σ y², by channel) and Σ y
        squares = torch.zeros_like(centre)
        places = []
        for slab in ctx.slabs + ctx.rest:  # the rest is met by no pooling window, but counts in the statistics
            cut = _planes_of(x, slab)
            y = convolve(cut, w32, b32)  # (B, C, pool, H, W)
            if slab not in ctx.rest:
                top, place = F.max_pool3d(y, pool, return_indices=True)  # (B, C, 1, H / pool, W / pool)
                places.append(place)
                for i, (n, z, _) in enumerate(slab):
                    pooled[n, :, z // pool] = top[i, :, 0]
            if ctx.needs_grad_x:
                total += y.sum((0, 2, 3, 4))
                squares += y.square_().sum((0, 2, 3, 4))
            else:
                _, product, sums = _conv_backward(y, cut, w32, False)
                products += product
                total += sums
        if not ctx.needs_grad_x:
            squares = (w32 * products).sum((1, 2, 3, 4)) + b32 * total
        mean = total / count
        variance = (squares / count - mean.square()).clamp_(min=0)
        inverse = (variance + eps).rsqrt()
        scale = gamma.double().abs() * inverse
        out = pooled.clone() if ctx.needs_grad_x else pooled
        shift = (beta - scale * mean).float()
        out.mul_(scale.float().view(1, -1, 1, 1, 1)).add_(shift.view(1, -1, 1, 1, 1)).clamp_(min=0)
        ctx.pool, ctx.count = pool, count
        ctx.save_for_backward(x, out, pooled, w32, b32, products, patch, mean, inverse, scale, sign, *places)
        mean = ((mean + centre) * sign + bias).float()
        variance = (variance * (count / max(count - 1, 1))).float()
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):
        x, out, pooled, weight, bias, products, patch, mean, inverse, scale, sign, *places = ctx.saved_tensors
        known = _Saved(
            x, out, pooled, weight, bias, products, patch, mean, inverse, scale, places,
            ctx.slabs, ctx.rest, ctx.pool, ctx.count,
        )  # fmt: skip
        walk = _backward_with_input if ctx.needs_grad_x else _backward_weights_only
        grad_x, grad_w, sums, dots = walk(known, grad)
        grad_w, grad_gamma = (grad_w * _per_output(sign)).float(), (sign * known.inverse * dots).float()
        return grad_x, grad_w, torch.zeros_like(known.bias), grad_gamma, sums.float(), None, None


@dataclass(frozen=True, eq=False)
class _Saved:
    """What the forward leaves to the backward."""

    x: Tensor
    out: Tensor
    pooled: Tensor  # before scale, shift and ReLU
    weight: Tensor  # of y, float32, channels last
    bias: Tensor  # of y
    products: Tensor  # T, where x needs no gradient
    patch: Tensor  # the sums of what each kernel offset meets
    mean: Tensor  # of y
    inverse: Tensor  # 1 / σ
    scale: Tensor  # |γ| / σ
    places: Sequence[Tensor]  # of each slab's maxima
    slabs: list
    rest: list
    pool: int
    count: int


def _pooled_planes(slab: list, pool: int) -> list:
    """The pooled planes that a slab gives."""
    return [(n, z // pool, z // pool + 1) for n, z, _ in slab]


def unpool(grad: Tensor, place: Tensor, like: Tensor, pool: int) -> Tensor:
    """The pooled gradient, put back where each maximum came from in a tensor like `like`."""
    return torch.ops.aten.max_pool3d_with_indices_backward(
        grad, like, [pool] * 3, [pool] * 3, [0] * 3, [1] * 3, False, place
    )


def _backward_weights_only(known: _Saved, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
    """For an x without gradient: only the pooled maxima are walked, the statistics' share is in closed form."""
    x, weight, pool, mean = known.x, known.weight, known.pool, known.mean
    grad_w, sums = torch.zeros_like(known.products), torch.zeros_like(mean)
    shape = (len(weight), pool, x.shape[3] - 2, x.shape[4] - 2)
    for slab, place in zip(known.slabs, known.places, strict=True):
        like = torch.empty((len(slab), *shape), memory_format=CHANNELS_LAST)
        rows = _pooled_planes(slab, pool)
        masked = torch.ops.aten.threshold_backward(_planes_of(grad, rows), _planes_of(known.out, rows), 0)
        grad_y = unpool(masked, place, like, pool)  # (B, C, pool, H, W)
        _, part, total = _conv_backward(grad_y, _planes_of(x, slab), weight, False)
        grad_w += part
        sums += total
    dots = (weight * grad_w).sum((1, 2, 3, 4)) + known.bias * sums - mean * sums  # Σ gradient · (y − mean)
    share = dots * known.inverse.square() / known.count
    of_mean, of_variance = _per_output(sums / known.count), _per_output(share)
    grad_w = grad_w - of_mean * known.patch - of_variance * (known.products - _per_output(mean) * known.patch)
    return None, grad_w * _per_output(known.scale), sums, dots


def _backward_with_input(known: _Saved, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """With a gradient for x: the gradient of every conv output, slab by slab, from the conv done again."""
    x, weight, scale, pool = known.x, known.weight, known.scale, known.pool
    masked = torch.ops.aten.threshold_backward(grad.contiguous(memory_format=CHANNELS_LAST), known.out, 0)
    sums = masked.sum((0, 2, 3, 4)).double()
    dots = (masked * known.pooled).sum((0, 2, 3, 4)).double() - known.mean * sums
    share = -scale * known.inverse.square() * dots / known.count  # of y in each conv output's gradient
    constant = -scale * sums / known.count - share * known.mean
    w_share = (weight * _per_output(share)).float().contiguous(memory_format=CHANNELS_LAST)
    b_share = (known.bias * share + constant).float()
    masked *= scale.float().view(1, -1, 1, 1, 1)
    grad_x = torch.zeros_like(x, memory_format=CHANNELS_LAST)
    grad_w = torch.zeros_like(known.products)
    for i, slab in enumerate(known.slabs + known.rest):
        cut = _planes_of(x, slab)
        grad_y = convolve(cut, w_share, b_share)  # (B, C, pool, H, W)
        if slab not in known.rest:
            grad_y += unpool(_planes_of(masked, _pooled_planes(slab, pool)), known.places[i], grad_y, pool)
        part_x, part_w, _ = _conv_backward(grad_y, cut, weight, True)
        grad_w += part_w
        for k, (n, start, stop) in enumerate(slab):
            grad_x[n, :, start:stop] += part_x[k]
    return grad_x, grad_w, sums, dots
