"""What is fitted on validation subjects: temperature, conformal scores, what the training scans look like."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import pinvh
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

import model
from data.cache import ToInput
from diagnosis import likeness
from networks.forward import Forward
from scans.prepare import prepare
from scans.processes import read
from scoring.predictions import Predictions
from scoring.scores import ece, reliability
from studies import Contract

WANTED = (0.8, 0.9, 0.95)  # sensitivities of the operating points
LEAST_SHRINKAGE = (
    0.1  # towards one variance in all directions: where training scans hardly vary, others may a little
)
BELIEF = 0.25  # spread of the temperature's logarithm that is expected before any subject was seen


def fit_calibration(
    logits: np.ndarray, targets: np.ndarray, cohort: str, subjects: int, codes: Sequence[str] = ()
) -> dict[str, Any]:
    """The likeliest temperature and the conformal scores 1 − p of the truth, with the cohort's name.

    Each subject counts as one piece of evidence against the belief that a temperature lies near 1: a few who are
    easily told apart by chance do not make the network sure of everybody.
    """

    def loss(log_temperature: float) -> float:
        unlikely = F.cross_entropy(known / math.exp(log_temperature), truth)
        return subjects * float(unlikely) + (log_temperature / BELIEF) ** 2 / 2

    known, truth = torch.as_tensor(logits).double(), torch.as_tensor(targets).long()
    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    temperature = float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0
    p = model.probabilities(logits, temperature)
    return {
        "temperature": temperature,
        "cohort": cohort,
        "subjects": subjects,
        "cases": len(targets),
        "scores": np.sort(1 - p[np.arange(len(targets)), targets]).tolist(),
        "operating_points": thresholds(targets, p, codes) if codes else {},
        "ece": {"before": ece(targets, model.probabilities(logits)), "after": ece(targets, p)},
        "reliability": reliability(targets, p),
    }


def fit_residuals(values: np.ndarray, truth: np.ndarray, cohort: str, subjects: int) -> dict[str, Any]:
    """How far answers lie off on validation subjects, sorted: what intervals of a number promise by."""
    off = np.sort(np.abs(values - truth))
    return {"cohort": cohort, "subjects": subjects, "cases": len(off), "scores": off.tolist()}


def thresholds(targets: np.ndarray, p: np.ndarray, codes: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each class the highest probability that still finds the wanted shares of its validation cases."""
    found = {}
    for place, code in enumerate(codes):
        said = np.sort(p[targets == place, place])[::-1]
        if len(said):
            found[code] = {f"{share:g}": float(said[math.ceil(share * len(said) - 1e-9) - 1]) for share in WANTED}
    return found


def fit_likeness(
    train: Predictions, val: Predictions, contract: Contract
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the training scans look like to the network (feature mean, shrunk precision) and to the eye (mean
    sketch), and how far off 99 of 100 validation scans stay."""
    from sklearn.covariance import LedoitWolf  # here: a second to import, and wanted once, when all is trained

    known = LedoitWolf(store_precision=False).fit(train.features)
    shrunk = precision(train.features - known.location_, max(known.shrinkage_, LEAST_SHRINKAGE))
    extras = {
        "features.mean": torch.tensor(known.location_, dtype=torch.float32),
        "features.precision": torch.tensor(shrunk, dtype=torch.float32),
        "likeness.sketch": torch.from_numpy(train.sketches).float().mean(0),
    }
    distances = [likeness.distance(row, extras) for row in torch.from_numpy(val.features).float()]
    matches = [
        likeness.match(row, extras["likeness.sketch"], contract).score
        for row in torch.from_numpy(val.sketches).float()
    ]
    return {
        "threshold": float(np.quantile(distances, 0.99)),
        "median": float(np.median(distances)),
        "match": float(np.quantile(matches, 0.01)),
        "train_cases": len(train.files),
        "val_cases": len(val.files),
    }, extras


def precision(centred: np.ndarray, shrinkage: float) -> np.ndarray:
    """The inverse (F, F) of the shrunk covariance; of few cases by Woodbury's formula, in seconds, not minutes.

    That covariance is share · X'X / n + floor · 1, with X the centred features (n, F).
    """
    x, share = centred.astype(np.float64), 1 - shrinkage
    floor = shrinkage * np.square(x).mean()
    if len(x) >= x.shape[1] or not floor > 0:
        return pinvh(share * x.T @ x / len(x) + floor * np.eye(x.shape[1]))
    inner = floor * len(x) * np.eye(len(x)) + share * x @ x.T  # (n, n)
    return (np.eye(x.shape[1]) - share * x.T @ np.linalg.solve(inner, x)) / floor


def example(weights: model.Weights, file: Path, to_input: ToInput | None = None) -> dict[str, Any]:
    """One worked answer, for a test to replay."""
    scan = read(file)
    x = to_input(scan) if to_input else prepare(scan, weights.contract).tensor
    logits, _ = Forward(weights.network)(x[None])  # (1, K)
    if weights.study.target:
        return {"file": file.name, "value": float(weights.study.target.value(float(logits[0, 0])))}
    p = model.probabilities(logits, weights.header.temperature)[0]
    return {"file": file.name, "probabilities": dict(zip(weights.study.codes, p.tolist(), strict=True))}
