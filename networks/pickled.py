"""A pickled checkpoint opened as plain tensors: nothing it names is built, called or run.

The names it may use are listed here; the modules among them become `Part`s that only keep their state. What it
would allocate is counted first.
"""

import io
import pickle
import pickletools
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from networks.base import WeightsError

MOST_BYTES = 4 << 30
MOST_STEPS = 200_000  # of a pickle; a published checkpoint takes about a thousand
MOST_PARTS = 1000  # modules of one network


class Part:
    """Stands for a module of the pickle: it keeps the state and does nothing with it."""

    def __new__(cls, *arguments: Any) -> "Part":
        if arguments:
            raise pickle.UnpicklingError(f"a module is called with {len(arguments)} arguments")
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


PARTS = [
    "model.ClassificationModel3D",
    "torch.nn.modules.conv.Conv3d",
    "torch.nn.modules.batchnorm.BatchNorm3d",
    "torch.nn.modules.pooling.MaxPool3d",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.dropout.Dropout",
]
NAMES = {
    *PARTS,
    "collections.OrderedDict",
    "builtins.set",
    "__builtin__.set",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}
_unpickling = threading.Lock()  # torch keeps its allow-list in one place for all threads


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled module or state dict by name; every refusal is a WeightsError."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise WeightsError(f"{path.name}: {size:,} bytes; weights of more than {MOST_BYTES:,} are not read")
    try:
        for stream in _streams(path):
            _check(stream)
        with _unpickling, torch.serialization.safe_globals([(Part, name) for name in PARTS]):
            found = torch.load(path, map_location="cpu", weights_only=True)
        tensors = _tensors(found)
    except Exception as error:  # torch raises of every kind on a damaged file, and one file must not stop the rest
        reason = " ".join(str(error).split())
        named = reason.partition("GLOBAL ")[2].split(" ")[0]
        said = f"it names {named}, which is not allowed" if named else f"torch cannot read it ({reason[:120]})"
        raise WeightsError(
            f"{path.name}: refused, nothing was run: {said}; give a published checkpoint of "
            "ClassificationModel3D or a plain state dict"
        ) from error
    if tensors is None:
        kind = type(found).__name__
        raise WeightsError(
            f"{path.name}: holds a {kind}, neither ClassificationModel3D nor a plain state dict of tensors"
        )
    return tensors


def _streams(path: Path) -> Iterator[io.BytesIO]:
    """The pickles of a checkpoint: one in a zip, several one after the other in a file of the old kind."""
    if not zipfile.is_zipfile(path):
        yield io.BytesIO(path.read_bytes())
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise pickle.UnpicklingError("its parts are compressed, which torch never does")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise pickle.UnpicklingError("its parts overlap")
        for member in members:
            if member.filename.endswith("data.pkl"):
                yield io.BytesIO(archive.read(member))


def _check(stream: io.BytesIO) -> None:
    """Walk through the first pickles of a stream, without running them, for names that are not on the list."""
    steps = 0
    for _ in range(5):  # a file of the old kind: magic number, protocol, system, the object, its storages' keys
        for step, argument, _ in pickletools.genops(stream):
            steps += 1
            if steps > MOST_STEPS:
                raise pickle.UnpicklingError(f"its pickle has more than {MOST_STEPS:,} steps")
            if step.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise pickle.UnpicklingError(f"its pickle uses {step.name}, which torch's never do")
            if step.name == "GLOBAL" and (name := str(argument).replace(" ", ".")) not in NAMES:
                raise pickle.UnpicklingError(f"GLOBAL {name} is not on the list")
        if not stream.read(1):
            return
        stream.seek(-1, io.SEEK_CUR)
        if steps and stream.getbuffer()[stream.tell()] != pickle.PROTO[0]:
            return  # the storages' bytes


def _tensors(found: Any) -> dict[str, Tensor] | None:
    """By dotted name, each checked to be a plain array of numbers; None where it is neither of the two kinds."""
    if isinstance(found, Part):
        found = dict(_named(found))
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        return None
    if not all(isinstance(value, Tensor) for value in found.values()):
        return None
    for name, value in found.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise pickle.UnpicklingError(f"{name[:60]} is no plain array of numbers")
    return {name: value.detach() for name, value in found.items()}


def _named(part: Part, prefix: str = "", seen: list[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """What `state_dict` would give of the module that the part stands for."""
    seen = [] if seen is None else seen
    seen.append(id(part))
    if len(seen) > MOST_PARTS or prefix.count(".") > 20:
        raise pickle.UnpicklingError(f"more than {MOST_PARTS} modules, or modules nested past counting")
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(part, kind):
            if value is not None:
                yield prefix + name, value
    for name, child in _entries(part, "_modules"):
        if isinstance(child, Part):
            yield from _named(child, f"{prefix}{name}.", seen)
        elif child is not None:
            raise pickle.UnpicklingError(f"{name[:60]} is no module")


def _entries(part: Part, kind: str) -> list[tuple[str, Any]]:
    entries = getattr(part, "state", {}).get(kind, {})
    if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries):
        raise pickle.UnpicklingError(f"its {kind} are no table")
    return list(entries.items())
