"""Two networks on the same people: which is better, and whether that may be chance.

DeLong's test for the areas below the ROC, by Obuchowski's form of it where people have several scans; McNemar's
exact test of who is right about whom; every score's difference with its interval, by resampling people in pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

import model
from data.tables import DataError
from networks.header import Header
from scoring import numbers, scores
from scoring.intervals import draws, interval, rows_of
from scoring.predictions import Predictions

COMPARED = ("accuracy", "balanced_accuracy", "roc_auc", "kappa", "brier", "ece", "severity_correlation")


def areas(truth: np.ndarray, one: np.ndarray, other: np.ndarray, subjects: Sequence[str]) -> dict[str, Any]:
    """The areas below two curves of the same cases (truth is bool), their difference and its two-sided p."""
    rows = rows_of(subjects)
    parts = [components(truth, said) for said in (one, other)]
    theta = np.array([part[0] for part in parts])
    positives, negatives = int(truth.sum()), int((~truth).sum())
    variance = np.zeros((2, 2))
    above, below = ([own for own in rows if mask[own].any()] for mask in (truth, ~truth))
    for a in range(2):
        for b in range(2):
            v10, v01 = (parts[a][1], parts[b][1]), (parts[a][2], parts[b][2])
            s10 = spread(above, truth, v10, (theta[a], theta[b])) / positives
            s01 = spread(below, ~truth, v01, (theta[a], theta[b])) / negatives
            variance[a, b] = s10 / positives + s01 / negatives
            crossed = [
                (parts[x][1][own][truth[own]] - theta[x]).sum() * (parts[y][2][own][~truth[own]] - theta[y]).sum()
                for x, y in ((a, b), (b, a))
                for own in rows
            ]
            variance[a, b] += len(rows) / (len(rows) - 1) * sum(crossed) / (positives * negatives)
    difference = float(theta[0] - theta[1])
    error = float(np.sqrt(max(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1], 0.0)))
    known = error > 0
    return {
        "one": float(theta[0]),
        "other": float(theta[1]),
        "difference": difference,
        "error": error,
        "p": float(2 * norm.sf(abs(difference) / error)) if known else 1.0 if not difference else None,
    }


def components(truth: np.ndarray, said: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The area; for each positive case the share of negatives below it, for each negative of positives above."""
    over = (said[truth][:, None] > said[~truth]) + 0.5 * (said[truth][:, None] == said[~truth])  # (M, N)
    v10, v01 = np.zeros(len(truth)), np.zeros(len(truth))
    v10[truth], v01[~truth] = over.mean(1), over.mean(0)
    return float(over.mean()), v10, v01


def spread(rows: list[np.ndarray], mask: np.ndarray, values: tuple[np.ndarray, ...], theta: tuple) -> float:
    """Covariance of people's sums of components, for people with any case of the mask."""
    if len(rows) < 2:
        return 0.0
    sums = [[(value[own][mask[own]] - at).sum() for own in rows] for value, at in zip(values, theta, strict=True)]
    return len(rows) / (len(rows) - 1) * float(np.dot(sums[0], sums[1]))


def mcnemar(right: np.ndarray, other: np.ndarray, subjects: Sequence[str]) -> dict[str, Any]:
    """About how many people only the one is right, and only the other, and the exact two-sided p of that."""
    net = [int(right[own].sum()) - int(other[own].sum()) for own in rows_of(subjects)]
    first, second = sum(n > 0 for n in net), sum(n < 0 for n in net)
    p = binomtest(first, first + second).pvalue if first + second else 1.0
    return {"only_one": first, "only_other": second, "p": float(p)}


def compare(
    one: tuple[Predictions, Header], other: tuple[Predictions, Header], rounds: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All of that for two networks' answers to the same cases in the same order."""
    (first, header), (second, other_header) = one, other
    study, against = header.study, other_header.study
    if study.codes != against.codes or bool(study.target) != bool(against.target):
        raise DataError(
            f"--against: {header.title} tells {', '.join(study.codes)} and {other_header.title} "
            f"{', '.join(against.codes)}; compare networks of the same classes"
        )
    subjects, truth = first.subjects, first.targets(study)
    found: dict[str, Any] = {"subjects": len(set(subjects)), "cases": len(truth)}
    drawn = draws(rows_of(subjects), rounds, seed)
    if study.target and against.target:
        values = (study.target.value(first.logits[:, 0]), against.target.value(second.logits[:, 0]))
        measured = [
            [numbers.measure(truth[rows], said[rows], None) for rows in [np.arange(len(truth)), *drawn]]
            for said in values
        ]
    else:
        p = [
            model.probabilities(part.logits, its.temperature)
            for part, its in ((first, header), (second, other_header))
        ]
        answers = [scores.Answers(truth, one_p, None, study.labels) for one_p in p]
        measured = [[scores.measure(a), *(scores.measure(a.take(rows)) for rows in drawn)] for a in answers]
        found["delong"] = {
            code: areas(truth == i, p[0][:, i], p[1][:, i], subjects)
            for i, code in enumerate(study.codes)
            if 0 < (truth == i).sum() < len(truth)
        }
        found["mcnemar"] = mcnemar(p[0].argmax(1) == truth, p[1].argmax(1) == truth, subjects)
    names = [name for name in (numbers_names() if study.target else COMPARED) if name in measured[0][0]]
    found["differences"] = {
        name: {
            "one": none_for_nan(measured[0][0][name]),
            "other": none_for_nan(measured[1][0][name]),
            **interval(
                measured[0][0][name] - measured[1][0][name],
                [a[name] - b[name] for a, b in zip(measured[0][1:], measured[1][1:], strict=True)],
                rounds,
            ),
        }
        for name in names
    }
    return found


def numbers_names() -> tuple[str, ...]:
    return ("mae", "rmse", "bias", "r2", "pearson")


def none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


def lines(found: dict[str, Any]) -> list[str]:
    """What was found, for a terminal."""
    said = [f"{found['subjects']} subjects, {found['cases']} scans; one, other, one − other (95 % interval)"]
    for name, score in found["differences"].items():
        if score["value"] is not None:
            span = f" ({score['low']:+.3f} to {score['high']:+.3f})" if score["low"] is not None else ""
            said.append(f"{name:24} {score['one']:.3f}  {score['other']:.3f}  {score['value']:+.3f}{span}")
    for code, test in found.get("delong", {}).items():
        p = "not defined" if test["p"] is None else f"{test['p']:.3g}"
        said.append(f"AUC of {code:17} {test['one']:.3f}  {test['other']:.3f}  p {p} (DeLong)")
    if "mcnemar" in found:
        test = found["mcnemar"]
        said.append(
            f"only one right about {test['only_one']} people, only the other about {test['only_other']}: "
            f"p {test['p']:.3g} (McNemar)"
        )
    return said
