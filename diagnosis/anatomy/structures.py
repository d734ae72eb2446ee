"""What the segmenter outlined as a network's input: each structure at a level of its own, smoothed, the rest 0.

A contract whose `scale` is "structures" asks for it. As in voxel-based morphometry, the smoothed map is high where
much of a structure lies; contrast, noise and scanner have no part in it. What is 0 can carry no part of an answer,
so neither scalp nor skull, nor what an earlier skull stripping left, speaks for a class.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

import model
from diagnosis.anatomy.segment import SHAPE, START, TISSUE, Segmentation, SegmenterWeights, fits, load, segment
from networks import segmenter
from networks.segmenter import CLASSES
from scans.files import code_hash
from scans.prepare import Prepared, prepare
from scans.resample import resample
from scans.scan import Scan, ScanError
from studies import HEAD, STRUCTURES, Contract

# Small structures stand out: a hippocampus has a hundredth of the brain's volume, and what is lost of it counts.
LEVELS = dict.fromkeys(TISSUE, 1.0) | {"lateral": -2.0, "third": -2.0, "fourth": -2.0}
LEVELS |= {"hippocampus": 5.0, "inferior_horn": -5.0}
CLEFT = 5  # cubes of 2 mm; what is narrower between parts of the brain is brain too
SMOOTH = 3.0  # mm, one standard deviation
LEAST_ML = 300.0  # of brain and ventricles; less is none that could be judged
CODE = (  # which the input depends on beside that in scans/
    *(Path(__file__).with_name(name) for name in ("bare.py", "partial_volume.py", "segment.py", "structures.py")),
    Path(segmenter.__file__),
)
NO_BRAIN = "no brain could be outlined, and these weights judge what is outlined; check that it is a head"


def brain_of(found: Segmentation) -> Tensor:
    """The brain with its ventricles and narrow sulci on the segmenter's box, bool, edges at every second voxel."""
    kept = np.isin(CLASSES, list(LEVELS))[found.classes]
    pairs = kept[::2] | kept[1::2]
    pairs = pairs[:, ::2] | pairs[:, 1::2]
    cubes = (pairs[..., ::2] | pairs[..., 1::2]).view(np.uint8)  # of 2 × 2 × 2 voxels
    wide = ndimage.maximum_filter(cubes, CLEFT, mode="constant")
    closed = torch.from_numpy(ndimage.minimum_filter(wide, CLEFT, mode="constant"))
    return functional.interpolate(closed[None, None], kept.shape)[0, 0] > 0


def levels_of(found: Segmentation) -> Tensor:
    """The smoothed levels on the segmenter's box: float32 (X, Y, Z)."""
    cubes = torch.zeros(found.classes.size // len(found.shares))  # of 2 × 2 × 2 voxels
    for name, level in LEVELS.items():
        cubes[found.cubes] += found.shares[:, CLASSES.index(name)].float().mean(0).mul_(level / 255)
    coarse = cubes.view([n // 2 for n in found.classes.shape]).numpy()
    smooth = ndimage.gaussian_filter(coarse, SMOOTH / (2 * np.array(found.spacing)), mode="constant")
    size = found.classes.shape
    return functional.interpolate(torch.from_numpy(smooth)[None, None], size, mode="trilinear")[0, 0]


def structures(head: Prepared, found: Segmentation) -> Prepared | None:
    """What `found` outlined in a prepared head, as a network's input; None where there is no brain."""
    inside = brain_of(found)
    if float(inside.sum()) * np.prod(found.spacing) / 1000 < LEAST_ML:
        return None
    values, mask = torch.zeros_like(head.tensor), torch.zeros_like(head.tensor[0], dtype=torch.bool)
    box = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))
    values[0][box], mask[box] = levels_of(found).mul_(inside), inside
    return replace(head, tensor=values, foreground=mask)


def on_grid_of(contract: Contract, scan: Scan, outlined: Prepared) -> Prepared:
    """Structures on the grid of HEAD brought to that of a contract, such as a smaller one."""
    if fits(contract):
        return outlined
    wanted = prepare(scan, contract)
    to_head = np.linalg.inv(outlined.to_scan) @ wanted.to_scan
    values, mask = (
        resample(each, to_head, contract.shape) for each in (outlined.tensor[0], outlined.foreground.float())
    )
    return replace(wanted, tensor=values[None], foreground=mask > 0.5)


@dataclass(frozen=True)
class StructuresInput:
    """From a scan to its structures on a contract's grid, for training; worker processes can take it along."""

    file: Path  # of the segmenter
    contract: Contract

    @property
    def key(self) -> str:
        """A short name of the segmenter and of the code here for caches."""
        return f"{self.weights.sha256[:8]}-{code_hash(CODE)}"

    @property
    def weights(self) -> SegmenterWeights:
        return opened(self.file)

    def __call__(self, scan: Scan) -> Tensor:
        head = prepare(scan, replace(HEAD, scale=STRUCTURES))
        known = "no-affine" not in head.notes
        outlined = structures(head, segment(self.weights, head)) if known else None
        if outlined is None:
            raise ScanError("no-brain", NO_BRAIN)
        return on_grid_of(self.contract, scan, outlined).tensor


@lru_cache(maxsize=1)
def opened(file: Path) -> SegmenterWeights:
    return load(file, "cpu")


def input_of(contract: Contract, *folders: Path) -> StructuresInput | None:
    """How scans become a contract's input beyond `prepare`: by the segmenter of the first folder that has one."""
    if not contract.outlined:
        return None
    files = [file for folder in folders if (file := folder / model.SEGMENTER).is_file()]
    if not files:
        raise model.WeightsError(
            f"{model.SEGMENTER} is missing in {folders[0].name or '.'}/; the scale “structures” needs it"
        )
    return StructuresInput(files[0].resolve(), contract)
