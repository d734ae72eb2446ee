"""Scores of a network on cases it never saw, with intervals over subjects; the measures are scikit-learn's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sklearn
from sklearn import metrics as sk

import model
from networks.header import Header
from scoring import numbers
from scoring.intervals import draws, interval, rows_of, share, widened
from scoring.predictions import Predictions
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
    classes, chosen = np.arange(len(labels)), p.argmax(1)
    is_true, is_chosen = truth[:, None] == classes, chosen[:, None] == classes  # (n, K)
    present = np.unique(truth)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, chosen, labels=classes, zero_division=np.nan
    )
    specificity = sk.recall_score(~is_true, ~is_chosen, average=None, zero_division=np.nan)
    denied = (~is_chosen).sum(0)
    npv = np.where(denied > 0, (~is_true & ~is_chosen).sum(0) / np.maximum(denied, 1), np.nan)
    area, average_precision = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    both = is_true.any(0) & ~is_true.all(0)
    for i in classes[both]:
        area[i] = sk.roc_auc_score(is_true[:, i], p[:, i])
        average_precision[i] = sk.average_precision_score(is_true[:, i], p[:, i])
    severity = np.array([label.severity if label.severity is not None else np.nan for label in labels])
    rank = np.argsort(np.argsort(severity))  # of each class in the order of severity
    ordered = not np.isnan(severity).any()
    agree = len(np.union1d(truth, chosen)) > 1  # kappa divides by what chance leaves open
    place = rank if ordered else classes
    found = {
        "accuracy": sk.accuracy_score(truth, chosen),
        "balanced_accuracy": np.mean(recall[present]),
        "roc_auc": np.mean(area[both]) if both.any() else np.nan,
        "pr_auc": np.mean(average_precision[both]) if both.any() else np.nan,
        "kappa": sk.cohen_kappa_score(
            place[truth], place[chosen], labels=classes, weights="linear" if ordered else None
        )
        if agree
        else np.nan,
        "brier": sk.brier_score_loss(truth, p, labels=classes),
        "ece": ece(truth, p),
    }
    if answers.unscaled is not None:
        found["ece_unscaled"] = ece(truth, answers.unscaled)
    if ordered and len(labels) > 2:
        found["one_step_accuracy"] = np.mean(np.abs(rank[truth] - rank[chosen]) <= 1)
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
        "specificity": specificity,
        "precision": precision,
        "npv": npv,
        "f1": f1,
        "roc_auc": area,
        "pr_auc": average_precision,
    }.items():
        found |= {f"{name}.{label.code}": value for label, value in zip(labels, values, strict=True)}
    return {name: float(value) for name, value in found.items()}


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
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
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
        "confusion": sk.confusion_matrix(truth, p.argmax(1), labels=range(len(study.labels))).tolist(),
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
