"""A segmenter made by hand, which tells structures by brightness alone, for the phantom head of `support`."""

from pathlib import Path

import torch

import model
from learning import segmentation
from networks.segmenter import CLASSES, CUBE, Segmenter

# Brightness of the phantom → what it is taken for; the nearest row wins.
SEEN = {5: "background", 30: "lateral", 95: "grey", 140: "white", 400: "hippocampus"}
MEAN, DEVIATION = 47.3, 58.6  # of the phantom's brightness in the segmenter's box
SHARPNESS = 30.0
SHARE = 0.5  # of the volumes: the scalp looks like white matter here, and is counted too


def by_brightness(folder: Path) -> Path:
    """The weights file, in a folder where `Diagnoser` finds it."""
    arguments = {"widths": (CUBE,), "hidden": 2 * CUBE}
    network = Segmenter(**arguments)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        enter = network.down[0][0]
        enter.weight.fill_(1)
        for voxel in range(CUBE):
            enter.conv.weight[voxel, voxel, 1, 1, 1] = 1  # each voxel's own brightness, in deviations
            # Both signs of it, of which only one is not 0; below 0 the layer before left a hundredth.
            network.mix.weight[voxel, CUBE + voxel] = 1
            network.mix.weight[CUBE + voxel, CUBE + voxel] = -100
        scores = network.scores.weight.view(CUBE, len(CLASSES), 2 * CUBE)
        bias = network.scores.bias.view(CUBE, len(CLASSES))
        bias.fill_(-1e4)
        for brightness, name in SEEN.items():
            at, number = (brightness - MEAN) / DEVIATION, CLASSES.index(name)
            bias[:, number] = -SHARPNESS * at**2
            for voxel in range(CUBE):
                scores[voxel, number, voxel] = 2 * SHARPNESS * at
                scores[voxel, number, CUBE + voxel] = -2 * SHARPNESS * at
    header = {
        "title": "by brightness, for tests",
        "network": {"name": "Segmenter", "arguments": arguments},
        "calibration": {name: {"factor": SHARE, "doubt": 0.1} for name in CLASSES[1:]},
    }
    return segmentation.write(folder / model.SEGMENTER, network, header)
