"""The ICBM 152 anatomy, the maps drawn on it, and how fluid grows in it; the tools of smooth 3-D fields.

The template is skull-stripped, 1 mm, symmetric in its making; nilearn carries it. Everything here is computed once
a process and then only read. What a scanner does to it stands in `phantom`.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

# mm that fluid grows into tissue at severity 1; the ordinary variation beside it; mm over which that fades.
REGIONS: dict[str, tuple[float, float, float]] = {
    "ventricles": (11.5, 0.4, 16.0),
    "horns": (4.0, 0.4, 7.0),
    "cortex": (1.2, 0.35, 3.5),
}
HIPPOCAMPAL_FADE = 5.0  # mm outside a hippocampus larger than most over which it presses on what lies there
FLUID, GREY, WHITE = 0.27, 0.65, 0.87  # the template's own brightness of the three tissues
CENTRE = (0.0, -18.0, 8.0)  # of the brain, template mm
# The temporal horn, front to back, right side, template mm.
HORN = ((31, -6, -26), (34, -10, -23), (37, -16, -19), (38.5, -22, -17), (39.5, -30, -15), (39, -38, -12),
        (36, -45, -5))  # fmt: skip
# The hippocampus, head to tail, and how far it reaches from that line.
HIPPOCAMPUS = ((22, -8, -21, 6.5), (27, -18, -17, 6.0), (31, -28, -11, 5.5), (25, -39, 0, 3.5))


class AnatomyError(Exception):
    """The template cannot be had; the text says what to install."""


def sample(volume: Tensor, index: Tensor) -> Tensor:
    """volume (C, X, Y, Z) at index (3, x, y, z) in its voxels -> (C, x, y, z); its edge goes on outside."""
    size = torch.tensor(volume.shape[1:], dtype=torch.float32).view(3, 1, 1, 1)
    grid = (index * (2 / (size - 1)) - 1).flip(0).permute(1, 2, 3, 0)[None]  # (1, x, y, z, 3), z first
    return functional.grid_sample(volume[None], grid, padding_mode="border", align_corners=True)[0]


def stretched(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(C, x, y, z) brought to another shape, corner on corner, linear: one small matrix an axis."""
    for axis in (3, 2, 1):
        old, new = volume.shape[axis], shape[axis - 1]
        at = torch.linspace(0, old - 1, new, dtype=torch.float64)
        left = at.floor().clamp(max=old - 2).long()
        rows = torch.zeros(new, old)
        rows[torch.arange(new), left] = (1 - (at - left)).float()
        rows[torch.arange(new), left + 1] = (at - left).float()
        volume = (rows @ volume.movedim(axis, -2)).movedim(-2, axis)
    return volume


def doubled(volume: Tensor) -> Tensor:
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


def waves(shape: tuple[int, ...], cell: float, channels: int, generator: torch.Generator) -> Tensor:
    """Random waves of unit size: knots `cell` voxels apart, smoothed between. (channels, *shape)"""
    knots = tuple(max(2, round(n / cell) + 1) for n in shape)
    heights = torch.randn((channels, *(n + 2 for n in knots)), generator=generator)
    return stretched(functional.avg_pool3d(heights[None], 3, stride=1)[0] * 27**0.5, shape)  # of unit size again


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The template and what follows from it; x, y, z in mm are voxel index + `origin` (times 2 for maps)."""

    origin: Tensor  # (3,) mm of voxel 0 of `t1`
    t1: Tensor  # (X, Y, Z), 0..1, fluid outside the brain
    detail: Tensor  # t1 minus its blur: what sharpening adds
    horn: Tensor  # how much a voxel belongs to the closed temporal horn, 0..1
    hippocampus: Tensor  # mm from the hippocampi's surface, negative inside
    directions: dict[str, Tensor]  # region -> (3, x, y, z) on a 2 mm grid: away from the fluid, times weight
    distances: dict[str, Tensor]  # region -> (x, y, z) on that grid: mm from the fluid, negative inside
    wide_origin: Tensor  # (3,) mm of voxel 0 of `surface`
    surface: Tensor  # (1, x, y, z) on a wide 2 mm grid: mm from the brain's smoothed surface
    inside: Tensor  # (1, X, Y, Z) the brain mask of the template
    masks: dict[str, Tensor]  # structure -> bool (X, Y, Z); one voxel belongs to one structure at most


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
    """The mask with a cube of `mm` to each side of every voxel."""
    return ndimage.maximum_filter(mask.astype(np.uint8), 2 * mm + 1) > 0


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """The ICBM 152 2009a templates that nilearn carries, and the distance maps on them."""
    try:
        from nilearn import datasets  # heavy, and only needed here
    except ModuleNotFoundError as error:
        raise AnatomyError(
            "the ICBM 152 anatomy comes with nilearn, which is not installed; install it with "
            "`pip install nilearn` or all of requirements-dev.txt"
        ) from error

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
    line = np.concatenate([np.linspace(a, b, 12) for a, b in pairwise(HORN)])
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

    hippocampus = _hippocampus(x, y, z) & (grey[box] > 0.35) & ~(lateral | (fluid > 0.5)) & (along >= 0.7)
    masks = _masks(
        brain,
        grey[box],
        white[box],
        fluid,
        (x, y, z),
        {
            "lateral": lateral & ((side < 26) | (y < -30)),
            "third": third,
            "hippocampus": hippocampus,
            "cerebellum": cerebellum,
        },
    )
    distance = _signed(hippocampus, 20)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(distance, 0.7)))
    slope /= np.maximum(np.linalg.norm(slope, axis=0), 0.35)
    directions["hippocampi"] = torch.from_numpy(slope[:, ::2, ::2, ::2].astype(np.float32))
    distances["hippocampi"] = torch.from_numpy(distance[::2, ::2, ::2].copy())

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
        as_tensor(np.exp(-((np.maximum(_signed(horn, 12), 0) / 1.0) ** 2))), as_tensor(distance), directions,
        distances,
        as_tensor(wide_origin), as_tensor(surface)[None], as_tensor(brain)[None],
        {name: torch.from_numpy(mask) for name, mask in masks.items()},
    )  # fmt: skip


def _hippocampus(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What lies within reach of the hippocampus' line, on either side."""
    side, within = np.abs(x), np.zeros(x.shape, bool)
    knots = np.array(HIPPOCAMPUS)
    for share in np.linspace(0, len(knots) - 1, 40):
        first = min(int(share), len(knots) - 2)
        a, b, c, reach = knots[first] + (share - first) * (knots[first + 1] - knots[first])
        within |= (side - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < reach**2
    return within


def _masks(brain: np.ndarray, grey: np.ndarray, white: np.ndarray, fluid: np.ndarray, at: tuple[np.ndarray, ...],
           known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # fmt: skip
    """Each structure's voxels; what comes first keeps them."""
    x, y, z = at
    side = np.abs(x)
    wet = (fluid > 0.5) | (grey + white < 0.4)
    fourth = wet & (side < 12) & (y > -52) & (y < -34) & (z > -44) & (z < -22)
    stem = (side < 19) & (y > -44) & (y < -8) & (z < -9 - 0.35 * (y + 24)) & ~wet
    ball = lambda cx, cy, cz, rx, ry, rz: (  # noqa: E731
        ((side - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1
    )
    deep = (ball(11, -18, 7, 11, 14, 9) | ball(20, -5, 0, 8, 10, 6)) & ~wet  # thalamus, pallidum: pale, yet grey
    found = {
        "hippocampus": known["hippocampus"],
        "lateral": known["lateral"],
        "third": known["third"],
        "fourth": fourth,
        "fluid": wet,
        "cerebellum": known["cerebellum"],
        "stem": stem,
        "white": (white >= grey) & ~deep,
        "cortex": brain,
    }
    taken, masks = ~brain, {}
    for name, mask in found.items():
        masks[name] = mask & ~taken
        taken = taken | mask
    return masks


def growth(amounts: dict[str, float], tilts: dict[str, tuple[float, float]]) -> Tensor:
    """Where each template point is taken from, minus the point: (3, x, y, z) mm on the 2 mm grid.

    `amounts` in mm by region; `tilts` gives a region's share to the right and to the front.
    """
    return _growth(tuple(sorted(amounts.items())), tuple(sorted(tilts.items())))


@lru_cache(maxsize=1)  # the slices of one head ask for the same
def _growth(amounts_of: tuple[tuple[str, float], ...],
            tilts_of: tuple[tuple[str, tuple[float, float]], ...]) -> Tensor:  # fmt: skip
    amounts, tilts = dict(amounts_of), dict(tilts_of)
    known = anatomy()
    shape = known.distances["cortex"].shape
    x = (torch.arange(shape[0]) * 2 + known.origin[0]).view(-1, 1, 1)
    y = (torch.arange(shape[1]) * 2 + known.origin[1]).view(1, -1, 1)
    moves = {}
    for region, (_, _, fade) in REGIONS.items():
        right, front = tilts.get(region, (0.0, 0.0))
        amount = to_the_right(amounts.get(region, 0.0), right, x)
        amount = amount * (1 + front * torch.tanh((y + 18) / 40))
        away = known.distances[region]
        # Along a line to the fluid, d' = -amount·exp(-d/fade) integrates to a closed form.
        rest = torch.exp(away.clamp(min=0) / fade) - amount / fade
        pull = away.clamp(min=0) - fade * torch.log(rest.clamp(min=1e-3))
        pull = torch.minimum(pull, away.clamp(min=0) + 0.8)  # once in the fluid, stay there
        moves[region] = -known.directions[region] * (pull * ((away + 2.5) / 1.5).clamp(0, 1))
    larger = -min(0.0, amounts.get("hippocampi", 0.0))
    if larger:  # what was lost is fluid; see `lost_depth`
        right, _ = tilts.get("hippocampi", (0.0, 0.0))
        near = torch.exp(-known.distances["hippocampi"].clamp(min=0) / HIPPOCAMPAL_FADE)
        outwards = to_the_right(larger, right, x) * near
        moves["horns"] = moves["horns"] - known.directions["hippocampi"] * outwards
    # The ventricles push everything; horns and cortex then move from where that left them.
    first = moves["ventricles"]
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    return first + sample(moves["horns"] + moves["cortex"], index + first / 2)


def lost_depth(amounts: dict[str, float], tilts: dict[str, tuple[float, float]]) -> Tensor | None:
    """From how many mm below their surface the hippocampi are left, fluid above: (X, 1, 1); None for no loss."""
    loss = max(0.0, amounts.get("hippocampi", 0.0))
    if not loss:
        return None
    right, _ = tilts.get("hippocampi", (0.0, 0.0))
    known = anatomy()
    x = (torch.arange(known.t1.shape[0]) + known.origin[0]).view(-1, 1, 1)
    return to_the_right(loss, right, x)


def to_the_right(amount: float, share: float, x: Tensor) -> Tensor:
    """So much of an amount at x mm, of which the right side has `share` more than the mean and the left less."""
    return amount * (1 + share * torch.tanh(x / 8))
