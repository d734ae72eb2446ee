"""The simulated cohort: heads of known severity, bent and coloured out of the ICBM 152 anatomy; no patients.

    python simulate.py --subjects 500 --out cohort --seed 1 --test 0.2     a training cohort
    python simulate.py demo                                                the two scans of demodata/

Atrophy is a displacement: cerebrospinal fluid grows and the tissue beside it is pressed together. Everything a
hospital varies (contrast, coil, noise, field of view, voxel size, axis order, number type, skull or none) is
drawn on top. `draw` decides a head from its seed alone, `render` makes its voxels, `head` does both.
"""

import argparse
import csv
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from isal import igzip
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from studies import STUDIES

CLASSES = {label.code: float(label.severity or 0) for label in STUDIES["alzheimers"].labels}
SPREAD = 0.07  # standard deviation of severity within a class

# mm that fluid grows into tissue at severity 1; the ordinary variation beside it; mm over which that fades.
REGIONS: dict[str, tuple[float, float, float]] = {
    "ventricles": (11.5, 0.4, 16.0),
    "horns": (4.0, 0.4, 7.0),
    "cortex": (1.2, 0.35, 3.5),
}
FLUID, GREY, WHITE = 0.27, 0.65, 0.87  # the template's own brightness of the three tissues
CENTRE = (0.0, -18.0, 8.0)  # of the brain, template mm
ORIENTATIONS = ("RAS", "LAS", "LPS", "LPI", "LIA", "PSR", "RPS", "ASR", "PIR", "RSA", "LSA", "ASL")
# The temporal horn, front to back, right side, template mm.
HORN = ((31, -6, -26), (34, -10, -23), (37, -16, -19), (38.5, -22, -17), (39.5, -30, -15), (39, -38, -12),
        (36, -45, -5))  # fmt: skip
DEMOS = {"demo": ("AD", 990001), "demo-cn": ("CN", 990002)}


# --- the anatomy, once per process -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The template and what follows from it; x, y, z in mm are voxel index + `origin` (times 2 for maps)."""

    origin: Tensor  # (3,) mm of voxel 0 of `t1`
    t1: Tensor  # (X, Y, Z), 0..1, fluid outside the brain
    detail: Tensor  # t1 minus its blur: what sharpening adds
    horn: Tensor  # how much a voxel belongs to the closed temporal horn, 0..1
    directions: dict[str, Tensor]  # region -> (3, x, y, z) on a 2 mm grid: away from the fluid, times weight
    distances: dict[str, Tensor]  # region -> (x, y, z) on that grid: mm from the fluid, negative inside
    wide_origin: Tensor  # (3,) mm of voxel 0 of `surface`
    surface: Tensor  # (1, x, y, z) on a wide 2 mm grid: mm from the brain's smoothed surface
    inside: Tensor  # (1, X, Y, Z) the brain mask of the template


def _signed(mask: np.ndarray, reach: int = 400, blur: float = 0.8) -> np.ndarray:
    """Voxels to the mask's surface, negative inside; beyond `reach` it is only known to be far."""
    where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {i}))) for i in range(3)]
    box = tuple(slice(max(0, w[0] - reach), w[-1] + reach + 1) for w in where)
    part = mask[box]
    out = ndimage.distance_transform_edt(~part) - ndimage.distance_transform_edt(part)
    far = np.full(mask.shape, float(reach), np.float32)
    far[box] = ndimage.gaussian_filter((out - np.sign(out) * 0.5).astype(np.float32), blur)
    return far


def _grown(mask: np.ndarray, mm: int) -> np.ndarray:
    """The mask with a cube of `mm` around each voxel."""
    grid = torch.from_numpy(mask.astype(np.float32))[None]
    return functional.max_pool3d(grid, 2 * mm + 1, stride=1, padding=mm)[0].numpy() > 0


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """The ICBM 152 2009a templates that nilearn carries, and the distance maps on them."""
    from nilearn import datasets  # heavy, and only needed here

    images = [f(resolution=1) for f in (datasets.load_mni152_template, datasets.load_mni152_gm_template,
                                        datasets.load_mni152_wm_template)]  # fmt: skip
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    origin = images[0].affine[:3, 3]
    brain = t1 > 0
    low = np.maximum(np.argwhere(brain).min(0) - 3, 0) // 2 * 2
    high = np.minimum(np.argwhere(brain).max(0) + 4, t1.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    t1, brain, origin = t1[box], brain[box], origin + low
    fluid = brain * (1 - grey[box] - white[box])
    x, y, z = np.meshgrid(*(np.arange(n) + o for n, o in zip(t1.shape, origin, strict=True)), indexing="ij")
    side = np.abs(x)

    lateral = (t1 < 0.47) & (side < 37) & (y > -60) & (y < 36) & (z > -4) & (z < 34)
    lateral &= ~((side < 23) & (y < -21) & (z < 13)) & ~((side < 4) & (z < 16))
    lateral |= (fluid > 0.5) & (side > 21) & (side < 46) & (y < -30) & (y > -56) & (z > -10) & (z < 13)
    third = (fluid > 0.5) & (side < 5) & (y > -23) & (y < 6) & (z > -8) & (z < 15)
    near = _grown(lateral | third, 4)
    line = np.concatenate([np.linspace(a, b, 12) for a, b in zip(HORN, HORN[1:], strict=False)])
    tube = np.zeros_like(brain)
    for sign in (1, -1):
        tube[tuple(np.rint(line * (sign, 1, 1) - origin).astype(int).T)] = True
    along = _signed(tube, 12, blur=0.3)
    horn = (along < 0.7) | ((fluid > 0.5) & (along < 5) & (y > -14) & (z > -30))
    deep = ~_grown(~brain, 2)
    sulci = ~brain | ((fluid > 0.4) & ~near & ~(deep & (along < 9)) & ~((side < 16) & (y > -40) & (z < 16)))
    still = (((side < 20) & (y > -48) & (y < -2) & (z < -6)) | ((side < 32) & (z > -25) & (z < 25) & (y > -30)
             & (y < 10)) | (z < -64))  # fmt: skip
    cerebellum = (z < -18 - 0.25 * (y + 50)) & (y < -38)

    weights = {
        "ventricles": 1 - 0.55 * ndimage.gaussian_filter(((side < 7) & (z < 15)).astype(np.float32), 2),
        "horns": np.ones_like(t1),
        "cortex": ndimage.gaussian_filter(np.where(still, 0, np.where(cerebellum, 0.3, 1)).astype(np.float32), 3),
    }
    directions, distances = {}, {}
    for region, mask in (("ventricles", lateral | third), ("horns", horn), ("cortex", sulci)):
        distance = _signed(mask, 40)
        slope = np.stack(np.gradient(ndimage.gaussian_filter(distance, 0.7)))
        slope /= np.maximum(np.linalg.norm(slope, axis=0), 0.35)
        directions[region] = torch.from_numpy((slope * weights[region])[:, ::2, ::2, ::2].astype(np.float32))
        distances[region] = torch.from_numpy(distance[::2, ::2, ::2].copy())

    filled = np.where(brain, t1, FLUID).astype(np.float32)
    wide_origin = np.array([-130.0, -170.0, -210.0])
    wide = np.zeros((131, 156, 171), bool)
    at = ((origin - wide_origin) // 2).astype(int)
    small = np.pad(brain[::2, ::2, ::2], 6)
    closed = ndimage.distance_transform_edt(ndimage.distance_transform_edt(~small) < 4.0) > 4.0
    wide[tuple(slice(a - 6, a - 6 + n) for a, n in zip(at, small.shape, strict=True))] = closed | small
    surface = 2 * _signed(wide, blur=1.0)
    as_tensor = lambda a: torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))  # noqa: E731
    return Anatomy(
        as_tensor(origin), as_tensor(filled), as_tensor(filled - ndimage.gaussian_filter(filled, 1.3)),
        as_tensor(np.exp(-((np.maximum(_signed(horn, 12), 0) / 1.0) ** 2))), directions, distances,
        as_tensor(wide_origin), as_tensor(surface)[None], as_tensor(brain)[None],
    )  # fmt: skip


# --- what a head is, decided from its seed -----------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Everything about one head. The defaults are the plain head: the template as it is, on its own 1 mm grid."""

    seed: tuple[int, ...] = (0,)
    label: str = "CN"
    severity: float = 0.0
    amounts: dict[str, float] = field(default_factory=dict)  # mm by region, mean of both sides
    tilts: dict[str, tuple[float, float]] = field(default_factory=dict)  # region -> share to the right, to the front
    stripped: str = "mask"  # "" whole head, "mask" as the template, "loose" with some rim, "tissue" without fluid
    deform: float = 0.0  # times the usual smooth random deformation
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the head in the world, degrees
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the head in the world, mm
    oblique: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the scan in the world, degrees
    low: tuple[float, float, float] = (-98.0, -116.0, -80.0)  # the field of view, mm from the brain's centre
    high: tuple[float, float, float] = (98.0, 116.0, 108.0)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  # along right, anterior, superior
    orientation: str = "RAS"
    tones: tuple[float, float, float] | None = None  # brightness of fluid, grey, white; None leaves the template
    edge: float = 0.0  # how sharply tissues part
    sharpen: float = 0.0
    gamma: float = 1.0
    bias: float = 0.0
    noise: float = 0.0  # of white matter's brightness
    shell: dict[str, float] = field(default_factory=dict)
    dtype: str = "float32"
    white: float = 1.0  # stored value of white matter
    slope: float = 1.0

    def truth(self) -> dict[str, object]:
        """A row of truth.csv, without the file's name."""
        row: dict[str, object] = {"class": self.label, "severity": round(self.severity, 4)}
        row |= {region: round(self.amounts.get(region, 0.0), 3) for region in REGIONS}
        for region in ("ventricles", "horns"):
            row[f"{region}_right_share"] = round(self.tilts.get(region, (0.0, 0.0))[0], 3)
        contrast = "template" if self.tones is None else "/".join(f"{t:.2f}" for t in self.tones)
        return row | {
            "stripped": self.stripped or "no",
            "contrast": contrast,
            "gamma": round(self.gamma, 3),
            "spacing": "x".join(f"{s:g}" for s in self.spacing),
            "orientation": self.orientation,
            "oblique": int(any(self.oblique)),
            "dtype": self.dtype,
            "noise": round(self.noise, 4),
        }


def amounts_of(severity: float) -> dict[str, float]:
    """mm of growth by region at a severity, nobody's ordinary variation added."""
    return {region: mm * severity for region, (mm, _, _) in REGIONS.items()}


def plain(severity: float = 0.0, **changes) -> Recipe:
    """The recipe without any jitter: the template, aged by `severity`; `changes` are Recipe's own fields."""
    return replace(Recipe(severity=severity, amounts=amounts_of(severity)), **changes)


def draw(seed: tuple[int, ...], label: str | None = None, severity: float | None = None) -> Recipe:
    """A head from its seed alone. Without a label or a severity, both are drawn; one gives the other."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    between, normal, chance = rng.uniform, rng.normal, lambda p: bool(rng.random() < p)
    codes = sorted(CLASSES, key=CLASSES.get)
    drawn, around = str(rng.choice(codes)), float(np.clip(normal(), -2.2, 2.2)) * SPREAD
    if label is None:
        label = drawn if severity is None else min(codes, key=lambda c: abs(CLASSES[c] - severity))
    severity = CLASSES[label] + around if severity is None else float(severity)
    jitter = {region: float(np.clip(normal(), -2.2, 2.2)) * sd for region, (_, sd, _) in REGIONS.items()}
    amounts = {region: mm + jitter[region] for region, mm in amounts_of(severity).items()}
    tilts = {"ventricles": (normal() * 0.08, normal() * 0.12), "horns": (normal() * 0.10, 0.0),
             "cortex": (normal() * 0.08, normal() * 0.2)}  # fmt: skip
    tilts = {region: tuple(float(np.clip(t, -0.3, 0.3)) for t in pair) for region, pair in tilts.items()}

    stripped = str(rng.choice(["mask", "loose", "tissue"])) if chance(0.3) else ""
    size = np.clip(normal(0.945, 0.045), 0.83, 1.05)
    scale = tuple(float(v) for v in size * np.clip(normal(1, 0.03, 3), 0.93, 1.07))
    angles = tuple(float(v) for v in between(-1, 1, 3) * (8, 5, 6))

    kind = rng.choice(["one", "fine", "coarse", "slices"], p=[0.35, 0.15, 0.15, 0.35])
    spacing = np.ones(3)
    if kind == "fine":
        spacing[:] = between(0.8, 1.0)
    elif kind == "coarse":
        spacing[:] = between(1.1, 2.0)
    elif kind == "slices":
        spacing[:] = between(0.86, 1.1)
        spacing[rng.integers(3)] = rng.choice([1.2, 1.2, 1.25, 1.5, between(1.2, 2), between(2, 3)])
    if stripped and chance(0.5):  # cropped to the brain
        low = (-between(74, 84), -between(90, 100), -between(66, 90))
        high = (between(74, 84), between(92, 102), between(74, 90))
    else:
        low = (-between(88, 128), -between(112, 132), -(between(64, 110) if chance(0.45) else between(100, 165)))
        high = (between(88, 128), between(112, 140), between(92, 132))
        if chance(0.12):
            high = (high[0], between(92, 106), high[2])
        if chance(0.08):
            low = (low[0], -between(94, 106), low[2])
        if chance(0.05):
            high = (*high[:2], between(80, 90))
    dtype = str(rng.choice(["int16", "uint8", "float32"], p=[0.65, 0.25, 0.1]))
    shell = {
        "gap": between(0.5, 3.5), "bone": between(4, 9), "scalp": between(3, 10), "uneven": between(0.1, 0.45),
        "fat": between(0.75, 1.9), "muscle": between(0.35, 0.75), "hard": between(0.03, 0.16),
        "marrow": between(0.15, 0.8), "skin": between(0.4, 0.9), "air": between(-0.7, 0.6), "stripe": between(1, 3),
        "neck": between(50, 70), "face": between(-12, 10), "jaw": between(-15, 15), "coil": between(-0.35, 0.6),
    }  # fmt: skip
    return Recipe(
        seed=seed, label=label, severity=severity, amounts=amounts, tilts=tilts, stripped=stripped,
        deform=between(0.7, 1.2), scale=scale, angles=angles,
        offset=tuple(float(v) for v in normal(0, 8, 3)),
        oblique=tuple(float(v) for v in between(-9, 9, 3)) if chance(0.15) else (0.0, 0.0, 0.0),
        low=tuple(map(float, low)), high=tuple(map(float, high)),
        spacing=tuple(round(float(s), 3) for s in spacing),
        orientation=str(rng.choice(ORIENTATIONS)) if chance(0.8) else _any_orientation(rng),
        tones=(between(0.08, 0.36), between(0.5, 0.8), 1.0), edge=between(0.1, 0.95), sharpen=between(-0.4, 2.2),
        gamma=float(np.exp(between(math.log(0.7), math.log(1.3)))), bias=between(0.03, 0.22),
        noise=between(0.004, 0.045), shell=shell if not stripped else {}, dtype=dtype,
        white=float({"int16": np.exp(between(4.8, 7.6)), "uint8": between(110, 200),
                     "float32": np.exp(between(-2, 9))}[dtype]),
        slope=float(rng.choice([1.0, 1.0, 1.0, between(0.05, 4)])) if dtype != "float32" else 1.0,
    )  # fmt: skip


def _any_orientation(rng: np.random.Generator) -> str:
    return "".join(pair[rng.integers(2)] for pair in rng.permutation([*("RL", "AP", "SI")]))


# --- its voxels --------------------------------------------------------------------------------------------


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """About x, then y, then z."""
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def _sample(volume: Tensor, index: Tensor) -> Tensor:
    """volume (C, X, Y, Z) at index (3, x, y, z) in its voxels -> (C, x, y, z); its edge goes on outside."""
    size = torch.tensor(volume.shape[1:], dtype=torch.float32).view(3, 1, 1, 1)
    grid = (index * (2 / (size - 1)) - 1).flip(0).permute(1, 2, 3, 0)[None]  # (1, x, y, z, 3), z first
    return functional.grid_sample(volume[None], grid, padding_mode="border", align_corners=True)[0]


def _stretch(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(C, x, y, z) brought to another shape, corner on corner, linear: one matrix an axis, smallest result first."""
    for axis in (3, 2, 1):
        old, new = volume.shape[axis], shape[axis - 1]
        at = torch.linspace(0, old - 1, new, dtype=torch.float64)
        left = at.floor().clamp(max=old - 2).long()
        rows = torch.zeros(new, old)
        rows[torch.arange(new), left] = (1 - (at - left)).float()
        rows[torch.arange(new), left + 1] = (at - left).float()
        volume = (rows @ volume.movedim(axis, -2)).movedim(-2, axis)
    return volume


def _doubled(volume: Tensor) -> Tensor:
    """(C, x, y, z) with the means of neighbours put between them: 2n - 1 an axis."""
    for axis in (1, 2, 3):
        n = volume.shape[axis]
        shape = list(volume.shape)
        shape[axis] = 2 * n - 1
        finer = volume.new_empty(shape)
        even, odd = ([slice(None)] * 4 for _ in range(2))
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        finer[tuple(even)] = volume
        torch.add(volume.narrow(axis, 0, n - 1), volume.narrow(axis, 1, n - 1), out=(between := finer[tuple(odd)]))
        between *= 0.5
        volume = finer
    return volume


def _smooth_noise(shape: tuple[int, ...], cell: float, channels: int, generator: torch.Generator) -> Tensor:
    """Random waves of unit size: knots `cell` voxels apart, smoothed between. (channels, *shape)"""
    knots = tuple(max(2, round(n / cell) + 1) for n in shape)
    waves = torch.randn((channels, *(n + 2 for n in knots)), generator=generator)
    waves = functional.avg_pool3d(waves[None], 3, stride=1)[0] * 27**0.5  # unit size again
    return _stretch(waves, shape)


def growth(recipe: Recipe) -> Tensor:
    """Where each template point is taken from, minus the point: (3, x, y, z) mm on the 2 mm grid."""
    known = anatomy()
    shape = known.distances["cortex"].shape
    x = (torch.arange(shape[0]) * 2 + known.origin[0]).view(-1, 1, 1)
    y = (torch.arange(shape[1]) * 2 + known.origin[1]).view(1, -1, 1)
    total = torch.zeros(3, *shape)
    for region, (_, _, fade) in REGIONS.items():
        right, front = recipe.tilts.get(region, (0.0, 0.0))
        amount = recipe.amounts.get(region, 0.0) * (1 + right * torch.tanh(x / 8)) * (1 + front * torch.tanh((y + 18) / 40))
        away = known.distances[region]
        # Along a line to the fluid, d' = -amount·exp(-d/fade) integrates to a closed form.
        rest = torch.exp(away.clamp(min=0) / fade) - amount / fade
        pull = away.clamp(min=0) - fade * torch.log(rest.clamp(min=1e-3))
        pull = torch.minimum(pull, away.clamp(min=0) + 0.8)  # once in the fluid, stay there
        total -= known.directions[region] * (pull * ((away + 2.5) / 1.5).clamp(0, 1))
    return total


def _toned(recipe: Recipe) -> Tensor:
    """The brain in this scanner's brightness, fluid around it: (1, X, Y, Z) on the template's grid."""
    known = anatomy()
    brain = known.t1
    opened = min(1.0, max(0.0, recipe.amounts.get("horns", 0.0) / 1.5))
    if opened:
        brain = torch.lerp(brain, torch.minimum(brain, torch.tensor(FLUID)), known.horn * opened)
    if recipe.tones is None:
        return brain[None]
    brain = (brain + recipe.sharpen * known.detail).clamp(0, 1)
    fluid, grey, white = recipe.tones
    levels = np.linspace(0, 1, 1024)
    straight = np.interp(levels, [0, FLUID, GREY, WHITE, 1], [0.6 * fluid, fluid, grey, white, white * 1.06])
    step = lambda a, b: 1 / (1 + np.exp(-(levels - (a + b) / 2) / (0.09 * (b - a))))  # noqa: E731
    stepped = fluid + (grey - fluid) * step(FLUID, GREY) + (white - grey) * step(GREY, WHITE)
    table = torch.from_numpy(((1 - recipe.edge) * straight + recipe.edge * stepped).astype(np.float32))
    return table[(brain * 1023).to(torch.int64)][None]


def _around(points: Tensor, away: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Skull, scalp, face and neck: mm below the skin, brightness of deep flesh, mm of bone, brightness of bone."""
    s = recipe.shell
    x, y, z = points
    waves = _smooth_noise(tuple(away.shape), 12, 2, generator)
    thick = (s["gap"] + s["bone"] + s["scalp"]) * (1 + 0.5 * s["uneven"] * waves[0].clamp(-1.5, 1.5))
    ball = lambda cx, cy, cz, rx, ry, rz: (  # noqa: E731
        ((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2).sqrt() - 1) * min(rx, ry, rz))
    face = s["face"]
    neck = (((x / s["neck"]) ** 2 + ((y + 30 + 0.25 * (z + 90)) / (s["neck"] + 4)) ** 2).sqrt() - 1) * s["neck"]
    neck = torch.maximum(neck, z + 40)
    jaw = torch.minimum(ball(0, 34 + face, -58, 64, 58, 52), ball(0, 36 + face, -92 + s["jaw"], 54, 58, 42))
    nose = ball(0, 92 + face, -56, 15, 20, 24)
    base = ball(0, -12, -58, s["neck"] + 6, 60, 42)  # where ears and jaw joints are
    below = torch.minimum(torch.minimum(jaw, nose), torch.minimum(neck, base))
    outer = away - thick
    blend = 14.0
    h = (0.5 + 0.5 * (outer - below) / blend).clamp(0, 1)  # a smooth minimum of the two bodies
    depth = -(torch.lerp(outer, below, h) - blend * h * (1 - h))

    grain = 0.7 * _smooth_noise(tuple(away.shape), 4, 1, generator)[0] + 0.5 * waves[1]
    grain = grain + 0.5 * _smooth_noise(tuple(away.shape), 1.5, 1, generator)[0]
    soft = ((grain - 0.3) * 2.0).clamp(0, 1)  # fat between the muscles
    deep = s["muscle"] * (1 + 0.12 * grain) + (s["fat"] - s["muscle"]) * soft
    dark = ((-0.8 + 0.4 * s["air"] - grain) * 4).clamp(0, 1)  # bone, vessels
    deep = torch.lerp(deep, torch.tensor(s["hard"]), dark)
    cavity = (ball(0, 56 + face, -52, 20, 34, 24) < 0) & (grain < s["air"])
    throat = ((x / 9) ** 2 + ((y - 6 - face / 2 + 0.15 * (z + 60)) / 6) ** 2 < 1) & (z < -50)
    deep = torch.where(cavity | throat, 0.02, deep)
    for side in (-1, 1):
        orbit = ball(side * 33, 52 + face / 2, -36, 19, 23, 18)
        deep = torch.where(orbit < 0, 0.9 * s["fat"], deep)
        deep = torch.where(ball(side * 33, 60 + face / 2, -36, 12, 12, 12) < 0, recipe.tones[0] * 0.9, deep)
    spine = (x**2 + (y + 46 + 0.2 * (z + 72)) ** 2).sqrt()
    below_stem = z < -66
    column = ((x / 22) ** 2 + ((y + 36 + 0.25 * (z + 90)) / 20) ** 2 < 1) & below_stem
    deep = torch.where(column, torch.where((z / 9).sin() + grain > -0.6, s["marrow"], s["hard"]), deep)
    deep = torch.where(below_stem & (spine < 10), recipe.tones[0], deep)
    deep = torch.where(below_stem & (spine < 5.5), 0.9, deep)
    # Under the brain the bone is thin and mixed: `floor` is its share there.
    floor = torch.sigmoid(-below / 5)
    bone = s["bone"] * (1 - 0.6 * floor)
    mixed = torch.where(grain > 0.1 - s["air"], s["marrow"], s["hard"])
    return depth, deep, bone, torch.lerp(torch.tensor(s["hard"]), mixed, floor)


def _framed(recipe: Recipe) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray]:
    """The scan's affine in RAS order, its shape, the fine voxels a voxel is the mean of, fine index -> template mm."""
    spacing = np.array(recipe.spacing)
    parts = np.maximum(1, np.rint(spacing / 1.0).astype(int))
    low, high = np.array(recipe.low), np.array(recipe.high)
    shape = np.rint((high - low) / spacing).astype(int) + 1
    turn = _rotation(recipe.oblique)
    middle = np.array(CENTRE) + recipe.offset  # of the brain in the world
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = middle + turn @ low
    fine = np.eye(4)
    fine[:3, :3] = np.diag(1 / parts)
    fine[:3, 3] = (1 / parts - 1) / 2
    pose = np.eye(4)  # world -> template
    pose[:3, :3] = np.diag(1 / np.array(recipe.scale)) @ _rotation(recipe.angles).T
    pose[:3, 3] = np.array(CENTRE) - pose[:3, :3] @ middle
    return affine, shape, tuple(int(p) for p in parts), pose @ affine @ fine


def render(recipe: Recipe) -> nib.Nifti1Image:
    """The head of a recipe, voxel by voxel; the same recipe gives the same bytes."""
    known = anatomy()
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([*recipe.seed, 7]).generate_state(1)[0]))
    affine, shape, parts, to_template = _framed(recipe)
    fine = tuple(int(n * p) for n, p in zip(shape, parts, strict=True))
    nodes = tuple((n + 1) // 2 + 1 for n in fine)  # coarse node i lies on fine voxel 2i
    matrix = torch.from_numpy(to_template).float()
    axes = [torch.arange(n, dtype=torch.float32) * 2 for n in nodes]
    points = sum(
        matrix[:3, i].view(3, 1, 1, 1) * axes[i].view([-1 if j == i else 1 for j in range(3)]).unsqueeze(0)
        for i in range(3)
    ) + matrix[:3, 3].view(3, 1, 1, 1)  # (3, x, y, z) template mm
    mm = [2 * s / p for s, p in zip(recipe.spacing, parts, strict=True)]
    step = sum(mm) / 3
    if recipe.deform:
        for cell, size in ((26, 2.0), (12, 0.9), (6, 0.6)):
            points = points + recipe.deform * size * _smooth_noise(nodes, cell / step, 3, generator)
    away = _sample(known.surface, (points - known.wide_origin.view(3, 1, 1, 1)) / 2)[0]  # (x, y, z)

    # The brain, within its own box of the grid.
    rim = recipe.shell.get("gap", 1.0) + 5
    where = (away < rim).nonzero()
    start, stop = where.min(0).values.tolist(), (where.max(0).values + 2).tolist()
    stop = [min(b, n) for b, n in zip(stop, nodes, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    inner = tuple(slice(2 * a, 2 * b - 1) for a, b in zip(start, stop, strict=True))
    index = points[(slice(None), *box)] - known.origin.view(3, 1, 1, 1)  # template voxels
    index = index + _sample(growth(recipe), index / 2)
    index = _doubled(index)
    brain = _sample(_toned(recipe), index)[0]
    full = tuple(2 * n - 1 for n in nodes)

    if recipe.shell:
        fields = torch.stack([away, *_around(points, away, recipe, generator)])
        image = _covered(recipe, _doubled(fields), brain, inner)
    else:
        image = torch.zeros(full)
        image[inner] = brain
    waves = _smooth_noise(nodes, 90 / step, 1, generator)[0] * recipe.bias
    if recipe.bias:
        waves = waves + 0.1 * recipe.bias * _smooth_noise(nodes, 4 / step, 1, generator)[0]
        waves = waves + recipe.shell.get("coil", 0.0) * ((points[2] + 20) / 150).clamp(-1, 0)
        image *= _doubled(waves.exp()[None])[0]
    keep = _mask(recipe, away, index, brain, full, inner) if recipe.stripped else None
    image, keep = (v if v is None else _averaged(v[tuple(map(slice, fine))], parts) for v in (image, keep))
    image = image.clamp(min=0) ** recipe.gamma if recipe.gamma != 1 else image
    if recipe.noise:
        one, two = (torch.randn(image.shape, generator=generator) for _ in range(2))
        image = torch.hypot(image + recipe.noise * one, recipe.noise * two)
    if keep is not None:
        image *= keep >= 0.5
    return _stored(recipe, image.numpy(), affine)


def _covered(recipe: Recipe, fields: Tensor, brain: Tensor, inner: tuple[slice, ...]) -> Tensor:
    """Brain, fluid, bone, scalp, flesh and air put together; fields (5, X, Y, Z): away and what `_around` says."""
    s = recipe.shell
    away, depth, deep, thick, hard = fields
    fluid = recipe.tones[0]
    past = away - s["gap"]
    image = torch.where(depth < s["scalp"], s["fat"] + (s["muscle"] - s["fat"]) * (depth > 0.65 * s["scalp"]), deep)
    image[depth < 1.6] = s["skin"]
    layer = past / thick
    bone = torch.where((layer - 0.5).abs() < 0.08 * s["stripe"], s["marrow"], hard)
    image = torch.where((layer < 1) & (depth > 0.5), bone, image)
    image *= (depth > 0).float()
    near = past[inner] < 0
    image[inner] = torch.where(near, brain, image[inner])
    image[(past < 0) & (image == 0)] = fluid
    return image


def _mask(recipe: Recipe, away: Tensor, index: Tensor, brain: Tensor, full: tuple[int, ...],
          inner: tuple[slice, ...]) -> Tensor:  # fmt: skip
    """What skull stripping leaves: 1 or 0 on the fine grid."""
    keep = torch.zeros(full)
    if recipe.stripped == "loose":
        return (_doubled(away[None])[0] < 1.5).float()
    inside = _sample(anatomy().inside, index)[0] > 0.5
    if recipe.stripped == "tissue":
        surface = _doubled(away[None])[0][inner]
        level = 0.5 * (recipe.tones[0] + recipe.tones[1]) if recipe.tones else 0.45
        inside &= (brain > level) | (surface < -18)
    keep[inner] = inside.float()
    return keep


def _averaged(volume: Tensor, parts: tuple[int, ...]) -> Tensor:
    return functional.avg_pool3d(volume[None], parts)[0] if max(parts) > 1 else volume


def _stored(recipe: Recipe, values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """In the axis order and the number type of the recipe."""
    values = values * recipe.white
    if recipe.dtype != "float32":
        values = np.clip(np.rint(values), 0, np.iinfo(recipe.dtype).max)
    turn = nib.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(recipe.orientation))
    affine = affine @ inv_ornt_aff(turn, values.shape)
    values = np.ascontiguousarray(apply_orientation(values, turn).astype(recipe.dtype))
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"simulated, ICBM 152 anatomy"
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    if recipe.slope != 1:
        image.header.set_slope_inter(recipe.slope, 0)
    return image


def head(seed: int | tuple[int, ...], severity: float | None = None, label: str | None = None,
         **changes) -> tuple[nib.Nifti1Image, dict[str, object]]:  # fmt: skip
    """One head and its truth. `changes` are fields of Recipe, set after the draw: noise=0, stripped="mask" …"""
    recipe = draw(seed if isinstance(seed, tuple) else (seed,), label, severity)
    recipe = replace(recipe, **changes)
    return render(recipe), recipe.truth()


# --- a cohort on disk --------------------------------------------------------------------------------------


def write(image: nib.Nifti1Image, path: Path, level: int = 1) -> None:
    """Compressed, and there only when complete. The header's scale is kept, the voxels go as they are."""
    slope = image.header["scl_slope"]
    header = image.header.copy()
    if np.isfinite(slope) and slope not in (0, 1):
        header["scl_slope"], header["scl_inter"] = slope, 0
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw = header.binaryblock + b"\0\0\0\0" + np.asarray(image.dataobj).tobytes(order="F")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(igzip.compress(raw, compresslevel=level, mtime=0))
    part.replace(path)


def cohort(subjects: int, seed: int, test: float) -> Iterator[tuple[str, Recipe]]:
    """File name and recipe of each subject; subject k of a seed is the same one in every cohort."""
    codes = sorted(CLASSES, key=CLASSES.get)
    for k in range(subjects):
        label, turn = codes[k % len(codes)], k // len(codes)
        held_out = math.floor((turn + 1) * test) > math.floor(turn * test)  # spread evenly, whatever N
        folder = f"test/{label}" if held_out else label
        yield f"{folder}/sub-s{seed:04d}n{k:05d}_T1w.nii.gz", draw((seed, k), label)


def _make(path: Path, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    write(render(recipe), path)


def make(out: Path, subjects: int, seed: int, test: float, workers: int) -> None:
    """Write the cohort and its truth; files that are there already are kept."""
    plan = list(cohort(subjects, seed, test))
    out.mkdir(parents=True, exist_ok=True)
    part = out / ".truth.csv"
    with part.open("w", newline="") as stream:
        rows = [{"file": name, "subject": Path(name).name.split("_")[0], **recipe.truth()} for name, recipe in plan]
        table = csv.DictWriter(stream, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    part.replace(out / "truth.csv")
    missing = [(out / name, recipe) for name, recipe in plan if not (out / name).exists()]
    bar = tqdm(total=len(plan), initial=len(plan) - len(missing), unit="head", disable=None)
    with bar:
        if workers <= 1:
            for path, recipe in missing:
                _make(path, recipe)
                bar.update()
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            tasks = [pool.submit(_make, path, recipe) for path, recipe in missing]
            try:
                for task in as_completed(tasks):
                    task.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def main(argv: list[str] | None = None) -> None:
    def share(text: str) -> float:
        if not 0 <= float(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to below 1")
        return float(text)

    def count(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a count of 1 or more")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["demo"], help="write the two scans of demodata/ instead")
    parser.add_argument("--subjects", type=count, help="how many heads, the five classes in turn")
    parser.add_argument("--out", type=Path, help="folder for <CLASS>/, test/<CLASS>/ and truth.csv")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default: 0)")
    parser.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--test", type=share, default=0.2, help="share held out under test/ (default: 0.2)")
    given = parser.parse_args(argv)
    if given.what == "demo":
        out = given.out or Path(__file__).parent / "demodata"
        for name, (label, seed) in DEMOS.items():
            image, truth = demo(label, seed)
            write(image, out / f"{name}.nii.gz", level=3)
            print(f"{out / name}.nii.gz: {truth}")
        return
    if given.subjects is None or given.out is None:
        parser.error("--subjects and --out are needed, for example: --subjects 100 --out cohort")
    make(given.out, given.subjects, given.seed, given.test, given.workers)


def demo(label: str, seed: int) -> tuple[nib.Nifti1Image, dict[str, object]]:
    """A whole head at 1 mm, as a scanner would send it, of the middle of its class."""
    return head(seed, severity=CLASSES[label], label=label, stripped="", dtype="uint8", noise=0.012)


if __name__ == "__main__":
    sys.exit(main())
