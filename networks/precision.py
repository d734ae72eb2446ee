"""What a network computes in: which precisions there are, and which of them a device has."""

import torch

from networks import blockwise
from networks.base import WeightsError

# "auto" is bf16 on a card that multiplies it itself, fp32 on any other and on a processor.
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AMPERE = 8  # the first generation of NVIDIA cards that multiply bfloat16 themselves


def card_has_bf16(device: torch.device) -> bool:
    """Whether a card multiplies bfloat16 itself; older ones only imitate it, slowly."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= AMPERE


def chosen(precision: str, device: torch.device) -> str:
    """The precision that was asked for, or what `auto` comes to; WeightsError where the device has none such."""
    if precision not in PRECISIONS:
        raise WeightsError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        return _on_card(precision, device)
    if precision == "fp16":
        raise WeightsError("precision fp16 is for CUDA; use --precision fp32, or bf16 where the processor has it")
    if precision == "bf16" and not blockwise.has_bf16():
        raise WeightsError(
            "precision bf16 asks for a processor with AVX512-BF16 or AMX, which this one lacks; "
            "use --precision fp32"
        )
    return "fp32" if precision == "auto" else precision


def _on_card(precision: str, device: torch.device) -> str:
    native = card_has_bf16(device)
    if precision == "bf16" and not native:
        raise WeightsError(
            f"precision bf16: {torch.cuda.get_device_name(device)} only imitates it, slowly; use --precision fp16 "
            "or fp32"
        )
    return ("bf16" if native else "fp32") if precision == "auto" else precision
