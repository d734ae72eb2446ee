"""A trained network as one ONNX file: the last steps of the preparation before it, calibrated chances behind it.

The file's metadata hold the header of the weights file, so that whoever serves it knows the contract.
"""

import importlib.util
import logging
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from networks.base import Network, WeightsError
from networks.header import Header
from studies import Contract, to_json

NEEDED = ("onnx", "onnxscript")
INPUTS = {
    "foreground": "raw intensities on the grid, air outside the scan; `statistics`: air, mean, deviation",
    "imagenet": "brightness from 0 to 1 on the grid, red, green and blue",
    "unit": "brightness from 0 to 1 on the grid",
    "stored": "intensities as stored, on the grid",
}


@dataclass(frozen=True)
class Steps:
    """The numbers that the preparation ends with."""

    brightest: float  # deviations above the mean; what is brighter is clipped
    imagenet: tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of red, green, blue


class FromRaw(nn.Module):
    """Raw intensities on the grid → what `scans.prepare` gives, as far as it is done voxel by voxel."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, contract: Contract, steps: Steps):
        super().__init__()
        self.scale, self.brightest = contract.scale, steps.brightest
        mean, deviation = torch.tensor(steps.imagenet)[:, : contract.channels].reshape(2, 1, -1, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, grid: Tensor, statistics: Tensor | None = None) -> Tensor:
        if self.scale == "foreground" and statistics is not None:
            air, mean, deviation = statistics[0], statistics[1], statistics[2]
            zero = -mean / deviation
            scaled = torch.maximum((grid - air) / deviation + zero, zero)
            return torch.minimum(scaled, torch.tensor(self.brightest))
        if self.scale == "imagenet":
            return (grid - self.mean) / self.deviation
        return grid


class Answering(nn.Module):
    """From raw intensities to calibrated probabilities, or to the number of a study of one."""

    def __init__(self, network: Network, header: Header, steps: Steps):
        super().__init__()
        self.before, self.network = FromRaw(header.contract, steps), network
        self.temperature, self.target = header.temperature, header.study.target

    def forward(self, grid: Tensor, statistics: Tensor | None = None) -> Tensor:
        logits = self.network(self.before(grid, statistics))
        if self.target:
            return logits * self.target.deviation + self.target.mean
        return (logits / self.temperature).softmax(1)


def export(network: Network, header: Header, steps: Steps) -> bytes:
    """The file's bytes; WeightsError where what it takes is not installed, or the network cannot be written so."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise WeightsError(f"--onnx needs {' and '.join(missing)}; `pip install {' '.join(missing)}`")
    contract = header.contract
    if contract.scale not in INPUTS:
        raise WeightsError(f"{header.title}: scale “{contract.scale}” takes more than a network; serve it here")
    shape = (contract.planes or contract.shape[0], *contract.shape[1:])
    given = [torch.zeros(1, contract.channels, *shape)]
    names = ["grid"]
    if contract.scale == "foreground":
        given.append(torch.tensor([0.0, 1.0, 1.0]))
        names.append("statistics")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, on its way to a newer one
        program = torch.onnx.export(
            Answering(network.cpu(), header, steps).eval(),
            tuple(given),
            dynamo=True,
            input_names=names,
            output_names=[header.study.codes[0] if header.study.target else "probabilities"],
            verbose=False,
        )
    if program is None:
        raise WeightsError(f"{header.title}: torch's exporter gave nothing; report it with the versions")
    made = program.model_proto
    for key, value in {
        "scanwise": to_json(header.record()),
        "input": INPUTS[contract.scale],
        "classes": ",".join(header.study.codes),
        "contract": contract.hash(),
    }.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made.SerializeToString()
