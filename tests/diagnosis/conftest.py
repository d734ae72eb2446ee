"""Fixtures of the diagnosis: networks and tensors for the heat maps, what the gate asks of a weights file."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diagnosis import likeness
from model import ClassificationModel3D
from networks.header import Header
from scans.prepare import prepare
from studies import HEAD, STUDIES
from tests import heads
from tests.explained import randomise
from tests.gated import scan_of


@pytest.fixture(scope="module")
def published() -> nn.Module:
    return randomise(ClassificationModel3D(shape=(80, 90, 84)))


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    return torch.randn(1, 1, 80, 90, 84, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cube() -> torch.Tensor:
    return torch.randn(1, 1, 18, 18, 18, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def sketched():
    """What the gate asks of a weights file: the mean sketch of a few phantom heads, and its contract."""
    drawn = [
        likeness.sketch(prepare(scan_of(*heads.head(3.0, stripped=bare)), HEAD).tensor, HEAD)
        for bare in (False, True)
    ]
    return SimpleNamespace(
        contract=HEAD,
        header=Header(STUDIES["alzheimers"], "made"),
        extras={"likeness.sketch": torch.stack(drawn).mean(0)},
    )
