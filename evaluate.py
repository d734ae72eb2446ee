"""Judges a weights file on cases it never saw: scores with intervals over subjects, calibration, likeness.

The measures are scikit-learn's. The card and the plots that tell of them are in `card.py`.
"""

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from scipy.linalg import pinvh
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.utils.data import DataLoader

import datasets
import likeness
import model
import scans
from cache import write_whole
from card import card, confusion, reliability_plot, roc
from datasets import Case, DataError
from studies import Contract, Label, Study

__all__ = ["Predictions", "card", "fit_calibration", "fit_likeness", "predict", "readable", "scores", "write"]

CORRUPT = 0.01  # the share of unreadable files that is left out with a warning; more is refused
BELIEF = 0.25  # spread of the temperature's logarithm that is expected before any subject was seen
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
class Predictions:
    """What a network says of some cases, case by case."""

    files: list[str]
    subjects: list[str]
    labels: list[str]
    logits: np.ndarray  # (n, K)
    features: np.ndarray  # (n, F)
    sketches: np.ndarray | None = None  # (n, …) where asked for

    def targets(self, study: Study) -> np.ndarray:
        return np.array([study.codes.index(label) for label in self.labels], int)


def predict(weights: model.Weights, cases: Sequence[Case], cache: datasets.Cache | None = None, batch: int = 4,
            workers: int = 0, progress: Callable[[], None] | None = None, sketches: bool = False) -> Predictions:
    """Every case through the network, prepared as the weights file says; `progress` is called as it goes on."""
    forward = model.Forward(weights)
    loader = DataLoader(datasets.Scans(cases, weights.study, cache), batch_size=batch, num_workers=workers)
    logits, features, drawn = [np.empty((0, len(weights.study.labels)))], [], []
    for x, _ in loader:
        some_logits, some_features = forward(x)  # (B, K), (B, F)
        logits.append(some_logits.float().cpu().numpy())
        features.append(some_features.float().cpu().numpy())
        if sketches:
            drawn += [likeness.sketch(one, weights.contract).half().numpy() for one in x]
        if progress:
            progress()
    return Predictions([case.file.as_posix() for case in cases], [case.subject for case in cases],
                       [case.label for case in cases], np.concatenate(logits),
                       np.concatenate(features) if features else np.empty((0, 0)),
                       np.stack(drawn) if drawn else None)


def readable(cases: list[Case], cache: datasets.Cache, workers: int) -> list[Case]:
    """The cases that can be read; a few that cannot are named and left out, many are refused."""
    good, failures = datasets.check_readable(cases, cache, workers)
    listed = "".join(f"\n  {case.file.name}: {reason}" for case, reason in failures[:20])
    if len(failures) > CORRUPT * len(cases):
        raise DataError(f"{len(failures)} of {len(cases)} files cannot be read, more than {CORRUPT:.0%}; mend "
                        f"them or take them out:{listed}")
    if failures:
        print(f"warning: {len(failures)} of {len(cases)} files cannot be read and are left out:{listed}",
              file=sys.stderr)
    return good


# ---- the measures

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
        truth, chosen, labels=classes, zero_division=np.nan)
    specificity = sk.recall_score(~is_true, ~is_chosen, average=None, zero_division=np.nan)
    area = np.full(len(labels), np.nan)
    both = is_true.any(0) & ~is_true.all(0)
    for i in classes[both]:
        area[i] = sk.roc_auc_score(is_true[:, i], p[:, i])
    severity = np.array([label.severity if label.severity is not None else np.nan for label in labels])
    rank = np.argsort(np.argsort(severity))  # of each class in the order of severity
    ordered = not np.isnan(severity).any()
    agree = len(np.union1d(truth, chosen)) > 1  # kappa divides by what chance leaves open
    place = rank if ordered else classes
    found = {
        "accuracy": sk.accuracy_score(truth, chosen),
        "balanced_accuracy": np.mean(recall[present]),
        "roc_auc": np.mean(area[both]) if both.any() else np.nan,
        "kappa": sk.cohen_kappa_score(place[truth], place[chosen], labels=classes,
                                      weights="linear" if ordered else None) if agree else np.nan,
        "brier": sk.brier_score_loss(truth, p, labels=classes),
        "ece": ece(truth, p),
    }
    if answers.unscaled is not None:
        found["ece_unscaled"] = ece(truth, answers.unscaled)
    if ordered and len(labels) > 2:
        found["one_step_accuracy"] = np.mean(np.abs(rank[truth] - rank[chosen]) <= 1)
        expected, known = p @ severity, severity[truth]
        found["severity_correlation"] = (np.corrcoef(expected, known)[0, 1]
                                         if np.ptp(expected) > 0 and np.ptp(known) > 0 else np.nan)
    if answers.held is not None:
        found |= {"coverage": answers.held[np.arange(len(truth)), truth].mean(),
                  "set_size": answers.held.sum(1).mean()}
    for name, values in {"sensitivity": recall, "specificity": specificity, "precision": precision, "f1": f1,
                         "roc_auc": area}.items():
        found |= {f"{name}.{label.code}": value for label, value in zip(labels, values, strict=True)}
    return {name: float(value) for name, value in found.items()}


def reliability(truth: np.ndarray, p: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """How often the chosen class was right, for each tenth of its probability that occurs."""
    top, right = p.max(1), p.argmax(1) == truth
    place = np.minimum((top * bins).astype(int), bins - 1)
    return [{"low": i / bins, "high": (i + 1) / bins, "count": int((place == i).sum()),
             "confidence": float(top[place == i].mean()), "accuracy": float(right[place == i].mean())}
            for i in np.unique(place).tolist()]


def ece(truth: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over the table's cases."""
    off = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in reliability(truth, p))
    return off / len(truth)


def with_intervals(answers: Answers, subjects: Sequence[str], rounds: int, seed: int) -> dict[str, dict[str, Any]]:
    """Every score with its 95 % interval over resampled subjects; None where it is not defined."""
    names, which = np.unique(np.array(subjects), return_inverse=True)
    rows = [np.flatnonzero(which == i) for i in range(len(names))]
    random = np.random.default_rng(seed)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        value = measure(answers)
        drawn = []
        for _ in range(rounds if len(rows) > 1 else 0):
            people = random.integers(len(rows), size=len(rows))
            drawn.append(measure(answers.take(np.concatenate([rows[i] for i in people]))))
    found = {}
    for name, point in value.items():
        spread = np.array([draw[name] for draw in drawn])
        spread = spread[~np.isnan(spread)]
        known = not np.isnan(point) and len(spread) > rounds / 2
        low, high = np.percentile(spread, (2.5, 97.5)).tolist() if known else (None, None)
        found[name] = {"value": None if np.isnan(point) else point, "low": low, "high": high}
    return found


def scores(predictions: Predictions, study: Study, calibration: dict[str, Any] | None, rounds: int = 1000,
           seed: int = 0) -> dict[str, Any]:
    """All scores of the study's own classes, and of its coarser readings, as the weights file keeps them."""
    p = model.probabilities(predictions.logits, (calibration or {}).get("temperature", 1.0))
    truth, held, unscaled = predictions.targets(study), None, None
    if calibration:
        unscaled = model.probabilities(predictions.logits)
        sets = [model.prediction_set(row, study.codes, calibration, LEVEL) for row in p]
        held = np.array([[code in chosen for code in study.codes] for chosen in sets])
    answers = Answers(truth, p, held, study.labels, unscaled)
    readings = {}
    for name, groups in READINGS.get(study.key, {}).items():
        coarse, rows = regroup(answers, groups)
        if len(np.unique(coarse.truth)) > 1:
            subjects = [predictions.subjects[i] for i in rows]
            readings[name] = {"subjects": len(set(subjects)), "cases": len(rows),
                              "metrics": with_intervals(coarse, subjects, rounds, seed)}
    return {"subjects": len(set(predictions.subjects)), "cases": len(truth), "rounds": rounds,
            "metrics": with_intervals(answers, predictions.subjects, rounds, seed), "readings": readings,
            "confusion": sk.confusion_matrix(truth, p.argmax(1), labels=range(len(study.labels))).tolist(),
            "reliability": reliability(truth, p)}


def regroup(answers: Answers, groups: dict[str, tuple[str, ...]]) -> tuple[Answers, np.ndarray]:
    """The answers by coarser classes, and which cases belong to any: probabilities summed, then shared out."""
    codes = [label.code for label in answers.labels]
    member = np.array([[code in group for code in codes] for group in groups.values()])  # (G, K)
    rows = np.flatnonzero(member.any(0)[answers.truth])
    p = answers.p[rows] @ member.T  # (m, G)
    severity = [np.mean([label.severity for label in answers.labels if label.code in group])
                for group in groups.values()]
    labels = tuple(Label(code, code, float(s)) for code, s in zip(groups, severity, strict=True))
    return Answers(member[:, answers.truth[rows]].argmax(0), p / p.sum(1, keepdims=True), None, labels), rows


# ---- what is fitted on validation subjects

def fit_calibration(logits: np.ndarray, targets: np.ndarray, cohort: str, subjects: int) -> dict[str, Any]:
    """The likeliest temperature and the conformal scores 1 − p of the truth, with the cohort's name.

    Each subject counts as one piece of evidence against the belief that a temperature lies near 1: a few who are
    easily told apart by chance do not make the network sure of everybody.
    """
    def loss(log_temperature: float) -> float:
        p = model.probabilities(logits, np.exp(log_temperature))
        return subjects * float(sk.log_loss(targets, p, labels=classes)) + (log_temperature / BELIEF) ** 2 / 2

    classes = range(logits.shape[1])
    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    temperature = float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0
    p = model.probabilities(logits, temperature)
    return {"temperature": temperature, "cohort": cohort, "subjects": subjects, "cases": len(targets),
            "scores": np.sort(1 - p[np.arange(len(targets)), targets]).tolist(),
            "ece": {"before": ece(targets, model.probabilities(logits)), "after": ece(targets, p)},
            "reliability": reliability(targets, p)}


def fit_likeness(train: Predictions, val: Predictions, contract: Contract
                 ) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the training scans look like to the network (feature mean, shrunk precision) and to the eye (mean
    sketch), and how far off 99 of 100 validation scans stay."""
    known = LedoitWolf(store_precision=False).fit(train.features)
    extras = {"features.mean": torch.tensor(known.location_, dtype=torch.float32),
              "features.precision": torch.tensor(precision(train.features, known), dtype=torch.float32),
              "likeness.sketch": torch.from_numpy(train.sketches).float().mean(0)}
    distances = [likeness.distance(row, extras) for row in torch.from_numpy(val.features).float()]
    matches = [likeness.match(row, extras["likeness.sketch"], contract).score
               for row in torch.from_numpy(val.sketches).float()]
    return {"threshold": float(np.quantile(distances, 0.99)), "median": float(np.median(distances)),
            "match": float(np.quantile(matches, 0.01)), "train_cases": len(train.files),
            "val_cases": len(val.files)}, extras


def precision(features: np.ndarray, known: LedoitWolf) -> np.ndarray:
    """The inverse (F, F) of the shrunk covariance; of few cases by Woodbury's formula, in seconds, not minutes.

    That covariance is share · X'X / n + floor · 1, with X the centred features (n, F).
    """
    x, share = features.astype(np.float64) - known.location_, 1 - known.shrinkage_
    floor = known.shrinkage_ * np.square(x).mean()
    if len(x) >= x.shape[1] or not floor > 0:
        return pinvh(known.covariance_)
    inner = floor * len(x) * np.eye(len(x)) + share * x @ x.T  # (n, n)
    return (np.eye(x.shape[1]) - share * x.T @ np.linalg.solve(inner, x)) / floor


def example(weights: model.Weights, file: Path) -> dict[str, Any]:
    """One worked answer, for a test to replay."""
    x = scans.prepare(scans.read(file), weights.contract).tensor
    logits, _ = model.Forward(weights)(x[None])  # (1, K)
    p = model.probabilities(logits, weights.header.get("calibration", {}).get("temperature", 1.0))[0]
    return {"file": file.name, "probabilities": dict(zip(weights.study.codes, p.tolist(), strict=True))}


# ---- what is written

def write(folder: Path, header: dict[str, Any], predictions: Predictions, study: Study, root: Path) -> None:
    """`metrics.json`, predictions as CSV and JSON, three plots and `card.md`, from a header with the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / "card.md", card(header).encode())
    if not predictions.files:
        return
    p = model.probabilities(predictions.logits, header.get("calibration", {}).get("temperature", 1.0))
    put(folder / "metrics.json", json.dumps(header["scores"], indent=1).encode())
    lines, told = io.StringIO(newline=""), []
    table = csv.writer(lines)
    table.writerow(["file", "label", "prediction", *study.codes])
    for file, label, row in zip(predictions.files, predictions.labels, p, strict=True):
        path = Path(file)
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        table.writerow([name, label, study.codes[row.argmax()], *(f"{value:.6f}" for value in row)])
        told.append({"file": name, "label": label, "prediction": study.codes[row.argmax()],
                     "probabilities": dict(zip(study.codes, row.tolist(), strict=True))})
    put(folder / "predictions.csv", lines.getvalue().encode())
    put(folder / "predictions.json", json.dumps(told, indent=1).encode())
    put(folder / "confusion.png", confusion(np.array(header["scores"]["confusion"]), study))
    put(folder / "roc.png", roc(predictions.targets(study), p, study))
    put(folder / "reliability.png", reliability_plot(header["scores"]["reliability"]))


def put(path: Path, content: bytes) -> None:
    write_whole(path, lambda out: out.write(content))


# ---- the command line

def chosen(cases: list[Case], part: str | None, header: dict[str, Any]) -> list[Case]:
    """The cases to score: the test part where there is one; never subjects that were learned from, unasked."""
    if part is None:
        part = "test" if any(case.split == "test" for case in cases) else "all"
    cases = [case for case in cases if part in ("all", case.split)]
    if not cases:
        raise DataError(f"no case in part {part}; give --part all, or a --split file that has it")
    if part in ("train", "val"):
        return cases
    hashes = header.get("training", {}).get("subject_hashes", {})
    seen = set(hashes.get("train", [])) | set(hashes.get("val", []))
    known = sorted({case.subject for case in cases if datasets.subject_hash(case.subject) in seen})
    if known:
        more = f" and {len(known) - 10} more" if len(known) > 10 else ""
        raise DataError(f"{len(known)} of {len({case.subject for case in cases})} subjects were learned from: "
                        f"{', '.join(known[:10])}{more}. Score others, such as the test part of the split.csv "
                        "that train.py wrote (--split FILE), or ask for --part train or val: the card will say so")
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Score a weights file on labelled scans of people it never saw.")
    add = parser.add_argument
    add("weights", type=Path, metavar="WEIGHTS")
    add("--data", type=Path, required=True, metavar="DIR", help="as for train.py")
    add("--split", type=Path, metavar="FILE", help="a CSV that says which case is in which part")
    add("--part", choices=("test", "val", "train", "all"), help="what to score (default test, else all)")
    add("--out", type=Path, metavar="FOLDER", help="where to write (default runs/evaluate-TIME)")
    add("--subject-regex", help="finds the subject in a file's path")
    add("--label-column", help="of participants.tsv")
    add("--cache", type=Path, default=Path(".cache/prepared"), metavar="DIR", help="prepared scans")
    add("--cache-limit", type=float, default=64.0, metavar="GB")
    add("--device", default="auto")
    add("--batch", type=int, default=4)
    add("--workers", type=int, default=2)
    add("--rounds", type=int, default=1000, help="bootstrap rounds of the intervals")
    add("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    try:
        out = evaluate(args)
    except (DataError, scans.ScanError, model.WeightsError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


def evaluate(args: argparse.Namespace) -> Path:
    weights = model.load(args.weights, args.device)
    study, root = weights.study, args.data if args.data.is_dir() else args.data.parent
    cases = (datasets.read_split(args.split, root) if args.split
             else datasets.find(args.data, study, args.subject_regex, args.label_column))
    cases = chosen(cases, args.part, weights.header)
    cache = datasets.Cache(args.cache, weights.contract, int(args.cache_limit * 1e9))
    predictions = predict(weights, readable(cases, cache, args.workers), cache, args.batch, args.workers)
    found = scores(predictions, study, weights.header.get("calibration"), args.rounds, args.seed)
    part = f", part “{args.part}”" if args.part else ""
    seen = " (learned from: this is no score on new people)" if args.part in ("train", "val") else ""
    found = {"cohort": f"“{args.data.resolve().name}”{part}{seen}", "weights": weights.name,
             "sha256": weights.sha256, **found}
    out = args.out or Path(f"runs/evaluate-{time.strftime('%Y%m%d-%H%M%S')}")
    write(out, weights.header | {"scores": found}, predictions, study, root)
    for name, score in found["metrics"].items():
        if score["value"] is not None:
            spread = f"  ({score['low']:.3f} to {score['high']:.3f})" if score["low"] is not None else ""
            print(f"{name:28} {score['value']:.3f}{spread}")
    return out


if __name__ == "__main__":
    sys.exit(main())
