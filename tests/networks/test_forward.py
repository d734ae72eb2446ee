"""The fast forward pass: the plain module's answer, whatever threads and precision."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model import WeightsError
from networks import blockwise
from networks.base import Network
from networks.forward import Forward
from networks.precision import HALVES
from tests.small_networks import SMALL, small


@pytest.mark.parametrize("batch", [1, 3])
def test_the_fast_forward_equals_the_plain_module(batch):
    network, x = small(), torch.randn(batch, 1, *SMALL)
    with torch.no_grad():
        expected = network(x), network.features(x)
    found = Forward(network)(x)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        assert float((ours - theirs).abs().max()) < 1e-4


class Tiny(Network):
    def base(self, x):
        return x.mean((2, 3))

    def head(self, features):
        return 2 * features


def test_another_network_goes_the_plain_way():
    x = torch.randn(2, 3, 4, 4)
    logits, features = Forward(Tiny())(x)
    assert torch.allclose(features, x.mean((2, 3))) and torch.allclose(logits, 2 * features)


def test_threads_do_not_disturb_each_other():
    forward = Forward(small())
    scans = [torch.randn(1, 1, *SMALL) for _ in range(8)]
    alone = [forward(x)[0] for x in scans]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: forward(x)[0], scans))
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_torch_is_left_as_it_was():
    def settings():
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.backends.mkldnn.enabled,
        )

    network = small()
    before, state = settings(), {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(1, 1, *SMALL)
    kept = x.clone()
    Forward(network)(x)
    assert settings() == before and torch.equal(x, kept)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_bf16_is_refused_where_the_processor_lacks_it(monkeypatch):
    monkeypatch.setattr(blockwise, "has_bf16", lambda: False)
    with pytest.raises(WeightsError, match=r"AVX512-BF16 or AMX.*--precision fp32"):
        Forward(small(), "bf16")


# A processor without AVX-512 has no bfloat16 convolution in torch at all, and nothing that can be installed gives
# it one. That the product then refuses is tested everywhere (above).
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 conv")
def test_bf16_by_choice_stays_near(monkeypatch):
    monkeypatch.setattr(blockwise, "has_bf16", lambda: True)
    network, x = small(), torch.randn(1, 1, *SMALL)
    with torch.no_grad():
        expected = network(x)
    logits, features = Forward(network, "bf16")(x)
    assert logits.dtype == features.dtype == torch.float32
    assert float((logits - expected).abs().max() / expected.abs().max()) < 0.1
    with pytest.raises(WeightsError, match="bf16 is not made for Tiny"):
        Forward(Tiny(), "bf16")


def test_an_unknown_precision_is_refused():
    with pytest.raises(WeightsError, match=r"precision 'fp8' is unknown; use auto, fp32, bf16, fp16"):
        Forward(small(), "fp8")


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 8), ("fp16", 11)])
def test_a_card_computes_plain_modules_in_the_half_that_was_chosen(precision, bits):
    """The way of a card, on the processor: autocast up to the features, nothing folded."""
    network, x = small(), torch.randn(3, 1, *SMALL)
    with torch.no_grad():
        expected = network(x)
    forward = Forward(network)
    assert forward.precision == "fp32"
    forward.folded, forward.precision = None, precision
    inside = set()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, given, out: inside.add(out.dtype))
    logits, features = forward(x)
    assert inside == {HALVES[precision], torch.float32}  # the last layer alone in full
    assert logits.dtype == features.dtype == torch.float32
    off = float((logits - expected).abs().max() / expected.abs().max())
    assert 0 < off < 30 * 2.0**-bits  # as many bits as its fraction has, lost a few times over
    forward.precision = "fp32"
    inside.clear()
    assert torch.allclose(forward(x)[0], expected, atol=1e-5) and inside == {torch.float32}
