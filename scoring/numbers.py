"""Scores of a study of a number: how far its answers lie off, and whether its intervals hold the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import model
from networks.header import Header
from scoring.intervals import draws, interval, rows_of, widened
from scoring.predictions import Predictions

LEVEL = 0.9  # of the prediction intervals that are scored


def measure(truth: np.ndarray, values: np.ndarray, half_width: float | None) -> dict[str, float]:
    """Every score of some answers; NaN where these cases do not define one."""
    off = values - truth
    spread = float(np.var(truth))
    varies = len(truth) > 1 and np.ptp(truth) > 0 and np.ptp(values) > 0
    found = {
        "mae": np.abs(off).mean(),
        "rmse": np.sqrt(np.square(off).mean()),
        "bias": off.mean(),
        "r2": 1 - np.square(off).mean() / spread if spread else np.nan,
        "pearson": np.corrcoef(truth, values)[0, 1] if varies else np.nan,
    }
    if half_width is not None:
        found |= {"coverage": (np.abs(off) <= half_width).mean(), "interval_width": 2 * half_width}
    return {name: float(value) for name, value in found.items()}


def scores(predictions: Predictions, header: Header, rounds: int, seed: int) -> dict[str, Any]:
    """All scores with 95 % intervals over people, as the weights file keeps them."""
    study, target = header.study, header.study.target
    if target is None:
        raise ValueError(f"{study.key} is a study of classes")
    truth, values = predictions.targets(study), target.value(predictions.logits[:, 0])
    width = model.half_width(header.conformal_scores, LEVEL)
    return {
        "subjects": len(set(predictions.subjects)),
        "cases": len(truth),
        "rounds": rounds,
        "metrics": with_intervals(truth, values, width, predictions.subjects, rounds, seed),
    }


def with_intervals(
    truth: np.ndarray, values: np.ndarray, width: float | None, subjects: Sequence[str], rounds: int, seed: int
) -> dict[str, dict[str, Any]]:
    point = measure(truth, values, width)
    drawn = [measure(truth[rows], values[rows], width) for rows in draws(rows_of(subjects), rounds, seed)]
    found = {name: interval(value, [one[name] for one in drawn], rounds) for name, value in point.items()}
    if "coverage" in found:
        found["coverage"] = widened(found["coverage"], len(set(subjects)))
    return found
