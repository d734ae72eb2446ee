"""A prepared head → what each of its voxels shows: labels numbered as FreeSurfer does, and their probabilities.

The network sees the box of the grid that holds the brain. Left and right are told apart by the plane between the
hemispheres, which is laid through the answer itself. Volumes and other measures are taken in `measures`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

import model
from diagnosis.anatomy.bare import in_a_scalp
from diagnosis.anatomy.masks import grown, shrunk
from diagnosis.anatomy.partial_volume import by_brightness
from networks.base import in_memory_format
from networks.segmenter import CLASSES, CUBE, Segmenter, from_cubes, to_cubes
from scans.prepare import Prepared
from scans.resample import resample
from scans.scan import Scan
from studies import HEAD, Contract

KIND = "segmentation"  # of a weights file, in its header
MEAN = "mean"  # of a weights file's extras: the shape of the mean head, share · 255
START, SHAPE = (
    (11, 20, 40),
    (144, 208, 176),
)  # the box of the grid that the network sees: any head's brain, and a rim
SURE = 4.0  # a cube whose mean score for background leads by so much is background throughout
BRIDGE, RIM = 2, 4  # cubes: half as thick as what may tie other things to the brain; kept around it, for fluid
SAME = ("kind", "shape", "channels", "spacing", "place", "anchor", "planes")  # of a contract, to lie alike
ROWS = 1 << 14  # cubes answered at once
# FreeSurfer's numbers of each class: left and right, or the one of what has no side.
NUMBERS: dict[str, tuple[int, ...]] = {
    "background": (0,), "fluid": (24,), "grey": (3, 42), "white": (2, 41), "lateral": (4, 43),
    "inferior_horn": (5, 44), "third": (14,), "fourth": (15,), "hippocampus": (17, 53), "cerebellum": (8, 47),
    "stem": (16,),
}  # fmt: skip
TISSUE = ("grey", "white", "hippocampus", "cerebellum", "stem")


@dataclass(frozen=True, eq=False)
class SegmenterWeights:
    name: str  # the file's name
    sha256: str  # of the file
    header: dict[str, Any]
    network: Segmenter  # in eval mode, on the device
    device: torch.device
    mean: Tensor | None = None  # the mean head's shape, as `normalise.shape_of` says it


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Everything lies on the box START, SHAPE of the prepared grid; axes right, anterior, superior."""

    classes: np.ndarray  # uint8 (X, Y, Z), places in CLASSES
    cubes: Tensor  # int64 (M,): the cubes that are not background throughout, in the box of half the resolution
    shares: Tensor  # uint8 (8, classes, M): probability · 255 of the voxels of those cubes
    plane: np.ndarray  # (3,): x of the plane between the hemispheres is plane · (1, y, z), voxels of the box
    spacing: tuple[float, ...]  # mm
    header: dict[str, Any]  # of the weights
    sha256: str

    @cached_property
    def left(self) -> np.ndarray:
        """Which voxels lie left of the plane: bool (X, Y, Z)."""
        x, y, z = (np.arange(n, dtype=np.float32) for n in self.classes.shape)
        return x[:, None, None] < self.plane[0] + self.plane[1] * y[None, :, None] + self.plane[2] * z[None, None]

    def left_in_cubes(self) -> Tensor:
        """Which voxels of `shares` lie left of the plane: bool (8, M)."""
        _, y_size, z_size = (n // 2 for n in self.classes.shape)
        z, rest = self.cubes % z_size, self.cubes // z_size
        y, x = rest % y_size, rest // y_size
        off, by_y, by_z = (float(each) for each in self.plane)
        ahead = 2.0 * x - (off + 2 * by_y * y + 2 * by_z * z)  # of the cube's first voxel
        corners = torch.tensor([[i - by_y * j - by_z * k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        return ahead + corners < 0

    @cached_property
    def numbers(self) -> np.ndarray:
        """FreeSurfer's numbers: uint8 (X, Y, Z)."""
        left, right = (np.array([NUMBERS[name][side] for name in CLASSES], np.uint8) for side in (0, -1))
        return np.where(self.left, left[self.classes], right[self.classes])

    @cached_property
    def shares_of_cubes(self) -> Tensor:
        """The mean probability of each class in each of `cubes`: float32 (classes, M)."""
        return self.shares.sum(0, dtype=torch.int16).float() / (255 * CUBE)

    def by_cubes(self, levels: Mapping[str, float]) -> Tensor:
        """The sum of classes' probabilities, each times its level, by cubes: float32 (X/2, Y/2, Z/2)."""
        total = torch.zeros(self.classes.size // CUBE)
        total[self.cubes] = torch.tensor([levels.get(name, 0.0) for name in CLASSES]) @ self.shares_of_cubes
        return total.view([n // 2 for n in self.classes.shape])

    def share(self, name: str) -> Tensor:
        """The probability · 255 of one class in every voxel: uint8 (X, Y, Z)."""
        whole = torch.zeros((self.classes.size // CUBE, CUBE), dtype=torch.uint8)
        whole[self.cubes] = self.shares[:, CLASSES.index(name)].T
        return from_cubes(whole.view(1, *(n // 2 for n in self.classes.shape), CUBE))[0]

    def probability(self, name: str) -> Tensor:
        """The probability of one class in every voxel: float32 (X, Y, Z)."""
        return self.share(name) / 255


def load(path: str | Path, device: str | torch.device = "auto") -> SegmenterWeights:
    """Open the weights of a segmenter; every refusal is a WeightsError."""
    path, device = Path(path), model.pick_device(device)
    header = model.read_record(path)
    if header.get("kind") != KIND:
        raise model.WeightsError(
            f"{path.name}: holds {header.get('kind', 'a study')!r}, not a segmenter; give a "
            "file that train_segmenter.py wrote"
        )
    if header.get("contract_hash") != HEAD.hash() or tuple(header.get("classes", ())) != CLASSES:
        raise model.WeightsError(
            f"{path.name}: made for the input contract {header.get('contract_hash')} and the "
            f"classes {header.get('classes')}; this version has {HEAD.hash()} and other ones, "
            "so train it again"
        )
    state, extras = model.read_tensors(path)
    try:
        arguments = header["network"].get("arguments", {})
        with torch.device("meta"):  # what it would take is compared with the file before it is built
            wanted = Segmenter(**arguments).state_dict()
    except Exception as error:  # torch raises of every kind on a strange argument
        shown = str(error)[:200]
        raise model.WeightsError(f"{path.name}: its network cannot be built ({shown}); train it again") from error
    model.check_fits(path, wanted, state)
    model.check_finite(path, state)
    network = Segmenter(**arguments)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    in_memory_format(network.to(device), torch.channels_last_3d).eval().requires_grad_(False)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return SegmenterWeights(path.name, sha256, header, network, device, mean_in(path, extras))


def mean_in(path: Path, extras: dict[str, Tensor]) -> Tensor | None:
    """The mean head's shape (2, x, y, z), as shares, where a file brings it."""
    mean = extras.get(MEAN)
    if mean is None:
        return None
    wanted = (2, *(n // 4 for n in SHAPE))
    if tuple(mean.shape) != wanted or mean.dtype != torch.uint8 or not bool(mean[0].any()):
        raise model.WeightsError(
            f"{path.name}: extras.{MEAN} is no mean head of {'×'.join(map(str, wanted))} bytes; add it again with "
            "train_segmenter.py --add-mean"
        )
    return mean.float() / 255


def fits(contract: Contract) -> bool:
    """Whether what a contract prepares lies on the grid of HEAD; how it is scaled does not matter here."""
    return all(getattr(contract, part) == getattr(HEAD, part) for part in SAME)


def as_input(prepared: Prepared) -> Tensor:
    """The box of a prepared head, no signal as 0: (1, X, Y, Z)."""
    box = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))
    values = prepared.tensor[(slice(None), *box)]
    values = values - values.min()
    return values / values.std().clamp(min=1e-3)


@torch.inference_mode()
def segment(weights: SegmenterWeights, prepared: Prepared) -> Segmentation:
    """What each voxel of a head prepared by the contract HEAD shows."""
    if prepared.tensor.shape[1:] != HEAD.shape:
        raise ValueError(
            f"prepared on a grid of {'×'.join(map(str, prepared.tensor.shape[1:]))} voxels; the segmenter needs a "
            f"head prepared by studies.HEAD, {'×'.join(map(str, HEAD.shape))}"
        )
    if "no-affine" in prepared.notes:
        raise ValueError(
            "the file says nothing of how the head lies in it, so left cannot be told from right; "
            "save the scan with its affine"
        )
    volume = as_input(prepared)
    cubes, shares, classes = answer(weights.network, volume.to(weights.device))
    clothed = in_a_scalp(volume, classes)
    if clothed is not None:
        cubes, shares, classes = answer(weights.network, clothed.to(weights.device))
    plane = between_hemispheres(classes)
    return Segmentation(classes, cubes, shares, plane, HEAD.spacing, weights.header, weights.sha256)


def answer(network: Segmenter, volume: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    """Cubes, shares and classes of a box, as in `Segmentation`."""
    voxels = to_cubes(volume)
    features = network.features(voxels)
    shape = features.shape[2:]
    rows = features.permute(0, 2, 3, 4, 1).flatten(0, 3)  # (cubes, 2 · width + 8)
    lead = torch.cat([network.mean_answer(some) for some in rows.split(ROWS)], 1)  # (classes, cubes)
    doubtful = (lead[0] - lead[1:].amax(0) < SURE).view(shape).cpu()
    brain = (lead[2:].amax(0) > lead[:2].amax(0)).view(shape).cpu().numpy()
    doubtful = (doubtful & torch.from_numpy(around_the_brain(brain))).flatten()
    cubes = doubtful.nonzero()[:, 0]
    shares = torch.empty((CUBE, network.classes, len(cubes)), dtype=torch.uint8)
    found = torch.zeros((len(doubtful), CUBE), dtype=torch.uint8)
    for start in range(0, len(cubes), ROWS):
        some = cubes[start : start + ROWS]
        scores = network.answer(rows[some.to(rows.device)])
        shares[:, :, start : start + ROWS] = scores.softmax(1).mul_(255).round_().to(torch.uint8).cpu()
    values = voxels.flatten(0, 3).cpu()[cubes].T.contiguous()  # (8, M)
    shares = by_brightness(shares, values)
    found[cubes] = _leading(shares).T
    classes = from_cubes(found.view(1, *shape, CUBE))[0].numpy()
    return cubes, shares, classes


def _leading(scores: Tensor) -> Tensor:
    """Shares (8, classes, M) → which class leads, uint8 (8, M); much quicker than argmax across strides."""
    best, place = scores[:, 0].clone(), torch.zeros_like(scores[:, 0], dtype=torch.uint8)
    for number in range(1, scores.shape[1]):
        place.masked_fill_(scores[:, number] > best, number)
        torch.maximum(best, scores[:, number], out=best)
    return place


def around_the_brain(brain: np.ndarray) -> np.ndarray:
    """What lies in or near the largest piece of a mask; what only thin bridges tie to it falls off."""
    core = shrunk(brain, BRIDGE)
    pieces, count = ndimage.label(core)
    if count == 0:
        return brain
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return grown(pieces == sizes.argmax(), BRIDGE + RIM)


def between_hemispheres(classes: np.ndarray) -> np.ndarray:
    """The plane through the middle of the brain, in every line from left to right that crosses it."""
    brain = among(classes[:, ::2, ::2], "grey", "white", "hippocampus")
    crossed = brain.sum(0) > 20
    if crossed.sum() < 50:
        return np.array([(classes.shape[0] - 1) / 2, 0.0, 0.0])
    y, z = np.nonzero(crossed)
    lines = brain[:, y, z]
    first, last = lines.argmax(0), len(lines) - 1 - lines[::-1].argmax(0)
    middle, reach = (first + last) / 2, last - first
    terms = np.stack([np.ones(len(y)), 2.0 * y, 2.0 * z], 1)
    # The midline structures say it best, where they were found.
    found = np.flatnonzero(among(classes, "third", "fourth"))
    third = np.column_stack(np.unravel_index(found, classes.shape))
    if len(third):
        terms = np.concatenate([terms, np.column_stack([np.ones(len(third)), third[:, 1:]])])
        middle = np.concatenate([middle, third[:, 0]])
        reach = np.concatenate([reach, np.full(len(third), reach.max())])
    share = reach.astype(float)
    plane = np.zeros(3)
    for _ in range(6):  # least squares, lines that disagree weighing less each time
        weighted = terms * share[:, None]
        plane = np.linalg.solve(weighted.T @ terms, weighted.T @ middle)
        off = middle - terms @ plane
        share = reach / (1 + (off / 3) ** 2)
    return plane


def among(classes: np.ndarray, *names: str) -> np.ndarray:
    """Which voxels are of one of the named classes; for a few, so is quicker than np.isin."""
    return np.logical_or.reduce([classes == CLASSES.index(name) for name in names])


def on_scan(found: Segmentation, prepared: Prepared, scan: Scan) -> np.ndarray:
    """The label map on the scan's own voxels, uint8, 0 where the box does not reach."""
    box_to_grid = np.eye(4)
    box_to_grid[:3, 3] = START
    to_box = np.linalg.inv(prepared.to_scan @ box_to_grid)  # scan voxel → box voxel
    shape = scan.voxels.shape
    best = torch.full(shape, 0.5)  # what all classes but background must add up to
    known = torch.zeros(shape)
    place = torch.zeros(shape, dtype=torch.uint8)
    leading = torch.zeros(shape)
    for number, name in enumerate(CLASSES[1:], 1):
        chance = resample(found.probability(name), to_box, shape, smooth=True)
        known += chance
        ahead = chance > leading
        place[ahead] = number
        torch.maximum(leading, chance, out=leading)
    place[known < best] = 0
    left, right = (np.array([NUMBERS[name][side] for name in CLASSES], np.uint8) for side in (0, -1))
    axes = [
        np.arange(n, dtype=np.float32).reshape([-1 if i == j else 1 for j in range(3)])
        for i, n in enumerate(shape)
    ]
    at = lambda row: sum(to_box[row, i] * axes[i] for i in range(3)) + to_box[row, 3]  # noqa: E731
    is_left = at(0) < found.plane[0] + found.plane[1] * at(1) + found.plane[2] * at(2)
    return np.where(is_left, left[place.numpy()], right[place.numpy()])
