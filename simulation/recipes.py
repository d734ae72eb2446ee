"""Recipes drawn from a seed: what a hospital's heads and scanners vary, and the classes by severity."""

import math

import numpy as np

from simulation.anatomy import REGIONS
from simulation.phantom import Recipe, amounts_of
from studies import STUDIES

CLASSES = {label.code: float(label.severity or 0) for label in STUDIES["alzheimers"].labels}
SPREAD = 0.07  # standard deviation of severity within a class

ORIENTATIONS = ("RAS", "LAS", "LPS", "LPI", "LIA", "PSR", "RPS", "ASR", "PIR", "RSA", "LSA", "ASL")


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
    size = np.clip(normal(0.92, 0.045), 0.82, 1.04)
    scale = tuple(float(v) for v in size * np.clip(normal(1, 0.03, 3), 0.93, 1.07))
    # People lie in a scanner with the nose some 10 degrees higher than in the template.
    angles = (between(-8, 26), between(-6, 6), between(-7, 7))

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
        "gap": between(0.5, 2.5), "bone": between(3.5, 7), "scalp": between(2.5, 7), "uneven": between(0.1, 0.45),
        "fat": between(0.7, 1.7), "muscle": between(0.3, 0.7), "lean": between(0.2, 1.1),
        "hard": between(0.03, 0.16), "marrow": between(0.15, 0.8), "skin": between(0.4, 0.9),
        "air": between(-0.7, 0.6), "stripe": between(1, 3), "neck": between(55, 74), "face": between(-12, 10),
        "jaw": between(-15, 15), "coil": between(-0.3, 1.1),
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
        noise=between(0.004, 0.045), shell=shell, dtype=dtype,
        white=float({"int16": np.exp(between(4.8, 7.6)), "uint8": between(110, 200),
                     "float32": np.exp(between(-2, 9))}[dtype]),
        slope=float(rng.choice([1.0, 1.0, 1.0, between(0.05, 4)])) if dtype != "float32" else 1.0,
    )  # fmt: skip


def _any_orientation(rng: np.random.Generator) -> str:
    return "".join(pair[rng.integers(2)] for pair in rng.permutation([*("RL", "AP", "SI")]))
