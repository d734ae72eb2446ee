"""The slab walks against the plain modules, which they must equal in value and in gradient."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from networks import blockwise

# inputs, outputs, pool, volume: sizes that pooling divides, and ones that leave planes over on each axis
BLOCKS = {
    "first, even": (1, 8, 2, (2, 1, 12, 20, 22)),
    "first, odd": (1, 8, 2, (3, 1, 13, 21, 23)),
    "first, one volume": (1, 8, 2, (1, 1, 11, 13, 14)),
    "second, even": (8, 16, 3, (2, 8, 14, 17, 20)),
    "second, odd": (8, 16, 3, (3, 8, 16, 15, 19)),
    "second, one volume": (8, 16, 3, (1, 8, 10, 13, 14)),
}


def block(inputs: int, outputs: int, pool: int) -> tuple[nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d]:
    """A block with scales of either sign and statistics that are not those of a new module."""
    conv, norm = nn.Conv3d(inputs, outputs, 3), nn.BatchNorm3d(outputs)
    with torch.no_grad():
        norm.weight.uniform_(0.2, 2).mul_(torch.tensor([1.0, -1.0]).repeat(outputs // 2))
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return conv, norm, nn.MaxPool3d(pool)


def plain(x: torch.Tensor, conv: nn.Module, norm: nn.Module, pool: nn.Module) -> torch.Tensor:
    return pool(norm(conv(x)).relu())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("slab_bytes", [1, 16 << 20], ids=["many slabs", "one slab"])
@pytest.mark.parametrize("to_x", [False, True], ids=["x is data", "x has a gradient"])
@pytest.mark.parametrize("name", BLOCKS)
def test_training_equals_the_plain_modules_in_double(monkeypatch, name, to_x, slab_bytes):
    monkeypatch.setattr(blockwise, "SLAB_BYTES", slab_bytes)
    inputs, outputs, pool, shape = BLOCKS[name]
    ours = block(inputs, outputs, pool)
    theirs = [copy.deepcopy(module).double() for module in ours]
    x = (torch.randn(shape) * 2 + 3).requires_grad_(to_x)
    x_double = x.detach().double().requires_grad_(to_x)
    expected = plain(x_double, *theirs)
    upstream = torch.randn(expected.shape)
    expected.backward(upstream.double())

    assert blockwise.can_walk(x, *ours)
    found = blockwise.train_block(x, *ours)
    found.backward(upstream)

    def close(a, b):
        a, b = a.detach().double(), b.detach()
        return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()) + 1e-7)

    assert close(found, expected)
    assert close(ours[0].weight.grad, theirs[0].weight.grad)
    assert close(ours[1].weight.grad, theirs[1].weight.grad)
    assert close(ours[1].bias.grad, theirs[1].bias.grad)
    assert not ours[0].bias.grad.any() and theirs[0].bias.grad.abs().max() < 1e-9  # batch norm takes it away
    assert close(ours[1].running_mean, theirs[1].running_mean)
    assert close(ours[1].running_var, theirs[1].running_var)
    assert ours[1].num_batches_tracked == 1
    if to_x:
        assert close(x.grad, x_double.grad)


def test_left_over_planes_count_in_the_statistics():
    conv, norm, pool = block(1, 8, 2)
    x = torch.randn(2, 1, 7, 9, 9)  # five conv planes, four of them pooled
    x[:, :, -1] += 50
    norm.momentum = 1.0
    blockwise.train_block(x, conv, norm, pool)
    y = conv(x).double()
    assert torch.allclose(norm.running_mean.double(), y.mean((0, 2, 3, 4)), rtol=1e-5)
    assert torch.allclose(norm.running_var.double(), y.var((0, 2, 3, 4)), rtol=1e-5)


@pytest.mark.parametrize("why", ["eval", "no gradient", "double", "synchronised", "autocast", "no statistics"])
def test_training_walk_stands_aside(why):
    conv, norm, pool = block(1, 8, 2)
    x = torch.randn(1, 1, 9, 9, 9)
    assert blockwise.can_walk(x, conv, norm, pool)
    if why == "synchronised":
        norm = nn.SyncBatchNorm(8)
    if why == "no statistics":
        norm = nn.BatchNorm3d(8, track_running_stats=False)
    if why == "eval":
        norm.eval()
    with torch.set_grad_enabled(why != "no gradient"), torch.autocast("cpu", enabled=why == "autocast"):
        assert not blockwise.can_walk(x.double() if why == "double" else x, conv, norm, pool)


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any one tensor made within held."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


def test_training_never_holds_the_whole_conv_output(monkeypatch):
    monkeypatch.setattr(blockwise, "SLAB_BYTES", 1)
    parts = block(1, 8, 2)
    x = torch.randn(2, 1, 42, 24, 24)
    with Largest() as largest:
        blockwise.train_block(x, *parts).sum().backward()
    assert largest.numbers < 2 * 8 * 40 * 22 * 22 / 3  # the conv's output


def folded(dtype: torch.dtype = torch.float32) -> tuple[list, blockwise.Folded]:
    blocks = [block(1, 8, 2), block(8, 16, 3), block(16, 32, 2), block(32, 64, 3)]
    for _, norm, _ in blocks:
        norm.eval()
    return blocks, blockwise.Folded(blocks, dtype)


def plainly(x: torch.Tensor, blocks: list) -> torch.Tensor:
    for parts in blocks:
        x = plain(x, *parts)
    return x


@pytest.mark.parametrize("shape", [(80, 79, 84), (81, 80, 85), (97, 84, 80), (166, 78, 78)], ids=str)
@pytest.mark.parametrize("planes", [1, 2, 5, 99])
def test_folded_equals_the_plain_modules(shape, planes):
    blocks, walk = folded()
    x = torch.randn(1, 1, *shape)
    with torch.no_grad():
        expected = plainly(x, blocks)
        found = walk(x, planes)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("other", ["AVX2", "AVX512"])
def test_folded_is_the_same_for_any_processor(monkeypatch, other):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: other)
    blocks, walk = folded()
    assert walk.doubles_outputs == (other == "AVX512")
    x = torch.randn(1, 1, 80, 80, 80)
    with torch.no_grad():
        assert torch.allclose(walk(x), plainly(x, blocks), rtol=1e-4, atol=1e-4)


def test_folded_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    blocks, walk = folded()
    x = torch.randn(1, 1, 80, 80, 80)
    with torch.no_grad():
        assert torch.allclose(walk(x), plainly(x, blocks), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "box",
    [
        (slice(40, 52), slice(20, 41), slice(33, 60)),
        (slice(0, 1), slice(77, 78), slice(0, 84)),  # seen by the first and the last cells
        (slice(79, 80), slice(0, 1), slice(83, 84)),  # past what the last cell sees
        (slice(11, 12), slice(12, 13), slice(6, 7)),
        (slice(0, 0), slice(0, 0), slice(0, 0)),
    ],
    ids=["inside", "edges", "unseen", "one voxel", "nothing"],
)
def test_folded_walks_only_what_holds_something(monkeypatch, box):
    blocks, walk = folded()
    made: list[int] = []
    convolve = blockwise.convolve

    def counted(*arguments):
        result = convolve(*arguments)
        made[-1] += result.numel()
        return result

    monkeypatch.setattr(blockwise, "convolve", counted)
    x = torch.zeros(1, 1, 80, 79, 84)
    x[0, 0][box] = torch.randn(x[0, 0][box].shape)
    assert blockwise.filled(x[0, 0]) == list(box)
    with torch.no_grad():
        made.append(0)
        walk(torch.randn(x.shape))
        made.append(0)
        found, expected = walk(x), plainly(x, blocks)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert made[1] < made[0] / 3


def test_folded_never_holds_the_whole_conv_output():
    _, walk = folded()
    x = torch.randn(1, 1, 160, 80, 80)
    with torch.no_grad(), Largest() as largest:
        walk(x, 1)
    assert largest.numbers < 8 * 158 * 78 * 78 / 5  # block 1's conv output


# A processor without AVX-512 has no bfloat16 convolution in torch at all, and nothing that can be installed gives
# it one. That the product then refuses is tested everywhere (`test_forward.py`).
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 conv")
def test_folded_in_bfloat16_stays_near():
    blocks, walk = folded(torch.bfloat16)
    x = torch.randn(1, 1, 80, 80, 80)
    with torch.no_grad():
        expected, found = plainly(x, blocks), walk(x).float()
    assert float((found - expected).abs().mean() / expected.abs().mean()) < 0.03  # eight bits of mantissa
