"""What the segmenter outlined as a network's input: each structure at a level of its own, smoothed, the rest 0.

A contract whose `scale` is "structures" asks for it; "normalised-structures" has each brain laid on the mean one,
which the segmenter's weights bring (`normalise`). As in voxel-based morphometry, the smoothed map is high where
much of a structure lies; contrast, noise and scanner have no part in it. What is 0 can carry no part of an answer,
so neither scalp nor skull, nor what an earlier skull stripping left, speaks for a class.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

import model
from diagnosis.anatomy import normalise
from diagnosis.anatomy.masks import grown, shrunk
from diagnosis.anatomy.segment import (
    SHAPE,
    START,
    TISSUE,
    Segmentation,
    SegmenterWeights,
    among,
    fits,
    load,
    segment,
)
from networks import segmenter
from networks.blockwise import filled
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
FILES = ("bare.py", "masks.py", "normalise.py", "partial_volume.py", "segment.py", "structures.py")
CODE = (*map(Path(__file__).with_name, FILES), Path(segmenter.__file__))  # what the input depends on beside scans/
NO_BRAIN = "no brain could be outlined, and these weights judge what is outlined; check that it is a head"


def brain_of(found: Segmentation) -> Tensor:
    """The brain with its ventricles and narrow sulci, by cubes of 2 × 2 × 2 voxels: 1 or 0, (X/2, Y/2, Z/2)."""
    kept = ~among(found.classes, *(name for name in CLASSES if name not in LEVELS))
    pairs = kept[::2] | kept[1::2]
    pairs = pairs[:, ::2] | pairs[:, 1::2]
    wide = grown(pairs[..., ::2] | pairs[..., 1::2], CLEFT // 2, corners=True)
    return torch.from_numpy(shrunk(wide, CLEFT // 2, corners=True)).float()


def levels_of(found: Segmentation) -> Tensor:
    """The smoothed levels by cubes: float32 (X/2, Y/2, Z/2)."""
    coarse = found.by_cubes(LEVELS).numpy()
    smooth = ndimage.gaussian_filter(coarse, SMOOTH / (2 * np.array(found.spacing)), mode="constant")
    return torch.from_numpy(smooth)


def structures(head: Prepared, found: Segmentation, mean: Tensor | None = None) -> Prepared | None:
    """What `found` outlined in a prepared head, as a network's input; None where there is no brain.

    With the shape of the mean head every brain lies as that does, and the way back to the scan says how.
    """
    inside, levels = brain_of(found), levels_of(found)
    if float(inside.sum()) * 8 * np.prod(found.spacing) / 1000 < LEAST_ML:
        return None
    to_scan = head.to_scan
    if mean is not None:
        to_head = normalise.fitted(normalise.shape_of(inside, found), mean)
        if to_head is None:
            return None
        inside, levels = (normalise.laid(each, to_head) for each in (inside, levels))
        corner = np.eye(4)
        corner[:3, 3] = START
        to_scan = to_scan @ corner @ to_head @ np.linalg.inv(corner)
    shape = head.tensor.shape  # numpy's zeros come in large pages, which torch's do not
    values, mask = (torch.from_numpy(np.zeros(size, kind)) for size, kind in ((shape, "f4"), (shape[1:], bool)))
    # Only where the brain is, and a cube around it, for what lies between two cubes is read from both.
    cubes = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in filled(inside))
    box = tuple(slice(a + 2 * part.start, a + 2 * min(part.stop, n // 2))
                for a, n, part in zip(START, SHAPE, cubes, strict=True))  # fmt: skip
    double = partial(functional.interpolate, scale_factor=2)
    mask[box] = double(inside[cubes][None, None])[0, 0] > 0.5  # edges at every second voxel
    values[0][box] = double(levels[cubes][None, None], mode="trilinear")[0, 0].mul_(mask[box])
    affine = head.affine @ np.linalg.inv(head.to_scan) @ to_scan
    return replace(head, tensor=values, foreground=mask, to_scan=to_scan, affine=affine)


def on_grid_of(contract: Contract, outlined: Prepared) -> Prepared:
    """Structures on the grid of HEAD brought to a contract's, such as a smaller one about the same anchor."""
    if fits(contract):
        return outlined
    to_head = np.linalg.inv(from_anchor(HEAD)) @ from_anchor(contract)
    values, mask = (
        resample(each, to_head, contract.shape) for each in (outlined.tensor[0], outlined.foreground.float())
    )
    to_scan, affine = (each @ to_head for each in (outlined.to_scan, outlined.affine))
    return replace(outlined, tensor=values[None], foreground=mask > 0.5, to_scan=to_scan, affine=affine)


def from_anchor(contract: Contract) -> np.ndarray:
    """4×4: voxel of a contract's grid → mm from the anchor."""
    spacing = np.array(contract.spacing)
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = -spacing * contract.anchor * (np.array(contract.shape) - 1)
    return grid


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
        mean = mean_of(self.contract, self.weights)
        outlined = structures(head, segment(self.weights, head), mean) if known else None
        if outlined is None:
            raise ScanError("no-brain", NO_BRAIN)
        return on_grid_of(self.contract, outlined).tensor


def mean_of(contract: Contract, weights: SegmenterWeights) -> Tensor | None:
    """The mean head's shape where a contract has brains laid on it; None where not."""
    if not contract.normalised:
        return None
    if weights.mean is None:
        raise model.WeightsError(
            f"{weights.name}: it brings no mean head, and the scale “{contract.scale}” lays brains on one; add it "
            "with train_segmenter.py --add-mean"
        )
    return weights.mean


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
            f"{model.SEGMENTER} is missing in {folders[0].name or '.'}/; the scale “{contract.scale}” needs it"
        )
    return StructuresInput(files[0].resolve(), contract)
