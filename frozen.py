"""Beginning with other weights, and training on what a network's first layers give without touching them."""

from pathlib import Path

import torch
from torch import Tensor, nn

import model


def take(network: nn.Module, file: Path) -> list[str] | None:
    """Copies the tensors of a weights file that fit by name and shape; the layers left, None if none fits."""
    own, other = network.state_dict(), model.load(file, "cpu").network.state_dict()
    fitting = {key: value for key, value in other.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        return None
    network.load_state_dict(fitting, strict=False)
    return sorted({key.rpartition(".")[0] for key in own if key not in fitting})


class Tail(nn.Module):
    """A network fed with what its frozen part gave."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frozen: Tensor) -> Tensor:
        return self.network.head(self.network.thaw(frozen.float()))


class Stored(torch.utils.data.Dataset):
    """What the frozen part gives for each case, computed once; never augmented."""

    def __init__(self, frozen: Tensor, targets: Tensor) -> None:
        self.frozen, self.targets = frozen, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.frozen[index], self.targets[index]

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes from epoch to epoch."""
