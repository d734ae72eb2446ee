"""The networks by name, the weights file that describes itself, and the fast way through a network.

It holds no training loop and reads no scans: a tensor prepared by a study's contract goes in, logits come out.
"""

import argparse
import importlib
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from networks import blockwise, pickled, pictures
from networks.base import Block, Network, WeightsError
from networks.export import Steps
from networks.export import export as onnx_bytes
from networks.header import FORMAT, Header, from_document
from scans.files import content_hash, write_bytes
from scans.prepare import BRIGHTEST, IMAGENET
from studies import PUBLISHED, STUDIES, Contract, Study, from_json, to_json

SUFFIXES = (".safetensors", ".pth")
WEIGHTS = Path(__file__).resolve().parent / "weights"
SEGMENTER = "segmenter.safetensors"  # the bundled weights that `diagnosis.anatomy.segment` opens
MOST_HEADER = 16 << 20  # bytes of a weights file's header; the bundled one has 10,000
LEVEL = 0.9  # coverage of a prediction set, unless told


# --- the networks -----------------------------------------------------------------------------------------


class ClassificationModel3D(Network):
    """The published 3-D network: four blocks of conv → batch norm → ReLU → pool, then two dense layers."""

    cam_layer = "Conv_4_mp"

    def __init__(self, classes: int = 5, dropout: float = 0.4, shape: Sequence[int] = (166, 256, 256)):
        super().__init__()
        for block, (fan_in, fan_out, pool) in enumerate([(1, 8, 2), (8, 16, 3), (16, 32, 2), (32, 64, 3)], 1):
            setattr(self, f"Conv_{block}", nn.Conv3d(fan_in, fan_out, 3))
            setattr(self, f"Conv_{block}_bn", nn.BatchNorm3d(fan_out))
            setattr(self, f"Conv_{block}_mp", nn.MaxPool3d(pool))
            shape = [(size - 2) // pool for size in shape]
        self.dense_1 = nn.Linear(64 * shape[0] * shape[1] * shape[2], 128)  # 4800 at full size
        self.dense_2 = nn.Linear(128, classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)
        for dense in (self.dense_1, self.dense_2):  # with torch's default the wide layer dies in training
            nn.init.kaiming_normal_(dense.weight, nonlinearity="relu")
            nn.init.zeros_(dense.bias)

    def blocks(self) -> list[Block]:
        return [tuple(getattr(self, f"Conv_{n}{part}") for part in ("", "_bn", "_mp")) for n in range(1, 5)]

    def folded(self, dtype: torch.dtype) -> blockwise.Folded:
        return blockwise.Folded(self.blocks(), dtype)

    def block(self, number: int, x: Tensor) -> Tensor:
        conv, norm, pool = self.blocks()[number - 1]
        if self.training and number <= 2 and blockwise.can_walk(x, conv, norm, pool):
            return blockwise.train_block(x, conv, norm, pool)  # the same, in a third of the time and memory
        return pool(self.relu(norm(conv(x))))

    def base(self, x: Tensor) -> Tensor:
        x = self.block(1, x)  # (N, 8, 82, 127, 127)
        x = self.block(2, x)  # (N, 16, 26, 41, 41)
        x = self.block(3, x)  # (N, 32, 12, 19, 19)
        return self.block(4, x)  # (N, 64, 3, 5, 5)

    def top(self, x: Tensor) -> Tensor:
        return self.relu(self.dense_1(self.dropout(x.flatten(1))))  # (N, 4800) → (N, 128)

    def stem(self) -> list[nn.Module]:
        """Blocks 1 and 2: the costly part of a step, and the part least bound to one task."""
        return [module for block in self.blocks()[:2] for module in block]

    def through_stem(self, x: Tensor) -> Tensor:
        return self.block(2, self.block(1, x))  # (N, 16, 26, 41, 41)

    @torch.no_grad()
    def frozen(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return self.through_stem(x)
        walk = blockwise.Folded(self.blocks()[:2], torch.float32)
        return torch.cat([walk(volume[None]) for volume in x])

    def thaw(self, frozen: Tensor) -> Tensor:
        return self.top(self.block(4, self.block(3, frozen)))  # (N, 128)

    def head(self, features: Tensor) -> Tensor:
        return self.dense_2(self.dropout2(features))


NETWORKS: dict[str, type[Network]] = {"ClassificationModel3D": ClassificationModel3D, **pictures.NETWORKS}
OWN_NETWORK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
ALLOWED: set[str] = set()  # people's own networks whose code a command line has asked for


def allow_network(name: str) -> None:
    """Let `package.module:Class` be imported. A command line may ask for that; a weights file alone may not."""
    if not OWN_NETWORK.fullmatch(name):
        raise WeightsError(f"network {name[:80]!r}: write it as package.module:Class")
    ALLOWED.add(name)


def network_class(name: str, asker: str = "network") -> type[Network]:
    """The class of a network by its name, or by its module and class where that was allowed."""
    if name in NETWORKS:
        return NETWORKS[name]
    if not OWN_NETWORK.fullmatch(name):
        raise WeightsError(f"{asker}: network {name[:80]!r} is unknown; known are {', '.join(sorted(NETWORKS))}")
    if name not in ALLOWED:
        raise WeightsError(
            f"{asker}: its network {name} is code of its own, which no file may start; if you trust it, "
            f"allow it with --allow-network {name}"
        )
    module, _, own = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), own, None)
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{asker}: its network {name} needs the module {error.name}, which is not installed here; install it, "
            "or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:  # the code of others may raise anything
        raise WeightsError(f"{asker}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    if not (isinstance(found, type) and issubclass(found, Network)):
        raise WeightsError(f"{asker}: {module} has no class {own} that stands on networks.base.Network; see there")
    if not isinstance(getattr(found, "cam_layer", None), str):
        raise WeightsError(f"{asker}: {own} names no cam_layer, the layer that heat maps weigh; see networks.base")
    return found


# --- the weights file -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weights:
    name: str  # the file's name
    sha256: str  # of the file
    header: Header
    network: Network  # in eval mode, on the device
    device: torch.device
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        return self.header.study

    @property
    def contract(self) -> Contract:
        return self.study.contract


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device by name; `auto` is the first CUDA device where there is one, else the processor."""
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WeightsError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise WeightsError(
            f"device {name!s} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device auto or cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise WeightsError(f"device {name!s} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def list_weights(folder: str | Path) -> list[Path]:
    """The studies' weights files of a folder, by name; the segmenter beside them belongs to no study."""
    files = (path for path in Path(folder).glob("*") if path.suffix in SUFFIXES and path.is_file())
    # Of one study the shortest name first: it is the bundled one, and stays the one that is taken unasked.
    return sorted(
        (path for path in files if path.name != SEGMENTER),
        key=lambda path: (path.name.split(".")[0], path.name.count("."), path.name),
    )


def save(path: str | Path, network: Network, header: Header, extras: Mapping[str, Tensor] | None = None) -> Path:
    """Write a study's weights file."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"extras.{name}": value for name, value in (extras or {}).items()}
    return write(Path(path), tensors, header.record())


def write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
    """Tensors and the document that describes them, whatever they are for, as one safetensors file."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {"format": "pt", "scanwise": to_json(record)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))
    return path


def read_header(path: str | Path) -> Header:
    """The header of a study's weights file, without its tensors; every refusal is a WeightsError."""
    path = Path(path)
    if path.suffix == ".pth":
        check_there(path)
        return published_header()
    record = read_record(path)
    if "study" not in record and "kind" in record:
        raise WeightsError(
            f"{path.name}: holds weights for {record['kind']}, not for a study; give a file that train.py wrote"
        )
    return from_document(record, path.name)


def read_record(path: Path) -> dict[str, Any]:
    """The document that a safetensors file of ours carries, whatever it is for."""
    check_there(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if start[8:] != b"{" or length > MOST_HEADER:
            raise WeightsError(f"{path.name}: not a safetensors file; give a weights file that train.py wrote")
        text = start[8:] + file.read(length - 1)
    truncated = WeightsError(f"{path.name}: truncated at {size} bytes; copy or download it again")
    if len(text) < length:
        raise truncated
    try:
        table = from_json(text)
        record = from_json(table.pop("__metadata__", {}).get("scanwise", "null"))
        ends = [int(entry["data_offsets"][1]) for entry in table.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise WeightsError(
            f"{path.name}: its safetensors header is damaged ({str(error)[:200]}); copy it again"
        ) from error
    if size < 8 + length + max(ends, default=0):
        raise truncated
    if not isinstance(record, dict):
        raise WeightsError(
            f"{path.name}: a safetensors file without Scanwise's header; give one that train.py wrote"
        )
    if record.get("format") != FORMAT:
        raise WeightsError(
            f"{path.name}: format {record.get('format')!r} is unknown, this version reads format "
            f"{FORMAT}; update Scanwise or train the file again"
        )
    return record


class Undrawn(TorchFunctionMode):
    """Leaves `normal_` undone: with nothing to fill torch opens its compiler for it, which takes seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def blank(name: str, study: Study, arguments: Mapping[str, Any]) -> Network:
    """A network without numbers, for a file to fill."""
    with torch.device("meta"), Undrawn():
        return network_class(name)(len(study.labels), **arguments)


def load(path: str | Path, device: str | torch.device = "auto") -> Weights:
    """Open a weights file, or a published `.pth` checkpoint; every refusal is a WeightsError."""
    path, device = Path(path), pick_device(device)
    header = read_header(path)
    name, arguments = header.network, header.arguments
    network_class(name, path.name)
    try:
        network = blank(name, header.study, arguments)
    except Exception as error:  # torch raises of every kind on a strange argument
        shown = f"{str(arguments)[:200]}: {str(error)[:200]}"
        raise WeightsError(f"{path.name}: {name} does not take the arguments {shown}") from error
    state, extras = (pickled.read(path), {}) if path.suffix == ".pth" else read_tensors(path)
    own = network.state_dict()
    check_fits(path, own, state)
    check_finite(path, state | extras)
    network.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, assign=True)
    network.to(device).eval().requires_grad_(False)
    extras = {key: value.to(device) for key, value in extras.items()}
    return Weights(path.name, content_hash(path), header, network, device, extras)


def check_there(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path.name}: no such weights file; train.py writes one, weights/ holds the bundled")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path.name}: a weights file ends in {' or '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path.name}: empty; copy or download it again")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's state and the extras of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            # Clones, since the tensors lie in the file itself: who copies another over it would change them here.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise WeightsError(f"{path.name}: safetensors cannot read it ({error}); copy it again") from error
    parts: tuple[dict, dict] = ({}, {})
    for name, value in tensors.items():
        parts[name.startswith("extras.")][name.partition(".")[2]] = value
    return parts


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Numbers only: one NaN in a weight would make every answer one."""
    for name, value in tensors.items():
        if value.is_complex() or value.layout != torch.strided:
            raise WeightsError(f"{path.name}: {name[:60]} is no plain array of numbers; train the file again")
        if value.is_floating_point() and not bool(value.sum(dtype=torch.float64).isfinite()):
            raise WeightsError(
                f"{path.name}: {name[:60]} holds NaN or infinite numbers, so that nothing it says could be "
                "believed; train the file again"
            )


def check_fits(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key} is not wanted" for key in found if key not in wanted]
    problems += [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            f"{path.name}: the state does not fit the network: {', '.join(problems[:3])}{more}; "
            "use the network and arguments that it was trained with"
        )


# --- the published checkpoint -----------------------------------------------------------------------------

PUBLISHED_CARD = """\
**The published checkpoint of the original system, as it was found.** Uncalibrated: its probabilities are raw
softmax values without a held-out score behind them. It calls nearly every head AD unless the intensities happen
to match those it was trained on: of 23 older adults it called all 23 AD, and with the same scans multiplied by
four, four. Kept for comparison alone; do not believe its answers.
"""


def published_header() -> Header:
    return Header(
        replace(STUDIES["alzheimers"], contract=PUBLISHED),
        "ClassificationModel3D",
        title="published checkpoint, uncalibrated: calls nearly every head AD",
        card=PUBLISHED_CARD,
        training={"data": "ADNI, as published; subjects, split and scores unknown"},
    )


# --- from logits to an answer -----------------------------------------------------------------------------


def probabilities(logits: Tensor | np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of the logits divided by the calibration's temperature, in float64, along the last axis."""
    if not (temperature > 0 and np.isfinite(temperature)):
        raise WeightsError(f"calibration temperature {temperature!r}: must be a finite number above 0")
    values = torch.as_tensor(logits).detach().cpu().double() / temperature
    return F.softmax(values, dim=-1).numpy()


def half_width(residuals: Sequence[float], level: float = LEVEL) -> float | None:
    """How far the truth lies from a number's answer at most, with the asked probability (split conformal).

    The ⌈(n + 1) · level⌉-th smallest of the residuals; None where there are too few for that level.
    """
    rank = int(np.ceil((len(residuals) + 1) * level - 1e-9))
    return sorted(residuals)[rank - 1] if rank <= len(residuals) else None


def prediction_set(
    values: np.ndarray, codes: Sequence[str], conformal_scores: Sequence[float], level: float = LEVEL
) -> list[str]:
    """The classes that cover the truth with the asked probability (split conformal), likeliest first.

    A class stays when its score 1 − p is at most the calibration scores' ⌈(n + 1) · level⌉-th smallest; with
    too few scores for that level every class stays. Never empty: the likeliest class always stays.
    """
    order = np.argsort(-np.asarray(values), kind="stable")
    scores = sorted(conformal_scores)
    rank = int(np.ceil((len(scores) + 1) * level - 1e-9))
    threshold = scores[rank - 1] if rank <= len(scores) else np.inf
    return [codes[i] for place, i in enumerate(order) if place == 0 or 1 - values[i] <= threshold]


# --- the command line --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="model.py", description="Look into a weights file, or write it as ONNX.")
    parser.add_argument("--allow-network", action="append", default=[], metavar="MODULE:CLASS")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print its card, or its header")
    show.add_argument("--header", action="store_true", help="the header as JSON instead of the card")
    export = commands.add_parser("export", help="write network, last steps of preparation and calibration as ONNX")
    export.add_argument("--onnx", type=Path, metavar="FILE", required=True)
    for command in (show, export):
        command.add_argument("weights", type=Path, metavar="WEIGHTS")
    given = parser.parse_args(argv)
    try:
        for name in given.allow_network:
            allow_network(name)
        if given.command == "show":
            header = read_header(given.weights)
            print(to_json(header.record(), indent=1) if given.header else header.card or header.title)
        else:
            weights, steps = load(given.weights, "cpu"), Steps(BRIGHTEST, IMAGENET)
            write_bytes(given.onnx, onnx_bytes(weights.network, weights.header, steps))
            print(f"wrote {given.onnx}")
    except WeightsError as error:
        print(f"model.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
