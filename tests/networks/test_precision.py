"""Which precision a network computes in: what was asked for where the device has it, else words."""

import pytest
import torch

from model import WeightsError
from networks import blockwise
from networks.precision import card_has_bf16, chosen

CPU, CARD = torch.device("cpu"), torch.device("cuda:1")


@pytest.fixture(params=[(7, 5), (8, 0)], ids=["Turing", "Ampere"])
def generation(request, monkeypatch):
    """A card of one generation or another, in place of whatever is here."""
    asked = []
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    yield request.param[0]
    assert set(asked) == {CARD}  # not that of another card


def test_a_card_takes_bf16_where_it_multiplies_it_itself(generation):
    native = generation >= 8
    assert card_has_bf16(CARD) == native
    assert chosen("auto", CARD) == ("bf16" if native else "fp32")
    assert [chosen(precision, CARD) for precision in ("fp32", "fp16")] == ["fp32", "fp16"]
    if native:
        assert chosen("bf16", CARD) == "bf16"
    else:
        with pytest.raises(WeightsError, match=r"bf16: card 1 only imitates it.*--precision fp16 or fp32"):
            chosen("bf16", CARD)


def test_a_processor_takes_fp32_unless_it_has_another_and_is_asked(monkeypatch):
    monkeypatch.setattr(blockwise, "has_bf16", lambda: True)
    assert [chosen(precision, CPU) for precision in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    with pytest.raises(WeightsError, match="fp16 is for CUDA; use --precision fp32"):
        chosen("fp16", CPU)
    monkeypatch.setattr(blockwise, "has_bf16", lambda: False)
    with pytest.raises(WeightsError, match=r"AVX512-BF16 or AMX.*--precision fp32"):
        chosen("bf16", CPU)
