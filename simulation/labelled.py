"""Heads with labels to learn segmentation from: label maps bent at will, their brightness drawn by label.

A `LabelledHead` holds tissues on a 1 mm grid: a map that a folder holds, or a simulated head, which brings its
image along. `draw` cuts a sample out of one: bent, scaled, turned, mirrored, and looking as some scanner would
show it. The sample's classes are those of the segmenter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from networks.segmenter import CLASSES
from simulation.anatomy import doubled, sample, waves
from simulation.phantom import STRUCTURES, Recipe, render, structures
from studies import HEAD

# Every tissue: FreeSurfer's numbers (50x are SynthSeg's, outside the brain), the class it is learned as, and its
# T1 brightness, white matter being 1: a range of its own, or a mix of groups, (from, towards, least, most share).
TISSUES: dict[str, tuple[tuple[int, ...], str, tuple]] = {
    "air": ((0,), "background", (0.0, 0.04)),
    "fluid": ((24,), "fluid", ("csf", "grey", -0.05, 0.10)),
    "cortex": ((3, 42), "grey", ("grey", "white", 0.0, 0.0)),
    "white": ((2, 41, 85), "white", ("white", "grey", 0.0, 0.0)),
    "lesion": ((25, 57, 77), "white", ("white", "grey", 0.0, 1.0)),
    "lateral": ((4, 43), "lateral", ("csf", "grey", -0.05, 0.05)),
    "inferior_horn": ((5, 44), "inferior_horn", ("csf", "grey", -0.05, 0.10)),
    "plexus": ((31, 63, 136, 163), "lateral", ("csf", "grey", 0.0, 0.7)),
    "horn_plexus": ((137, 164), "inferior_horn", ("csf", "grey", 0.0, 0.7)),
    "third": ((14, 72), "third", ("csf", "grey", -0.05, 0.10)),
    "fourth": ((15,), "fourth", ("csf", "grey", -0.05, 0.10)),
    "hippocampus": ((17, 53), "hippocampus", ("grey", "white", -0.10, 0.15)),
    "amygdala": ((18, 54), "grey", ("grey", "white", -0.10, 0.15)),
    "thalamus": ((10, 49), "grey", ("grey", "white", 0.25, 0.75)),
    "caudate": ((11, 50, 26, 58), "grey", ("grey", "white", -0.10, 0.30)),
    "putamen": ((12, 51), "grey", ("grey", "white", 0.05, 0.50)),
    "pallidum": ((13, 52), "grey", ("grey", "white", 0.45, 1.0)),
    "ventral": ((28, 60), "white", ("grey", "white", 0.5, 1.0)),
    "cleft": ((30, 62), "grey", ("csf", "grey", 0.0, 1.0)),
    "cerebellar_grey": ((8, 47), "cerebellum", ("grey", "white", -0.15, 0.25)),
    "cerebellar_white": ((7, 46), "cerebellum", ("white", "grey", -0.10, 0.20)),
    "stem": ((16,), "stem", ("grey", "white", 0.5, 1.05)),
    "vessel": ((502,), "background", (0.05, 1.3)),
    "dura": ((514,), "background", (0.1, 1.0)),
    "eye": ((506,), "background", (0.1, 0.4)),
    "lens": ((508,), "background", (0.3, 1.0)),
    "soft": ((507,), "background", (0.3, 0.9)),
    "sinus": ((509,), "background", (0.05, 0.8)),
    "scalp": ((511,), "background", (0.6, 1.8)),
    "cord": ((512,), "background", (0.7, 1.0)),
    "spinal_fluid": ((), "background", ("csf", "grey", -0.05, 0.10)),
    "bone": ((515,), "background", (0.02, 0.25)),
    "marrow": ((516,), "background", (0.15, 1.3)),
    "nerve": ((530,), "background", (0.5, 0.9)),
}
NAMES = tuple(TISSUES)
CLASS_OF = torch.tensor([CLASSES.index(name) for _, name, _ in TISSUES.values()], dtype=torch.uint8)
OUTER = CLASS_OF == 0  # what skull stripping takes away
FLUID = NAMES.index("fluid")
TEXTURED = {"soft": 0.35, "scalp": 0.3, "marrow": 0.4, "bone": 0.3}  # unevenness outside the brain
# What may grow or shrink in a sample apart from all else, by up to so many mm, and how far around it that is felt.
GROWING: dict[str, tuple[tuple[str, ...], float, float]] = {
    "lateral": (("lateral", "plexus"), -1.5, 6.0),
    "inferior_horn": (("inferior_horn", "horn_plexus"), -0.7, 2.5),
    "hippocampus": (("hippocampus",), -1.2, 0.7),
}
FELT = 8.0  # mm, to 1/e
GROWN_SHARE = 0.6  # of the samples, for each of them
MARGIN = 70  # mm of face, neck and air kept around the brain: what is never seen is taken for brain
SAMPLE = (112, 144, 128)  # voxels of a training sample


@dataclass(frozen=True, eq=False)
class LabelledHead:
    """Tissues (their places in TISSUES) on a 1 mm grid, axes right, anterior, superior."""

    name: str
    tissues: Tensor  # uint8 (X, Y, Z)
    low: tuple[int, int, int]  # of the brain, voxels
    high: tuple[int, int, int]
    lobes: tuple[float, float, float]  # the middle of the hippocampi, voxels
    outward: Tensor  # float16 (3 · len(GROWING), X/2, Y/2, Z/2): away from each growing structure, fading
    image: Tensor | None = None  # (X, Y, Z) as rendered, no signal as 0; None where brightness is to be drawn


@dataclass(frozen=True, eq=False)
class Sample:
    image: Tensor  # float32 (X, Y, Z), no signal as 0
    classes: Tensor  # uint8 (X, Y, Z)


def labelled(name: str, tissues: Tensor, image: Tensor | None = None) -> LabelledHead:
    """The head of a tissue volume, cut to what it holds."""
    brain = CLASS_OF[tissues.long()] > 1
    sides = [brain.any(a).any(b).nonzero()[:, 0] for a, b in ((2, 1), (2, 0), (1, 0))]
    low, high = [int(side[0]) for side in sides], [int(side[-1]) + 1 for side in sides]
    start = [max(0, a - MARGIN) for a in low]
    stop = [min(n, b + MARGIN) for n, b in zip(tissues.shape, high, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    tissues = tissues.clone()
    below = tissues[:, :, : low[2]]  # the brain stem; what fluid is lower lies in the spine
    below[below == FLUID] = NAMES.index("spinal_fluid")
    tissues = tissues[box].contiguous()
    hippocampi = (tissues == NAMES.index("hippocampus")).nonzero().float()
    if not len(hippocampi):
        raise ValueError(f"{name}: no voxel is numbered 17 or 53 (hippocampus); give maps numbered as FreeSurfer")
    shift = lambda at: tuple(a - b for a, b in zip(at, start, strict=True))  # noqa: E731
    image = None if image is None else image[box].contiguous()
    lobes = tuple(hippocampi.mean(0).tolist())
    return LabelledHead(name, tissues, shift(low), shift(high), lobes, outward(tissues.numpy()), image)


def outward(tissues: np.ndarray) -> Tensor:
    """Directions away from each growing structure, of length 1 at its edge: (3 · len(GROWING), X/2, Y/2, Z/2)."""
    field = torch.zeros(3 * len(GROWING), *((n + 1) // 2 for n in tissues.shape), dtype=torch.float16)
    for number, (names, _, _) in enumerate(GROWING.values()):
        there = np.isin(tissues, [NAMES.index(name) for name in names])
        places = np.argwhere(there)
        if not len(places):
            continue
        start = np.maximum(places.min(0) - 3 * int(FELT), 0) // 2 * 2
        box = tuple(slice(a, b + 3 * int(FELT)) for a, b in zip(start, places.max(0), strict=True))
        away = ndimage.distance_transform_edt(~there[box]) - ndimage.distance_transform_edt(there[box])
        away = ndimage.gaussian_filter(away.astype(np.float32), 1.0)
        direction = np.stack(np.gradient(away))[:, ::2, ::2, ::2]
        direction /= np.maximum(np.linalg.norm(direction, axis=0), 0.3)
        direction *= np.exp(-np.abs(away[::2, ::2, ::2]) / FELT)
        inner = tuple(slice(a // 2, a // 2 + n) for a, n in zip(start, direction.shape[1:], strict=True))
        field[(slice(3 * number, 3 * number + 3), *inner)] = torch.from_numpy(direction).half()
    return field


def read_map(path: Path) -> LabelledHead:
    """A label map numbered as FreeSurfer does, of about 1 mm."""
    image = nib.as_closest_canonical(nib.load(path))
    numbers = np.asarray(image.dataobj).astype(np.int32)
    spacing = np.array(image.header.get_zooms()[:3])
    if np.abs(spacing - 1).max() > 0.01:
        shown = " × ".join(f"{mm:g}" for mm in spacing)
        raise ValueError(f"{path.name}: voxels of {shown} mm; resample the map to 1 mm")
    table = np.full(max(1000, numbers.max() + 1), 255, np.uint8)
    for place, (known, _, _) in enumerate(TISSUES.values()):
        table[list(known)] = place
    tissues = table[np.maximum(numbers, 0)]
    if (tissues == 255).any():
        unknown = sorted({int(n) for n in np.unique(numbers[tissues == 255])})
        raise ValueError(
            f"{path.name}: label {unknown[0]} is unknown; known are FreeSurfer's numbers and SynthSeg's 502 to 530"
        )
    return labelled(path.name.split(".")[0], torch.from_numpy(tissues))


def find_maps(folder: Path) -> list[Path]:
    """The label maps of a folder, by name."""
    found = sorted(path for path in folder.glob("*.nii*") if path.is_file())
    if not found:
        raise ValueError(f"{folder}: no .nii or .nii.gz label map in it; name a folder that holds some")
    return found


def simulated(name: str, recipe: Recipe) -> LabelledHead:
    """The whole head of a recipe at 1 mm, before a scanner blurs it; its hippocampi lose tissue on their own."""
    rng = np.random.default_rng(np.random.SeedSequence([*recipe.seed, 17]))
    amounts = recipe.amounts | {"hippocampi": float(rng.normal(0.35, 0.35))}
    tilts = recipe.tilts | {"hippocampi": (float(rng.normal(0, 0.1)), 0.0)}
    recipe = replace(
        recipe, amounts=amounts, tilts=tilts, stripped="", spacing=(1.0, 1.0, 1.0), orientation="RAS", noise=0.0,
        oblique=(0.0, 0.0, 0.0), angles=(0.0, 0.0, 0.0), offset=(0.0, 0.0, 0.0), low=(-100.0, -120.0, -120.0),
        high=(100.0, 130.0, 110.0), dtype="float32", white=1.0, slope=1.0, bias=0.0,
    )  # fmt: skip
    image = torch.from_numpy(np.asarray(render(recipe).dataobj, dtype=np.float32))
    tissues = {"outside": "air", "cerebellum": "cerebellar_grey"}
    places = torch.tensor([NAMES.index(tissues.get(each, each)) for each in STRUCTURES], dtype=torch.uint8)
    return labelled(name, places[torch.from_numpy(structures(recipe)).long()], image.half())


def _turn(angles: np.ndarray) -> np.ndarray:
    a, b, c = np.deg2rad(angles)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def _points(
    head: LabelledHead,
    rng: np.random.Generator,
    generator: torch.Generator,
    shape: Sequence[int],
    strength: float,
    centre: np.ndarray | None,
) -> Tensor:
    """Where each voxel of the sample is read: (3, X, Y, Z) in the head's voxels."""
    low, high, lobes = (np.array(each, float) for each in (head.low, head.high, head.lobes))
    if centre is None:
        chance = rng.random()
        near = lobes + rng.normal(0, 12, 3)
        within = low + (high - low) * rng.uniform(0.3, 0.7, 3)
        around = low - 40 + (high - low + 60) * rng.random(3)  # neck, face and scalp
        centre = near if chance < 0.45 else within if chance < 0.8 else around
    scale = np.exp(rng.normal(0, 0.08 * strength) + rng.normal(0, 0.05 * strength, 3))
    shear = np.eye(3) + rng.normal(0, 0.04 * strength, (3, 3)) * (1 - np.eye(3))
    matrix = _turn(rng.normal(0, (12, 7, 7)) * strength) @ shear @ np.diag(scale)
    if rng.random() < 0.5 and strength:
        matrix[:, 0] *= -1
    matrix = matrix * HEAD.spacing
    half = [n // 2 + 1 for n in shape]
    grids = [torch.arange(n, dtype=torch.float32) * 2 - size / 2 for n, size in zip(half, shape, strict=True)]
    turn = torch.from_numpy(matrix).float()
    points = sum(
        turn[:, i].view(3, 1, 1, 1) * grids[i].view([-1 if j == i else 1 for j in range(3)]).unsqueeze(0)
        for i in range(3)
    ) + torch.from_numpy(centre).float().view(3, 1, 1, 1)
    for cell, mm in ((36, 3.0), (18, 1.6), (9, 0.7)):
        points += strength * mm * float(rng.uniform(0.3, 1.3)) * waves(tuple(half), cell / 2, 3, generator)
    amounts = [
        strength * float(rng.uniform(least, most)) if rng.random() < GROWN_SHARE else 0.0
        for _, least, most in GROWING.values()
    ]
    if any(amounts):
        moves = sample(head.outward.float(), points / 2)
        for number, amount in enumerate(amounts):
            points -= amount * moves[3 * number : 3 * number + 3]
    return doubled(points)[:, : shape[0], : shape[1], : shape[2]]


def _brightness(rng: np.random.Generator, t1: bool) -> np.ndarray:
    """A mean for every tissue; white matter of a T1 is 1."""
    between = rng.uniform
    if t1:
        groups = {"csf": between(0.05, 0.5), "grey": between(0.55, 0.85), "white": 1.0}
    else:
        groups = {name: between(0.05, 1.2) for name in ("csf", "grey", "white")}
    means = []
    for _, _, rule in TISSUES.values():
        if len(rule) == 2:
            means.append(between(*rule) if t1 or rule[1] < 0.1 else between(0.02, 1.3))
        else:
            start, towards, least, most = rule
            means.append(groups[start] + between(least, most) * (groups[towards] - groups[start]))
    return np.maximum(means, 0).astype(np.float32)


def _coloured(tissues: Tensor, rng: np.random.Generator, generator: torch.Generator, t1: bool) -> Tensor:
    means = torch.from_numpy(_brightness(rng, t1))
    spread = torch.from_numpy(rng.uniform(0.0, 0.06, len(NAMES)).astype(np.float32))
    at = tissues.long()
    grain = torch.randn(tissues.shape, generator=generator)
    image = means[at] + spread[at] * grain
    half = tuple(n // 2 + 1 for n in tissues.shape)
    slow = stretch_to(waves(half, 6, 1, generator) + waves(half, 2.5, 1, generator), tissues.shape)
    uneven = torch.tensor([TEXTURED.get(name, 0.03) for name in NAMES])
    uneven = uneven * float(rng.uniform(0.3, 1.5))
    return (image * (1 + uneven[at] * slow)).clamp_(min=0)


def stretch_to(field: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, x, y, z) of about half the size → (X, Y, Z)."""
    return doubled(field)[0, : shape[0], : shape[1], : shape[2]]


def _stripped(image: Tensor, tissues: Tensor, rng: np.random.Generator) -> Tensor:
    """What some tool's skull stripping leaves: the fluid's rim kept, half kept or gone, a loose rim at times."""
    outer = OUTER[tissues.long()].numpy()
    kind = rng.choice(["rim", "fluid", "some", "tissue"])
    if kind == "rim":
        outer = ndimage.binary_erosion(outer, iterations=int(rng.integers(1, 4)), border_value=1)
    elif kind in ("some", "tissue"):
        brain = ~(outer | (tissues == FLUID).numpy())
        reach = int(rng.integers(1, 4)) if kind == "some" else 1
        kept = ndimage.binary_dilation(brain, iterations=reach)
        outer = ~(ndimage.binary_erosion(kept, iterations=reach) if kind == "tissue" else kept)
    return image * torch.from_numpy(~outer)


def _scanned(image: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    """Gain, resolution, noise and gamma of a scanner."""
    shape = image.shape
    half = tuple(n // 2 + 1 for n in shape)
    gain = rng.uniform(0, 0.35) * waves(half, 45, 1, generator)
    image = image * stretch_to(gain, shape).exp_()
    image = image.clamp_(min=0) ** float(np.exp(rng.normal(0, 0.18)))
    spacing = np.array(HEAD.spacing)
    acquired = np.full(3, rng.uniform(0.8, 1.2))
    kind = rng.random()
    if kind < 0.35:
        acquired[:] = rng.uniform(1.2, 2.2)
    elif kind < 0.5:
        acquired[rng.integers(3)] = rng.uniform(1.2, 3.0)
    sigma = rng.uniform(0.25, 0.5) * acquired / spacing
    image = torch.from_numpy(ndimage.gaussian_filter(image.numpy(), sigma, truncate=2.5))
    noise = rng.uniform(0.0, 0.06) * float(rng.random())
    small = [max(8, round(n * mm / min(a, 9))) for n, mm, a in zip(shape, spacing, acquired, strict=True)]
    coarse = any(a > mm * 1.15 for a, mm in zip(acquired, spacing, strict=True))
    if coarse:
        small = [min(a, n) for a, n in zip(small, shape, strict=True)]
        image = functional.interpolate(image[None, None], small, mode="trilinear")[0, 0]
    if noise:
        one, two = (torch.randn(image.shape, generator=generator) for _ in range(2))
        level = noise * float(image.max().clamp(max=1.2))
        image = torch.hypot(image + level * one, level * two)
    if coarse:
        image = functional.interpolate(image[None, None], list(shape), mode="trilinear")[0, 0]
    return image


def draw(head: LabelledHead, seed: Sequence[int], shape: Sequence[int] = SAMPLE, strength: float = 1.0,
         t1_share: float = 0.75, centre: np.ndarray | None = None) -> Sample:  # fmt: skip
    """One sample of a head, from its seed alone; `strength` 0 leaves the shape as it is."""
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    points = _points(head, rng, generator, shape, strength, centre)
    size = head.tissues.shape
    nearest = points.round().long()
    within = torch.stack([(at >= 0) & (at < n) for at, n in zip(nearest, size, strict=True)]).all(0)
    at = [axis.clamp(0, n - 1) for axis, n in zip(nearest, size, strict=True)]
    tissues = head.tissues.flatten()[(at[0] * size[1] + at[1]) * size[2] + at[2]] * within
    bare = rng.random() < 0.3
    if head.image is not None:
        image = sample(head.image[None].float(), points)[0] * within
    else:
        image = _coloured(tissues, rng, generator, rng.random() < t1_share)
    if bare:  # before the scanner's blur and noise at times, mostly after: tools strip what was scanned
        image = _scanned(image, rng, generator)
        image = _stripped(image, tissues, rng)
    else:
        image = _scanned(image, rng, generator)
    image = image / image.std().clamp(min=1e-3)
    return Sample(image.contiguous(), CLASS_OF[tissues.long()])
