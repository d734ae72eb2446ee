"""Slices of simulated heads with a mass in the brain or none, as T1, T2 and FLAIR show them.

A mass has a solid part, often a core and a rim that takes up contrast agent, often oedema that follows the white
matter, and pushes the tissue aside. Heads without one differ in nothing else: level, sequence, spots of the white
matter and wide ventricles are drawn alike for both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from simulation.anatomy import CENTRE, anatomy, sample, waves
from simulation.phantom import Placed, Recipe, rotation, toned, voxels
from simulation.recipes import draw, triple

Numbers = np.random.Generator
Bounds = tuple[float, float]
SHOWN = 3  # pictures of each head

# Between which bounds a sequence shows what there is, white matter of T1 and fluid of T2 being 1.
SEQUENCES: dict[str, dict[str, Bounds]] = {
    "T1": {
        "fluid": (0.08, 0.28), "grey": (0.55, 0.8), "white": (1.0, 1.0), "spots": (0.7, 0.95),
        "solid": (0.4, 0.75), "core": (0.2, 0.45), "oedema": (0.55, 0.75), "fat": (1.0, 2.0), "muscle": (0.4, 0.7),
    },
    "T1 with contrast agent": {
        "fluid": (0.08, 0.28), "grey": (0.6, 0.88), "white": (1.0, 1.0), "spots": (0.7, 0.95),
        "solid": (0.4, 0.75), "core": (0.15, 0.5), "oedema": (0.55, 0.8), "fat": (1.0, 2.2), "muscle": (0.5, 0.9),
    },
    "T2": {
        "fluid": (0.9, 1.1), "grey": (0.45, 0.65), "white": (0.28, 0.45), "spots": (0.6, 0.9),
        "solid": (0.5, 0.95), "core": (0.5, 1.1), "oedema": (0.75, 1.0), "fat": (0.4, 1.0), "muscle": (0.15, 0.35),
    },
    "FLAIR": {
        "fluid": (0.05, 0.2), "grey": (0.55, 0.7), "white": (0.4, 0.55), "spots": (0.75, 1.05),
        "solid": (0.65, 1.15), "core": (0.1, 0.9), "oedema": (0.85, 1.15), "fat": (0.4, 1.1), "muscle": (0.2, 0.4),
    },
}  # fmt: skip
SHARES = {"T1": 0.15, "T1 with contrast agent": 0.35, "T2": 0.27, "FLAIR": 0.23}
PLANES = {"axial": 0.9, "coronal": 0.06, "sagittal": 0.04}


@dataclass(frozen=True)
class Kind:
    """How masses of one kind differ from each other: bounds in mm or shares."""

    radius: Bounds
    core: Bounds  # share of the radius that is core
    uneven: Bounds  # how far from a ball
    oedema: Bounds  # mm of it around
    takes_up: Bounds  # brightness with contrast agent, white matter being 1
    outside: bool = False  # grows from the covering of the brain
    more: int = 1  # at most so many


KINDS: dict[str, tuple[float, Kind]] = {  # with the share of each
    "ring": (0.4, Kind((9, 26), (0.45, 0.85), (0.1, 0.4), (3, 22), (1.15, 2.0))),
    "solid": (0.15, Kind((7, 24), (0.0, 0.35), (0.05, 0.35), (0, 18), (1.15, 2.0))),
    "covering": (0.15, Kind((8, 25), (0.0, 0.1), (0.0, 0.15), (0, 12), (1.2, 1.9), outside=True)),
    "seeded": (0.15, Kind((4, 12), (0.0, 0.8), (0.0, 0.2), (2, 18), (1.2, 2.0), more=4)),
    "infiltrating": (0.15, Kind((12, 32), (0.0, 0.2), (0.2, 0.5), (0, 3), (0.5, 0.9))),
}


@dataclass(frozen=True)
class Mass:
    """One mass; places and lengths in mm of the template."""

    kind: str
    centre: tuple[float, float, float]
    radius: float
    core: float
    uneven: float
    oedema: float
    takes_up: float
    push: float  # share of its volume that tissue makes room for
    seed: int  # of its outline


def subject(seed: tuple[int, ...], label: str) -> Iterator[tuple[np.ndarray, dict[str, object]]]:
    """Some pictures of one head, each of another level or sequence."""
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 37]))
    severity = float(numbers.uniform(-0.1, 0.9))
    head = draw(seed, severity=severity)
    angles = tuple(numbers.uniform(-1, 1, 3) * (10, 4, 6))
    head = replace(head, stripped="mask" if numbers.random() < 0.1 else "", oblique=(0.0, 0.0, 0.0), angles=angles,
                   offset=(0.0, 0.0, 0.0), bias=0.6 * head.bias)  # fmt: skip
    masses = grown(numbers)  # drawn for every head, so that levels are alike
    spots = float(numbers.uniform(2, 9)) if numbers.random() < 0.35 else 0.0  # mm around the ventricles
    for _ in range(SHOWN):
        sequence = str(numbers.choice(list(SHARES), p=list(SHARES.values())))
        plane = str(numbers.choice(list(PLANES), p=list(PLANES.values())))
        shown = masses[0]
        level = np.add(shown.centre, numbers.uniform(-0.6, 0.6) * shown.radius)
        recipe, tones = seen(numbers, head, sequence, plane, level)
        there = masses if label == "yes" else []
        picture, _ = voxels(recipe, brain_of(recipe, tones, there, spots, sequence.startswith("T1 with")))
        axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
        picture = np.take(picture, picture.shape[axis] // 2, axis)[:, ::-1].T  # up is anterior or superior
        truth: dict[str, object] = {
            "class": label, "sequence": sequence, "plane": plane, "spots": round(spots, 1),
            "severity": round(severity, 3), "kind": shown.kind if there else "", "masses": len(there),
            "radius": round(shown.radius, 1) if there else "", "oedema": round(shown.oedema, 1) if there else "",
            "place": "/".join(f"{mm:.0f}" for mm in shown.centre) if there else "",
            "stripped": "yes" if head.stripped else "no",
        }  # fmt: skip
        yield published(numbers, picture), truth


def grown(numbers: Numbers) -> list[Mass]:
    """One mass of any kind, or some small ones."""
    kinds = list(KINDS)
    name = str(numbers.choice(kinds, p=[KINDS[kind][0] for kind in kinds]))
    kind = KINDS[name][1]
    between = lambda bounds: float(numbers.uniform(*bounds))  # noqa: E731
    made = []
    for _ in range(int(numbers.integers(1, kind.more + 1))):
        radius = between(kind.radius)
        made.append(
            Mass(name, place(numbers, radius, kind.outside), radius, between(kind.core), between(kind.uneven),
                 between(kind.oedema), between(kind.takes_up), between((0.2, 0.7)), int(numbers.integers(2**31)))
        )  # fmt: skip
    return made


def place(numbers: Numbers, radius: float, outside: bool) -> tuple[float, float, float]:
    """Somewhere in the brain, mm of the template: deep enough for its size, or at the surface."""
    known = anatomy()
    for _ in range(1000):
        at = numbers.uniform((-60, -90, -22), (60, 60, 62))
        index = torch.from_numpy((at - known.wide_origin.numpy()) / 2).float().view(3, 1, 1, 1)
        away = float(sample(known.surface, index))
        if (-0.6 * radius < away < -2) if outside else (away < -4 - 0.5 * radius):
            first, second, third = map(float, at)
            return first, second, third
    raise ValueError(f"a mass of {radius:.0f} mm has no place in the brain; give a smaller one")


def seen(
    numbers: Numbers, head: Recipe, sequence: str, plane: str, level: np.ndarray
) -> tuple[Recipe, dict[str, float]]:
    """The recipe of one slice through a place of the template, and how bright the sequence shows what."""
    bounds = SEQUENCES[sequence]
    tones = {part: float(numbers.uniform(*bounds[part])) for part in bounds}
    mm = rotation(head.angles) @ (np.array(head.scale) * (level - CENTRE))  # from the brain's centre
    low, high, spacing = np.array([-98.0, -122.0, -112.0]), np.array([98.0, 122.0, 100.0]), np.ones(3)
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    low[axis] = high[axis] = mm[axis]
    spacing[axis] = numbers.choice([3.0, 4.0, 5.0, 6.0])
    shell = head.shell | {"fat": tones["fat"], "muscle": tones["muscle"],
                          "marrow": float(numbers.uniform(0.1, 0.7)) * tones["fat"], "hard": 0.04}  # fmt: skip
    recipe = replace(
        head, tones=(tones["fluid"], tones["grey"], tones["white"]), shell=shell, spacing=triple(spacing),
        low=triple(low), high=triple(high), gamma=1.0, noise=float(numbers.uniform(0.005, 0.035)),
        edge=float(numbers.uniform(0.4, 0.95)),
    )  # fmt: skip
    return recipe, tones


def brain_of(
    recipe: Recipe, tones: dict[str, float], masses: list[Mass], spots: float, agent: bool
) -> Callable[[Placed], Tensor]:
    """What draws the brain of a slice: tissue pushed aside, spots, then the masses."""

    def paint(at: Placed) -> Tensor:
        known = anatomy()
        seeds = torch.Generator().manual_seed(int(np.random.SeedSequence([*recipe.seed, 41]).generate_state(1)[0]))
        index = at.index
        outlines = [outline(mass, index) for mass in masses]
        for mass, (away, _) in zip(masses, outlines, strict=True):
            index = pushed(mass, index, away)
        brain = sample(toned(recipe), index)[0]
        white = sample(known.masks["white"].float()[None], index)[0]
        if spots:
            brain = spotted(brain, white, index, spots, tones["spots"], seeds)
        if agent:
            brain = vessels(brain, index, seeds)
        for mass, (away, grain) in zip(masses, outlines, strict=True):
            brain = with_mass(brain, white, mass, away, grain, tones, agent)
        return brain

    return paint


def outline(mass: Mass, index: Tensor) -> tuple[Tensor, Tensor]:
    """mm from the mass's surface, negative inside, and a random grain of unit size, at template voxels."""
    known = anatomy()
    centre = (torch.tensor(mass.centre) - known.origin).float()
    # The grain belongs to the mass, not to the slice: any two slices of it agree.
    grain = waves((48, 48, 48), 5, 2, torch.Generator().manual_seed(mass.seed))
    at = (index - centre.view(3, 1, 1, 1)) / max(mass.radius, 6) * 10 + 23.5
    slow, fast = sample(grain, at)
    away = (index - centre.view(3, 1, 1, 1)).square().sum(0).sqrt()
    return away - mass.radius * (1 + 0.7 * mass.uneven * slow.clamp(-1.5, 1.5)), fast


def pushed(mass: Mass, index: Tensor, away: Tensor) -> Tensor:
    """Where the tissue around a mass came from: its volume is kept, so it moves less the farther it lies."""
    centre = (torch.tensor(mass.centre) - anatomy().origin).float().view(3, 1, 1, 1)
    far = (away + mass.radius).clamp(min=mass.radius)
    share = (1 - mass.push * (mass.radius / far) ** 3).clamp(min=0) ** (1 / 3)
    return centre + (index - centre) * share


def spotted(brain: Tensor, white: Tensor, index: Tensor, mm: float, tone: float, seeds: torch.Generator) -> Tensor:
    """Caps and spots of the white matter near the ventricles, as many older people have them."""
    away = sample(anatomy().distances["ventricles"][None], index / 2)[0]
    grain = waves(tuple(brain.shape), 5, 1, seeds)[0]
    near = torch.sigmoid((0.35 * mm + 1.6 * grain - away) / 0.8) + torch.sigmoid((grain - 2.6 + mm / 9) / 0.15)
    return torch.lerp(brain, torch.tensor(tone), (near * white).clamp(0, 0.9))


def vessels(brain: Tensor, index: Tensor, seeds: torch.Generator) -> Tensor:
    """Veins and sinuses that contrast agent fills."""
    x, y, z = index + anatomy().origin.view(3, 1, 1, 1)
    sinus = (x.abs() < 4) & ((y + 0.25 * z < -88) | (z > 72))
    grain = waves(tuple(brain.shape), 4, 1, seeds)[0]
    veins = (grain > 2.3) & (brain < 0.6)
    return torch.where(sinus | veins, torch.tensor(1.5), brain)


def with_mass(
    brain: Tensor, white: Tensor, mass: Mass, away: Tensor, grain: Tensor, tones: dict[str, float], agent: bool
) -> Tensor:
    """A mass drawn into a brain, with its oedema along the white matter."""
    solid, core = tones["solid"], tones["core"]
    if mass.oedema > 1:
        share = torch.sigmoid((mass.oedema * (1 + 0.4 * grain) - away) / 1.5) * (0.15 + 0.85 * white)
        brain = torch.lerp(brain, torch.tensor(tones["oedema"]), share.clamp(0, 0.95))
    if agent:
        solid = mass.takes_up
    inside = torch.sigmoid(-away / (2.5 if mass.kind == "infiltrating" else 0.6))
    deep = torch.sigmoid((-away - (1 - mass.core) * mass.radius * (1 + 0.25 * grain)) / 0.8)
    body = solid * (1 + 0.1 * grain)
    body = torch.lerp(body, torch.tensor(core), deep if mass.core > 0.05 else 0 * deep)
    return torch.lerp(brain, body, inside)


# --- as it is published ------------------------------------------------------------------------------------


def published(numbers: Numbers, picture: np.ndarray) -> np.ndarray:
    """The slice as somebody saved it: windowed, cut, bordered, scaled, now and then with letters."""
    rows, columns = np.nonzero(picture > 0.12 * picture.max())
    margin = lambda: int(numbers.choice([2, 5, 15, 40], p=[0.3, 0.35, 0.25, 0.1]))  # noqa: E731
    top, bottom = max(0, rows.min() - margin()), rows.max() + 1 + margin()
    left, right = max(0, columns.min() - margin()), columns.max() + 1 + margin()
    picture = picture[top:bottom, left:right]
    high = np.percentile(picture, numbers.uniform(98.0, 99.9)) * numbers.uniform(0.85, 1.3)
    values = np.clip(picture / max(high, 1e-6), 0, 1) ** numbers.uniform(0.75, 1.2)
    values = np.rint(values * numbers.uniform(190, 255) + numbers.choice([0, 0, 0, 6, 14]))
    drawn = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    size = int(numbers.choice([180, 220, 256, 300, 400]))
    scale = size / max(drawn.size)
    drawn = drawn.resize(
        (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))), Image.Resampling.BICUBIC
    )
    if numbers.random() < 0.25:  # letters in a corner
        text = "".join(numbers.choice(list("0123456789 LRWmT:./"), int(numbers.integers(1, 9))))
        x, y = numbers.choice([2, drawn.width - 40]), numbers.choice([2, drawn.height - 14])
        ImageDraw.Draw(drawn).text((int(x), int(y)), text, fill=int(numbers.integers(120, 255)))
    if numbers.random() < 0.25:  # a border
        wide = np.pad(np.asarray(drawn), [tuple(numbers.integers(0, 40, 2)), tuple(numbers.integers(0, 40, 2))])
        return wide
    return np.asarray(drawn)
