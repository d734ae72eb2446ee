"""Controls whose measures follow a known law of age and sex, so that every centile has a closed form."""

import json
from pathlib import Path

import numpy as np
import pytest

from diagnosis.anatomy.measures import MEASURES
from learning import norms

SEGMENTER = "5e" * 32
LAWFUL = ("ventricles", "brain_share", "ventricles_share", "hippocampi_share", "inferior_horns_share")
GROWTH, SPREAD, WOMEN = 0.02, 0.25, -0.2  # of the logarithm: a year, one deviation, women against men


def controls(count: int = 120, seed: int = 5) -> tuple[list[float], list[str], list[dict[str, float]]]:
    """Ages, sexes and measures; the ventricles are 20 ml × e^(growth · (age − 65) + women + spread · normal)."""
    rng = np.random.default_rng(seed)
    ages, women = rng.uniform(50, 85, count), rng.random(count) < 0.5
    ages[:2] = 50, 85
    logs = GROWTH * (ages - 65) + WOMEN * women + SPREAD * rng.normal(size=count)
    alike = dict.fromkeys(MEASURES, 1.0)
    rows = [alike | dict.fromkeys(LAWFUL, float(20 * np.exp(each))) for each in logs]
    return ages.tolist(), ["F" if each else "M" for each in women], rows


def ventricles(deviations: float, age: float, woman: bool) -> float:
    """The law's value so many deviations above its median."""
    return float(20 * np.exp(GROWTH * (age - 65) + WOMEN * woman + SPREAD * deviations))


def made(names: tuple[str, ...] = ("ventricles",), segmenter: str = SEGMENTER) -> dict:
    """The record of norms of these measures alone, which takes less long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "MEASURES", {name: MEASURES[name] for name in names})
        record = norms.norms(*controls(), rounds=20)
    return record | {"segmenter": {"name": "segmenter", "sha256": segmenter}}


def written(folder: Path, record: dict) -> Path:
    path = folder / "norms.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path
