"""Beginning with other weights, and training on what a network's first layers give without touching them."""

import hashlib
import http.client
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import model
from data.augment import generator
from data.cache import Cache
from networks.base import Network
from scans.progress import progress


class StartError(ValueError):
    """ImageNet weights that cannot be had; the text says why."""


def copy_fitting(network: nn.Module, file: Path) -> list[str] | None:
    """Copies the tensors of a weights file that fit by name and shape; the layers left, None if none fits."""
    own, other = network.state_dict(), model.load(file, "cpu").network.state_dict()
    fitting = {key: value for key, value in other.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        return None
    network.load_state_dict(fitting, strict=False)
    return sorted({key.rpartition(".")[0] for key in own if key not in fitting})


def load_imagenet(network: Network, where: str) -> str:
    """ImageNet weights for a network's trunk, by torchvision's download ("imagenet") or from a file; in words."""
    try:
        if not network.imagenet:
            raise ValueError(f"{type(network).__name__} has no ImageNet weights; leave --start out")
        count = network.start_from(None if where == "imagenet" else Path(where))
    except (OSError, http.client.HTTPException) as error:  # no such file, no network, no such address
        raise StartError(str(getattr(error, "reason", None) or error)) from error
    except (ValueError, RuntimeError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise StartError(str(error).splitlines()[0] if str(error) else "no weights file") from error
    source = "torchvision's download" if where == "imagenet" else f"“{Path(where).name}”"
    return f"ImageNet weights of {network.imagenet} from {source}, {count} tensors"


class AfterStem(nn.Module):
    """A network fed with what its stem gave."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frozen: Tensor) -> Tensor:
        return self.network.head(self.network.thaw(frozen.float()))


def stem_key(network: Network, cache: Cache, files: Sequence[Path], mirrored: bool = False) -> str:
    """The cache's name for what the stem gives for some files: by its tensors and the files' cache entries."""
    digest = hashlib.sha256(b"mirrored" if mirrored else b"")
    for module in network.stem():
        for key, value in module.state_dict().items():
            digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    for file in files:
        digest.update(cache.entry(file).name.encode())
    return f"frozen-{digest.hexdigest()[:32]}"


def stem_outputs(
    network: Network,
    loader: Iterator[list[Tensor]],
    count: int,
    title: str,
    device: torch.device,
    check: Callable[[], None],
) -> np.ndarray:
    """What the stem gives for each case of a loader, in float16; `check` is called as it goes on."""
    given = []
    with progress(title=title, total=count, unit="scan") as bar:
        for x, _ in loader:
            given.append(network.frozen(x.to(device)).half().cpu())
            bar.update(len(x))
            check()
    return torch.cat(given).numpy()


class StemOutputs(torch.utils.data.Dataset):
    """What the stem gives for each case, computed once, and for its mirror image where that is learned from too.

    Which of the two an epoch sees is a pure function of (seed, epoch, index); nothing else is augmented.
    """

    def __init__(self, frozen: Tensor, targets: Tensor, mirrored: Tensor | None = None, seed: int = 0) -> None:
        self.frozen, self.targets, self.mirrored, self.seed = frozen, targets, mirrored, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        seen = self.frozen
        if self.mirrored is not None and int(
            torch.randint(2, (), generator=generator(self.seed, self.epoch, index))
        ):
            seen = self.mirrored
        return seen[index], self.targets[index]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class MirrorImages(torch.utils.data.Dataset):
    """Volumes, left and right exchanged."""

    def __init__(self, scans: torch.utils.data.Dataset) -> None:
        self.scans = scans

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, target = self.scans[index]
        return x.flip(1), target
