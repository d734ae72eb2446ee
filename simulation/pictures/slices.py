"""Axial slices of simulated heads with their severity: skull-stripped, upright, one voxel a millimetre.

As in public sets of such slices, the heads lie alike, some levels from the basal ganglia to the roof of the
ventricles are shown of each, and nothing tells one level from another.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from simulation.phantom import voxels
from simulation.recipes import draw, triple
from studies import STUDIES

SEVERITIES = {label.code: float(label.severity or 0) for label in STUDIES["dementia-slices"].labels}
SPREAD = 0.09  # standard deviation of severity within a class
LEVELS = (-14, 26)  # mm above the brain's centre
SHOWN = 8  # levels of each head
ROWS, COLUMNS = 208, 176


def subject(seed: tuple[int, ...], label: str) -> Iterator[tuple[np.ndarray, dict[str, object]]]:
    """Slices (208, 176) of one head, from below upwards."""
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 31]))
    severity = SEVERITIES[label] + float(np.clip(numbers.normal(), -2, 2)) * SPREAD
    recipe = replace(
        draw(seed, severity=severity),
        stripped=str(numbers.choice(["mask", "mask", "loose"])),
        scale=triple(numbers.normal(1.0, 0.02, 3)),
        angles=triple(numbers.uniform(-1, 1, 3) * (8, 2, 2)),
        offset=(0.0, 0.0, 0.0),
        oblique=(0.0, 0.0, 0.0),
        spacing=(1.0, 1.0, 1.0),
        low=(-COLUMNS / 2, -ROWS / 2, float(LEVELS[0])),
        high=(COLUMNS / 2 - 1, ROWS / 2 - 1, float(LEVELS[1])),
        tones=(numbers.uniform(0.1, 0.28), numbers.uniform(0.52, 0.74), 1.0),
        bias=numbers.uniform(0.02, 0.1),
        noise=numbers.uniform(0.01, 0.05),
    )
    head, _ = voxels(recipe)
    white = np.percentile(head[head > 0], 90)
    bright = numbers.uniform(170, 245) / white
    chosen = numbers.choice(head.shape[2], SHOWN, replace=False)
    for level in np.sort(chosen):
        picture = head[:, ::-1, level].T * bright
        truth = {"class": label, "severity": round(severity, 4), "level": int(level) + LEVELS[0]}
        yield np.clip(np.rint(picture), 0, 255).astype(np.uint8), truth
