"""Recipes drawn from a seed: what a hospital's heads and scanners vary, and the classes by severity.

Every part draws from the same generator in the same order: a seed gives the same head in one version.
"""

import math
from dataclasses import replace

import numpy as np

from simulation.anatomy import REGIONS
from simulation.phantom import Recipe, amounts_of
from studies import STUDIES

CLASSES = {label.code: float(label.severity or 0) for label in STUDIES["alzheimers"].labels}
SPREAD = 0.07  # standard deviation of severity within a class
MOST_DEVIATIONS = 2.2  # that a person differs from the mean of others
# Severity is what ventricles and hippocampi lost, each weighing so much; neither tells it without the other.
VENTRICLES_WEIGH, HIPPOCAMPI_WEIGH = 0.6, 0.4
APART = 0.3  # standard deviation, in severity, of the ventricles' loss minus the hippocampi's
HORNS_APART = 0.12  # of the horns' loss minus the ventricles'
HIPPOCAMPAL_LOSS = 1.4  # mm all around at severity 1

ORIENTATIONS = ("RAS", "LAS", "LPS", "LPI", "LIA", "PSR", "RPS", "ASR", "PIR", "RSA", "LSA", "ASL")

# Between which bounds the surroundings of the brain vary, drawn in this order: mm, brightness, or a share.
SHELL: dict[str, tuple[float, float]] = {
    "gap": (0.5, 2.5), "bone": (3.5, 7), "scalp": (2.5, 7), "uneven": (0.1, 0.45), "fat": (0.7, 1.7),
    "muscle": (0.3, 0.7), "lean": (0.2, 1.1), "hard": (0.03, 0.16), "marrow": (0.15, 0.8), "skin": (0.4, 0.9),
    "air": (-0.7, 0.6), "stripe": (1, 3), "neck": (55, 74), "face": (-12, 10), "jaw": (-15, 15),
    "coil": (-0.3, 1.1),
}  # fmt: skip

Numbers = np.random.Generator
Triple = tuple[float, float, float]


def by_severity() -> list[str]:
    """The classes from least to most severe."""
    return sorted(CLASSES, key=CLASSES.__getitem__)


def draw(seed: tuple[int, ...], label: str | None = None, severity: float | None = None) -> Recipe:
    """A head from its seed alone. Without a label or a severity, both are drawn; one gives the other."""
    numbers = np.random.default_rng(np.random.SeedSequence(seed))
    recipe = _losses(_person(numbers, Recipe(seed=seed), label, severity))
    recipe = _pose(numbers, recipe)
    spacing = _spacing(numbers)
    low, high = _field_of_view(numbers, bool(recipe.stripped))
    dtype = str(numbers.choice(["int16", "uint8", "float32"], p=[0.65, 0.25, 0.1]))
    shell = {part: numbers.uniform(*bounds) for part, bounds in SHELL.items()}
    recipe = replace(recipe, spacing=spacing, low=low, high=high, dtype=dtype, shell=shell)
    return _scanner(numbers, recipe)


def _chance(numbers: Numbers, share: float) -> bool:
    return bool(numbers.random() < share)


def _variation(numbers: Numbers) -> float:
    """How far a person is from the mean of others, in deviations."""
    return float(np.clip(numbers.normal(), -MOST_DEVIATIONS, MOST_DEVIATIONS))


def _person(numbers: Numbers, recipe: Recipe, label: str | None, severity: float | None) -> Recipe:
    """Class, severity, and how much each region lost, on which side."""
    codes = by_severity()
    drawn, around = str(numbers.choice(codes)), _variation(numbers) * SPREAD
    if severity is None:
        label = label or drawn
        severity = CLASSES[label] + around
    asked = float(severity)
    label = label or min(codes, key=lambda code: abs(CLASSES[code] - asked))
    jitter = {region: _variation(numbers) * sd for region, (_, sd, _) in REGIONS.items()}
    amounts = {region: mm + jitter[region] for region, mm in amounts_of(asked).items()}
    normal = numbers.normal
    tilts = {
        "ventricles": (normal() * 0.08, normal() * 0.12),
        "horns": (normal() * 0.10, 0.0),
        "cortex": (normal() * 0.08, normal() * 0.2),
    }
    bounded = {region: (_bounded_tilt(right), _bounded_tilt(front)) for region, (right, front) in tilts.items()}
    return replace(recipe, label=label, severity=asked, amounts=amounts, tilts=bounded)


def _losses(recipe: Recipe) -> Recipe:
    """The recipe with ventricles and hippocampi that lost unlike amounts; a generator of its own draws them."""
    numbers = np.random.default_rng(np.random.SeedSequence([*recipe.seed, 29]))
    apart, horns, right = APART * _variation(numbers), HORNS_APART * _variation(numbers), numbers.normal() * 0.1
    ventricles = HIPPOCAMPI_WEIGH * apart
    hippocampi = recipe.severity - VENTRICLES_WEIGH * apart
    more = amounts_of(1.0)
    amounts = recipe.amounts | {
        "ventricles": recipe.amounts["ventricles"] + more["ventricles"] * ventricles,
        "horns": recipe.amounts["horns"] + more["horns"] * (ventricles + horns),
        "hippocampi": HIPPOCAMPAL_LOSS * hippocampi,
    }
    return replace(recipe, amounts=amounts, tilts=recipe.tilts | {"hippocampi": (_bounded_tilt(right), 0.0)})


def _bounded_tilt(tilt: float) -> float:
    return float(np.clip(tilt, -0.3, 0.3))


def _pose(numbers: Numbers, recipe: Recipe) -> Recipe:
    """Skull or none, the head's size and how it lies."""
    stripped = str(numbers.choice(["mask", "loose", "tissue"])) if _chance(numbers, 0.3) else ""
    size = np.clip(numbers.normal(0.92, 0.045), 0.82, 1.04)
    scale = triple(size * np.clip(numbers.normal(1, 0.03, 3), 0.93, 1.07))
    # People lie in a scanner with the nose some 10 degrees higher than in the template.
    angles = (numbers.uniform(-8, 26), numbers.uniform(-6, 6), numbers.uniform(-7, 7))
    return replace(recipe, stripped=stripped, scale=scale, angles=angles)


def _spacing(numbers: Numbers) -> Triple:
    """mm a voxel: one, finer, coarser, or thick slices along one axis."""
    kind = numbers.choice(["one", "fine", "coarse", "slices"], p=[0.35, 0.15, 0.15, 0.35])
    spacing = np.ones(3)
    if kind == "fine":
        spacing[:] = numbers.uniform(0.8, 1.0)
    elif kind == "coarse":
        spacing[:] = numbers.uniform(1.1, 2.0)
    elif kind == "slices":
        spacing[:] = numbers.uniform(0.86, 1.1)
        thick = numbers.choice([1.2, 1.2, 1.25, 1.5, numbers.uniform(1.2, 2), numbers.uniform(2, 3)])
        spacing[numbers.integers(3)] = thick
    return triple(round(float(mm), 3) for mm in spacing)


def _field_of_view(numbers: Numbers, stripped: bool) -> tuple[Triple, Triple]:
    """Its lower and upper corner, mm from the brain's centre."""
    between = numbers.uniform
    if stripped and _chance(numbers, 0.5):  # cropped to the brain
        low = (-between(74, 84), -between(90, 100), -between(66, 90))
        high = (between(74, 84), between(92, 102), between(74, 90))
        return low, high
    left, back = -between(88, 128), -between(112, 132)
    below = -(between(64, 110) if _chance(numbers, 0.45) else between(100, 165))
    right, front, above = between(88, 128), between(112, 140), between(92, 132)
    if _chance(numbers, 0.12):
        front = between(92, 106)
    if _chance(numbers, 0.08):
        back = -between(94, 106)
    if _chance(numbers, 0.05):
        above = between(80, 90)
    return (left, back, below), (right, front, above)


def _scanner(numbers: Numbers, recipe: Recipe) -> Recipe:
    """What the scanner adds: contrast, noise, axis order, the stored values."""
    between = numbers.uniform
    deform = between(0.7, 1.2)
    offset = triple(numbers.normal(0, 8, 3))
    oblique = triple(between(-9, 9, 3)) if _chance(numbers, 0.15) else (0.0, 0.0, 0.0)
    orientation = str(numbers.choice(ORIENTATIONS)) if _chance(numbers, 0.8) else _any_orientation(numbers)
    recipe = replace(
        recipe,
        deform=deform,
        offset=offset,
        oblique=oblique,
        orientation=orientation,
        tones=(between(0.08, 0.36), between(0.5, 0.8), 1.0),
        edge=between(0.1, 0.95),
        sharpen=between(-0.4, 2.2),
        gamma=float(np.exp(between(math.log(0.7), math.log(1.3)))),
        bias=between(0.03, 0.22),
        noise=between(0.004, 0.045),
    )
    white = {"int16": np.exp(between(4.8, 7.6)), "uint8": between(110, 200), "float32": np.exp(between(-2, 9))}
    slope = 1.0
    if recipe.dtype != "float32":
        slope = float(numbers.choice([1.0, 1.0, 1.0, between(0.05, 4)]))
    return replace(recipe, white=float(white[recipe.dtype]), slope=slope)


def _any_orientation(numbers: Numbers) -> str:
    return "".join(pair[numbers.integers(2)] for pair in numbers.permutation([*("RL", "AP", "SI")]))


def triple(values) -> Triple:
    first, second, third = map(float, values)
    return first, second, third
