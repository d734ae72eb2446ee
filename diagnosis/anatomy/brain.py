"""Only the brain: a prepared head with white matter as 1 and everything outside the brain as 0.

A contract whose `scale` is "brain" asks for it. What is 0 can carry no part of an answer, so neither scalp nor
skull, nor what an earlier skull stripping left, speaks for a class. The segmenter says where the brain lies.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import model
from diagnosis.anatomy.segment import SHAPE, START, TISSUE, Segmentation, SegmenterWeights, fits, load, segment
from networks.segmenter import CLASSES
from scans.prepare import Prepared, prepare
from scans.resample import resample
from scans.scan import Scan, ScanError
from studies import HEAD, Contract

SCALE = "brain"  # of a contract
BRIGHTEST = 3.0  # white matter being 1; what is brighter is clipped
LEAST_ML = 300.0  # of brain and ventricles; less is none that could be judged
KEPT = (*TISSUE, "lateral", "inferior_horn", "third", "fourth")
NO_BRAIN = "no brain was found in this scan, and these weights judge the brain alone; check that it is a T1 head"


def brain_of(found: Segmentation) -> Tensor:
    """The brain with its ventricles and narrow sulci on the segmenter's box, bool, edges at every second voxel."""
    kept = torch.from_numpy(np.isin(CLASSES, KEPT))[torch.from_numpy(found.classes).long()]
    cubes = functional.max_pool3d(kept[None].float(), 2)
    wide = functional.max_pool3d(cubes, 5, stride=1, padding=2)
    closed = -functional.max_pool3d(-functional.pad(wide, [2] * 6), 5, stride=1)
    for axis in (1, 2, 3):
        closed = closed.repeat_interleave(2, axis)
    return closed[0] > 0.5


def only_brain(head: Prepared, found: Segmentation) -> Prepared | None:
    """What `found` was segmented from, the brain alone; None where there is none."""
    inside = brain_of(found)
    box = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))
    signal = head.tensor[0][box] - head.tensor.min()
    white = signal[torch.from_numpy(found.classes == CLASSES.index("white"))]
    level = float(white[:: max(1, len(white) // 50_000)].median()) if len(white) else 0.0
    if level <= 0 or float(inside.sum()) * np.prod(found.spacing) / 1000 < LEAST_ML:
        return None
    values = torch.zeros_like(head.tensor)
    values[0][box] = signal.mul_(inside).div_(level).clamp_(max=BRIGHTEST)
    return replace(head, tensor=values, foreground=values[0] > 0)


def on_grid_of(contract: Contract, scan: Scan, brain: Prepared) -> Prepared:
    """A brain on the grid of HEAD brought to that of a contract, such as a smaller one."""
    if fits(contract):
        return brain
    wanted = prepare(scan, contract)
    to_brain = np.linalg.inv(brain.to_scan) @ wanted.to_scan
    values = resample(brain.tensor[0], to_brain, contract.shape)
    return replace(wanted, tensor=values[None], foreground=values > 0)


@dataclass(frozen=True)
class BrainInput:
    """From a scan to the brain alone on a contract's grid, for training; worker processes can take it along."""

    file: Path  # of the segmenter
    contract: Contract

    @property
    def key(self) -> str:
        """A short name of the segmenter for caches."""
        return self.weights.sha256[:8]

    @property
    def weights(self) -> SegmenterWeights:
        return opened(self.file)

    def __call__(self, scan: Scan) -> Tensor:
        head = prepare(scan, replace(HEAD, scale=SCALE))
        known = "no-affine" not in head.notes
        brain = only_brain(head, segment(self.weights, head)) if known else None
        if brain is None:
            raise ScanError("no-brain", NO_BRAIN)
        return on_grid_of(self.contract, scan, brain).tensor


@lru_cache(maxsize=1)
def opened(file: Path) -> SegmenterWeights:
    return load(file, "cpu")


def input_of(contract: Contract, *folders: Path) -> BrainInput | None:
    """How scans become a contract's input beyond `prepare`: by the segmenter of the first folder that has one."""
    if contract.scale != SCALE:
        return None
    files = [file for folder in folders if (file := folder / model.SEGMENTER).is_file()]
    if not files:
        raise model.WeightsError(
            f"{model.SEGMENTER} is missing in {folders[0].name or '.'}/; the scale “brain” needs it"
        )
    return BrainInput(files[0].resolve(), contract)
