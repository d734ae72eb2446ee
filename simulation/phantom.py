"""One simulated head: its recipe, and the voxels that a scanner would make of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from simulation.anatomy import (
    CENTRE,
    FLUID,
    GREY,
    REGIONS,
    WHITE,
    anatomy,
    doubled,
    growth,
    lost_depth,
    sample,
    waves,
)


@dataclass(frozen=True)
class Recipe:
    """Everything about one head. The defaults are the plain head: the template as it is, on its own 1 mm grid."""

    seed: tuple[int, ...] = (0,)
    label: str = "CN"
    severity: float = 0.0
    amounts: dict[str, float] = field(default_factory=dict)  # mm by region, mean of both sides
    tilts: dict[str, tuple[float, float]] = field(default_factory=dict)  # share to the right, to the front
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
    shell: dict[str, float] = field(default_factory=dict)  # of skull, scalp, face and neck, for whole heads
    dtype: str = "float32"
    white: float = 1.0  # stored value of white matter
    slope: float = 1.0

    @property
    def fluid(self) -> float:
        """How bright fluid is."""
        return FLUID if self.tones is None else self.tones[0]

    def truth(self) -> dict[str, object]:
        """A row of truth.csv, without the file's name."""
        row: dict[str, object] = {"class": self.label, "severity": round(self.severity, 4)}
        row |= {region: round(self.amounts.get(region, 0.0), 3) for region in (*REGIONS, "hippocampi")}
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


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """About x, then y, then z."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def toned(recipe: Recipe) -> Tensor:
    """The brain in this scanner's brightness, fluid around it: (1, X, Y, Z) on the template's grid."""
    known = anatomy()
    brain = known.t1
    opened = min(1.0, max(0.0, recipe.amounts.get("horns", 0.0) / 1.5))
    if opened:
        brain = torch.lerp(brain, torch.minimum(brain, torch.tensor(FLUID)), known.horn * opened)
    depth = lost_depth(recipe.amounts, recipe.tilts)
    if depth is not None:
        lost = (0.5 - known.hippocampus).clamp(0, 1) * (known.hippocampus + depth + 0.5).clamp(0, 1)
        brain = torch.lerp(brain, torch.minimum(brain, torch.tensor(FLUID)), lost)
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
    slow = waves(tuple(away.shape), 12, 2, generator)
    thick = (s["gap"] + s["bone"] + s["scalp"]) * (1 + 0.5 * s["uneven"] * slow[0].clamp(-1.5, 1.5))
    ball = lambda cx, cy, cz, rx, ry, rz: (  # noqa: E731
        ((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2).sqrt() - 1) * min(rx, ry, rz)
    )
    face = s["face"]
    neck = (((x / s["neck"]) ** 2 + ((y + 30 + 0.25 * (z + 90)) / (s["neck"] + 4)) ** 2).sqrt() - 1) * s["neck"]
    neck = torch.maximum(neck, z + 40)
    jaw = torch.minimum(ball(0, 34 + face, -58, 64, 58, 52), ball(0, 36 + face, -92 + s["jaw"], 54, 58, 42))
    nose = ball(0, 92 + face, -56, 15, 20, 24)
    base = ball(0, -12, -58, s["neck"] + 6, 60, 42)  # where ears and jaw joints are
    brow = ball(0, 40 + face, -32, 64, 52, 36)
    below = torch.minimum(torch.minimum(jaw, nose), torch.minimum(torch.minimum(neck, base), brow))
    outer = away - thick
    blend = 14.0
    h = (0.5 + 0.5 * (outer - below) / blend).clamp(0, 1)  # a smooth minimum of the two bodies
    depth = -(torch.lerp(outer, below, h) - blend * h * (1 - h))

    grain = 0.7 * waves(tuple(away.shape), 4, 1, generator)[0] + 0.5 * slow[1]
    grain = grain + 0.5 * waves(tuple(away.shape), 1.5, 1, generator)[0]
    soft = ((grain - s["lean"]) * 2.0).clamp(0, 1)  # fat between the muscles
    deep = s["muscle"] * (1 + 0.12 * grain) + (s["fat"] - s["muscle"]) * soft
    dark = ((-0.8 + 0.4 * s["air"] - grain) * 4).clamp(0, 1)  # bone, vessels
    deep = torch.lerp(deep, torch.tensor(s["hard"]), dark)
    cavity = (ball(0, 56 + face, -52, 20, 34, 24) < 0) & (grain < s["air"])
    throat = ((x / 9) ** 2 + ((y - 6 - face / 2 + 0.15 * (z + 60)) / 6) ** 2 < 1) & (z < -50)
    deep = torch.where(cavity | throat, 0.02, deep)
    for side in (-1, 1):
        orbit = ball(side * 33, 52 + face / 2, -36, 19, 23, 18)
        deep = torch.where(orbit < 0, 0.9 * s["fat"], deep)
        deep = torch.where(ball(side * 33, 60 + face / 2, -36, 12, 12, 12) < 0, recipe.fluid * 0.9, deep)
    spine = (x**2 + (y + 46 + 0.2 * (z + 72)) ** 2).sqrt()
    below_stem = z < -66
    column = ((x / 22) ** 2 + ((y + 36 + 0.25 * (z + 90)) / 20) ** 2 < 1) & below_stem
    deep = torch.where(column, torch.where((z / 9).sin() + grain > -0.6, s["marrow"], s["hard"]), deep)
    deep = torch.where(below_stem & (spine < 10), recipe.fluid, deep)
    deep = torch.where(below_stem & (spine < 5.5), 0.9, deep)
    # Under the brain the bone is thin and mixed: `floor` is its share there.
    floor = torch.sigmoid(-below / 5)
    bone = s["bone"] * (1 - 0.6 * floor)
    mixed = torch.where(grain > 0.1 - s["air"], s["marrow"], s["hard"])
    return depth, deep, bone, torch.lerp(torch.tensor(s["hard"]), mixed, floor)


def _framed(recipe: Recipe) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray]:
    """The scan's affine in RAS order, its shape, fine voxels along one voxel, fine index -> template mm."""
    spacing = np.array(recipe.spacing)
    parts = np.maximum(1, np.rint(spacing / 1.0).astype(int))
    low, high = np.array(recipe.low), np.array(recipe.high)
    shape = np.rint((high - low) / spacing).astype(int) + 1
    turn = rotation(recipe.oblique)
    middle = np.array(CENTRE) + recipe.offset  # of the brain in the world
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = middle + turn @ low
    fine = np.eye(4)
    fine[:3, :3] = np.diag(1 / parts)
    fine[:3, 3] = (1 / parts - 1) / 2
    pose = np.eye(4)  # world -> template
    pose[:3, :3] = np.diag(1 / np.array(recipe.scale)) @ rotation(recipe.angles).T
    pose[:3, 3] = np.array(CENTRE) - pose[:3, :3] @ middle
    return affine, shape, tuple(int(p) for p in parts), pose @ affine @ fine


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the head of a recipe lies on its scan's grid; nodes are every second fine voxel."""

    affine: np.ndarray  # of the scan, in RAS order
    parts: tuple[int, ...]  # fine voxels along one voxel
    fine: tuple[int, ...]  # shape in fine voxels
    nodes: tuple[int, ...]
    step: float  # mm between nodes
    points: Tensor  # (3, x, y, z) template mm of the nodes
    away: Tensor  # (x, y, z) mm from the brain's smoothed surface, at the nodes
    inner: tuple[slice, ...]  # the brain's box in the fine grid of 2 · nodes - 1
    index: Tensor  # (3, X, Y, Z) template voxels that the fine voxels of that box are taken from

    @property
    def full(self) -> tuple[int, ...]:
        """The shape of the nodes doubled: the fine grid and at most a voxel more."""
        return tuple(2 * n - 1 for n in self.nodes)


Paint = Callable[[Placed], Tensor]  # a head's place → the brain's brightness at `index`


def _generator(recipe: Recipe) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([*recipe.seed, 7]).generate_state(1)[0]))


def _placed(recipe: Recipe, generator: torch.Generator) -> Placed:
    known = anatomy()
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
            points = points + recipe.deform * size * waves(nodes, cell / step, 3, generator)
    away = sample(known.surface, (points - known.wide_origin.view(3, 1, 1, 1)) / 2)[0]  # (x, y, z)

    # The brain, within its own box of the grid.
    shell = {} if recipe.stripped else recipe.shell
    rim = shell.get("gap", 1.0) + 5
    where = (away < rim).nonzero()
    start, stop = where.min(0).values.tolist(), (where.max(0).values + 2).tolist()
    stop = [min(b, n) for b, n in zip(stop, nodes, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    inner = tuple(slice(2 * a, 2 * b - 1) for a, b in zip(start, stop, strict=True))
    index = points[(slice(None), *box)] - known.origin.view(3, 1, 1, 1)  # template voxels
    index = index + sample(growth(recipe.amounts, recipe.tilts), index / 2)
    return Placed(affine, parts, fine, nodes, step, points, away, inner, doubled(index))


def render(recipe: Recipe) -> nib.Nifti1Image:
    """The head of a recipe, voxel by voxel; the same recipe gives the same bytes."""
    return _stored(recipe, *voxels(recipe))


def voxels(recipe: Recipe, paint: Paint | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The head in RAS order, white matter about 1, and its affine; `paint` draws another brain into it."""
    generator = _generator(recipe)
    at = _placed(recipe, generator)
    brain = paint(at) if paint else sample(toned(recipe), at.index)[0]
    image = _surrounded(recipe, at, brain, generator)
    image = _through_coil(recipe, at, image, generator)
    keep = _mask(recipe, at, brain) if recipe.stripped else None
    image = _averaged(image, at)
    image = image.clamp(min=0) ** recipe.gamma if recipe.gamma != 1 else image
    if recipe.noise:
        one, two = (torch.randn(image.shape, generator=generator) for _ in range(2))
        image = torch.hypot(image + recipe.noise * one, recipe.noise * two)
    if keep is not None:
        image *= _averaged(keep, at) >= 0.5
    return image.numpy(), at.affine


def _surrounded(recipe: Recipe, at: Placed, brain: Tensor, generator: torch.Generator) -> Tensor:
    """The brain in its skull, or alone, on the fine grid."""
    if recipe.stripped or not recipe.shell:
        image = torch.zeros(at.full)
        image[at.inner] = brain
        return image
    fields = torch.stack([at.away, *_around(at.points, at.away, recipe, generator)])
    return _covered(recipe, doubled(fields), brain, at.inner)


def _through_coil(recipe: Recipe, at: Placed, image: Tensor, generator: torch.Generator) -> Tensor:
    """The coil's uneven gain: slow over the head, a little of it fast, less towards the neck."""
    gain = waves(at.nodes, 90 / at.step, 1, generator)[0] * recipe.bias
    if not recipe.bias:
        return image
    gain = gain + 0.1 * recipe.bias * waves(at.nodes, 4 / at.step, 1, generator)[0]
    coil = 0.0 if recipe.stripped else recipe.shell.get("coil", 0.0)
    gain = gain + coil * ((at.points[2] + 20) / 150).clamp(-1, 0)
    return image * doubled(gain.exp()[None])[0]


STRUCTURES = ("outside", "fluid", "cortex", "white", "lateral", "inferior_horn", "third", "fourth", "hippocampus",
              "cerebellum", "stem")  # fmt: skip


def structures(recipe: Recipe) -> np.ndarray:
    """What each voxel of `render(recipe)` shows, as places in STRUCTURES, in the same axis order."""
    known = anatomy()
    at = _placed(recipe, _generator(recipe))
    template = torch.zeros(known.t1.shape, dtype=torch.uint8)
    for name, mask in known.masks.items():
        template[mask] = STRUCTURES.index(name)
    nearest = [axis.round().long().clamp(0, n - 1) for axis, n in zip(at.index, template.shape, strict=True)]
    brain = template[nearest[0], nearest[1], nearest[2]]
    opened = min(1.0, max(0.0, recipe.amounts.get("horns", 0.0) / 1.5))
    if opened:
        horn = sample(known.horn[None], at.index)[0] * opened > 0.5
        brain[horn & (brain != STRUCTURES.index("hippocampus"))] = STRUCTURES.index("inferior_horn")
    depth = lost_depth(recipe.amounts, recipe.tilts)
    if depth is not None:
        deep = sample(torch.stack([known.hippocampus, depth.expand_as(known.hippocampus)]), at.index)
        lost = (brain == STRUCTURES.index("hippocampus")) & (deep[0] > -deep[1])
        brain[lost] = STRUCTURES.index("fluid")
    gap = 1.0 if recipe.stripped else recipe.shell.get("gap", 1.0)
    near = doubled(at.away[None])[0][at.inner] < gap
    brain[near & (brain == 0)] = STRUCTURES.index("fluid")
    whole = torch.zeros(at.full, dtype=torch.uint8)
    whole[at.inner] = brain * near
    middle = tuple(slice(p // 2, n, p) for p, n in zip(at.parts, at.fine, strict=True))
    turn = nib.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(recipe.orientation))
    return np.ascontiguousarray(apply_orientation(whole[middle].numpy(), turn))


def _covered(recipe: Recipe, fields: Tensor, brain: Tensor, inner: tuple[slice, ...]) -> Tensor:
    """Brain, fluid, bone, scalp, flesh and air put together; fields (5, X, Y, Z): away and what `_around` says."""
    s = recipe.shell
    away, depth, deep, thick, hard = fields
    fluid = recipe.fluid
    past = away - s["gap"]
    scalp = s["fat"] + (s["muscle"] - s["fat"]) * (depth > 0.65 * s["scalp"])
    image = torch.where(depth < s["scalp"], scalp, deep)
    image[depth < 1.6] = s["skin"]
    layer = past / thick
    bone = torch.where((layer - 0.5).abs() < 0.08 * s["stripe"], s["marrow"], hard)
    image = torch.where((layer < 1) & (depth > 0.5), bone, image)
    image *= (depth > 0).float()
    near = past[inner] < 0
    image[inner] = torch.where(near, brain, image[inner])
    image[(past < 0) & (image == 0)] = fluid
    return image


def _mask(recipe: Recipe, at: Placed, brain: Tensor) -> Tensor:
    """What skull stripping leaves: 1 or 0 on the fine grid."""
    surface = doubled(at.away[None])[0]
    if recipe.stripped == "loose":
        return (surface < 1.5).float()
    inside = sample(anatomy().inside, at.index)[0] > 0.5
    if recipe.stripped == "tissue":
        level = 0.5 * (recipe.tones[0] + recipe.tones[1]) if recipe.tones else 0.45
        inside &= (brain > level) | (surface[at.inner] < -18)
    keep = torch.zeros(at.full)
    keep[at.inner] = inside.float()
    return keep


def _averaged(volume: Tensor, at: Placed) -> Tensor:
    """From the fine grid to the scan's voxels."""
    volume = volume[tuple(map(slice, at.fine))]
    return functional.avg_pool3d(volume[None], at.parts)[0] if max(at.parts) > 1 else volume


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
