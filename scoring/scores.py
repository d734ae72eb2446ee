"""Scores of a network on cases it never saw, with intervals over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import model
from networks.header import Header
from scoring import numbers
from scoring.intervals import draws, interval, rows_of, share, widened
from scoring.predictions import Predictions
from scoring.ranking import ranking
from studies import Label

LEVEL = 0.9  # coverage of the prediction sets that is scored
BINS = 10  # of the reliability table
# Coarser ways to read a study's answer: each reading's classes and the study's codes that each one gathers.
READINGS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "alzheimers": {
        "three classes": {"CN": ("CN",), "MCI": ("MCI", "EMCI", "LMCI"), "AD": ("AD",)},
        "two classes": {"CN": ("CN",), "AD": ("AD",)},
    }
}


@dataclass(frozen=True, eq=False)
class Answers:
    """What is scored: the true classes, the probabilities and which classes each prediction set holds."""

    truth: np.ndarray  # (n,)
    p: np.ndarray  # (n, K)
    held: np.ndarray | None  # (n, K) bool
    labels: tuple[Label, ...]
    unscaled: np.ndarray | None = None  # (n, K), the probabilities before temperature scaling

    def take(self, rows: np.ndarray) -> "Answers":
        held, unscaled = (None if part is None else part[rows] for part in (self.held, self.unscaled))
        return replace(self, truth=self.truth[rows], p=self.p[rows], held=held, unscaled=unscaled)


def measure(answers: Answers) -> dict[str, float]:
    """Every score of some answers; NaN where these cases do not define one."""
    truth, p, labels = answers.truth, answers.p, answers.labels
    classes, chosen, n = np.arange(len(labels)), p.argmax(1), len(truth)
    counts = confusion(truth, chosen, len(labels))
    true, said, right = counts.sum(1), counts.sum(0), counts.diagonal()  # (K,) each
    denied = n - true - said + right  # rightly said not to be it
    recall = _shares(right, true)
    area, average_precision = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    both = (true > 0) & (true < n)
    for i in classes[both]:
        ranked = ranking(truth == i, p[:, i])
        area[i], average_precision[i] = ranked.area, ranked.average_precision
    severity = np.array([label.severity if label.severity is not None else np.nan for label in labels])
    rank = np.argsort(np.argsort(severity))  # of each class in the order of severity
    ordered = not np.isnan(severity).any()
    steps = np.abs(np.subtract.outer(rank, rank)) if ordered else 1 - np.eye(len(labels), dtype=int)  # (K, K)
    by_chance = (np.outer(true, said) * steps).sum() / n
    found = {
        "accuracy": right.sum() / n,
        "balanced_accuracy": np.mean(recall[true > 0]),
        "roc_auc": np.mean(area[both]) if both.any() else np.nan,
        "pr_auc": np.mean(average_precision[both]) if both.any() else np.nan,
        "kappa": 1 - (counts * steps).sum() / by_chance if by_chance else np.nan,
        "brier": np.square(p - np.eye(len(labels))[truth]).sum() / n / (2 if len(labels) == 2 else 1),
        "ece": ece(truth, p),
    }
    if answers.unscaled is not None:
        found["ece_unscaled"] = ece(truth, answers.unscaled)
    if ordered and len(labels) > 2:
        found["one_step_accuracy"] = counts[steps <= 1].sum() / n
        expected, known = p @ severity, severity[truth]
        found["severity_correlation"] = (
            np.corrcoef(expected, known)[0, 1] if np.ptp(expected) > 0 and np.ptp(known) > 0 else np.nan
        )
    if answers.held is not None:
        found |= {
            "coverage": answers.held[np.arange(len(truth)), truth].mean(),
            "set_size": answers.held.sum(1).mean(),
        }
    for name, values in {
        "sensitivity": recall,
        "specificity": _shares(denied, n - true),
        "precision": _shares(right, said),
        "npv": _shares(denied, n - said),
        "f1": _shares(2 * right, true + said),
        "roc_auc": area,
        "pr_auc": average_precision,
    }.items():
        found |= {f"{name}.{label.code}": value for label, value in zip(labels, values, strict=True)}
    return {name: float(value) for name, value in found.items()}


def confusion(truth: np.ndarray, chosen: np.ndarray, classes: int) -> np.ndarray:
    """How many cases of each class, by row, were said to be of each, by column."""
    return np.bincount(truth * classes + chosen, minlength=classes**2).reshape(classes, classes)


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def reliability(truth: np.ndarray, p: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """How often the chosen class was right, for each tenth of its probability that occurs."""
    top, right = p.max(1), p.argmax(1) == truth
    place = np.minimum((top * bins).astype(int), bins - 1)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": int((place == i).sum()),
            "confidence": float(top[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
        }
        for i in np.unique(place).tolist()
    ]


def ece(truth: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over the table's cases."""
    off = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in reliability(truth, p))
    return off / len(truth)


def with_intervals(answers: Answers, subjects: Sequence[str], rounds: int, seed: int) -> dict[str, dict[str, Any]]:
    """Every score with its 95 % interval over resampled subjects; None where it is not defined."""
    value = measure(answers)
    drawn = [measure(answers.take(rows)) for rows in draws(rows_of(subjects), rounds, seed)]
    found = {name: interval(point, [one[name] for one in drawn], rounds) for name, point in value.items()}
    for name, counted in denominators(answers).items():
        if name in found:
            found[name] = widened(found[name], len({subjects[i] for i in np.flatnonzero(counted).tolist()}))
    return found


def denominators(answers: Answers) -> dict[str, np.ndarray]:
    """The cases among which each score that is a plain share is a share."""
    everyone = np.ones(len(answers.truth), bool)
    found = dict.fromkeys(("accuracy", "one_step_accuracy", "coverage"), everyone)
    chosen = answers.p.argmax(1)
    for i, label in enumerate(answers.labels):
        found |= {
            f"sensitivity.{label.code}": answers.truth == i,
            f"specificity.{label.code}": answers.truth != i,
            f"precision.{label.code}": chosen == i,
            f"npv.{label.code}": chosen != i,
        }
    return found


def operating_points(
    answers: Answers, subjects: Sequence[str], header: Header, rounds: int, seed: int
) -> list[dict[str, Any]]:
    """What the thresholds that were set on validation subjects give here, class by class."""
    found = []
    for code, thresholds in header.calibration.get("operating_points", {}).items():
        place = next((i for i, label in enumerate(answers.labels) if label.code == code), None)
        if place is None:  # a file may say anything
            continue
        said, is_it = answers.p[:, place], answers.truth == place
        for wanted, threshold in thresholds.items():
            above = said >= threshold
            found.append(
                {
                    "code": code,
                    "wanted": float(wanted),
                    "threshold": threshold,
                    "sensitivity": share(above[is_it], of(subjects, is_it), rounds, seed),
                    "specificity": share(~above[~is_it], of(subjects, ~is_it), rounds, seed),
                }
            )
    return found


def of(subjects: Sequence[str], rows: np.ndarray) -> list[str]:
    return [subjects[i] for i in np.flatnonzero(rows).tolist()]


def scores(predictions: Predictions, header: Header, rounds: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All scores of the study's own classes, and of its coarser readings, as the weights file keeps them."""
    study = header.study
    if study.target:
        return numbers.scores(predictions, header, rounds, seed)
    p = model.probabilities(predictions.logits, header.temperature)
    truth, held, unscaled = predictions.targets(study), None, None
    if header.calibration:
        unscaled = model.probabilities(predictions.logits)
        sets = [model.prediction_set(row, study.codes, header.conformal_scores, LEVEL) for row in p]
        held = np.array([[code in chosen for code in study.codes] for chosen in sets])
    answers = Answers(truth, p, held, study.labels, unscaled)
    readings = {}
    for name, groups in readings_of(study.key, study.codes).items():
        coarse, rows = regroup(answers, groups)
        if len(np.unique(coarse.truth)) > 1:
            subjects = [predictions.subjects[i] for i in rows]
            readings[name] = {
                "subjects": len(set(subjects)),
                "cases": len(rows),
                "metrics": with_intervals(coarse, subjects, rounds, seed),
            }
    return {
        "subjects": len(set(predictions.subjects)),
        "cases": len(truth),
        "rounds": rounds,
        "metrics": with_intervals(answers, predictions.subjects, rounds, seed),
        "readings": readings,
        "operating_points": operating_points(answers, predictions.subjects, header, rounds, seed),
        "confusion": confusion(truth, p.argmax(1), len(study.labels)).tolist(),
        "reliability": reliability(truth, p),
    }


def readings_of(key: str, codes: Sequence[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The coarser readings of a study that has all the classes which they gather."""
    found = READINGS.get(key, {})
    needed = {code for groups in found.values() for gathered in groups.values() for code in gathered}
    return found if needed <= set(codes) else {}


def regroup(answers: Answers, groups: dict[str, tuple[str, ...]]) -> tuple[Answers, np.ndarray]:
    """The answers by coarser classes, and which cases belong to any: probabilities summed, then shared out."""
    codes = [label.code for label in answers.labels]
    member = np.array([[code in group for code in codes] for group in groups.values()])  # (G, K)
    rows = np.flatnonzero(np.any(member, 0)[answers.truth])
    p = answers.p[rows] @ member.T  # (m, G)
    severity = [
        np.mean([label.severity for label in answers.labels if label.code in group]) for group in groups.values()
    ]
    labels = tuple(Label(code, code, float(s)) for code, s in zip(groups, severity, strict=True))
    return Answers(member[:, answers.truth[rows]].argmax(0), p / p.sum(1, keepdims=True), None, labels), rows
