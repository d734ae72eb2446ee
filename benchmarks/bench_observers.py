"""What could be known of a simulated cohort's classes: from its true losses, from ventricles alone, from measures.

    python -m benchmarks.bench_observers COHORT [--heads N] [--json]

Severity is regressed, in ten folds, on what `truth.csv` says each head lost (ventricles and hippocampi, then the
ventricles alone) and on what the segmenter measures of it; the class is the nearest one. No network is asked. It
bounds what a network can score that sees no more than that.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import model
from benchmarks.side_by_side import finish, table
from diagnosis.anatomy.segment import load, segment
from diagnosis.diagnoser import measured
from scans.prepare import prepare
from scans.processes import read
from scans.scan import ScanError
from simulation.recipes import CLASSES
from studies import HEAD

MEASURES = (
    "ventricles", "lateral_ventricles", "inferior_horns", "hippocampi", "brain", "intracranial",
    "ventricles_share", "inferior_horns_share", "hippocampi_share",
)  # fmt: skip
FOLDS, RIDGE = 10, 1e-3


def predicted(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Each value from a ridge regression on the heads of the other folds."""
    scaled = (features - features.mean(0)) / features.std(0)
    terms, fold = np.column_stack([np.ones(len(scaled)), scaled]), np.arange(len(scaled)) % FOLDS
    found = np.empty(len(wanted))
    for number in range(FOLDS):
        known = terms[fold != number]
        square = known.T @ known + RIDGE * len(known) * np.eye(terms.shape[1])
        found[fold == number] = terms[fold == number] @ np.linalg.solve(square, known.T @ wanted[fold != number])
    return found


def heads(cohort: Path, count: int) -> tuple[list[dict[str, str]], np.ndarray]:
    """The truth of so many heads, picked by chance, and what is measured of each."""
    segmenter = load(model.WEIGHTS / model.SEGMENTER)
    with (cohort / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = sorted(csv.DictReader(file), key=lambda row: row["subject"])
    picked = np.random.default_rng(0).permutation(len(truth))[:count]  # in any order, the classes come in turn
    told, rows = [], []
    for number in tqdm(picked, unit="head", disable=None):
        row, values = truth[number], {}
        try:
            values, _ = measured(segment(segmenter, prepare(read(cohort / row["file"]), HEAD)))
        except (ScanError, ValueError) as error:
            print(f"{row['file']}: left out, {error}", file=sys.stderr)
        if values:
            told.append(row)
            rows.append([values[name].value for name in MEASURES])
    return told, np.array(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cohort", type=Path, help="as simulate.py makes it")
    parser.add_argument("--heads", type=int, default=300, help="how many of it (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    truth, measures = heads(options.cohort, options.heads)
    column = lambda name: np.array([float(row[name]) for row in truth])  # noqa: E731
    severity, order = column("severity"), np.array(sorted(CLASSES.values()))
    classes = np.array([CLASSES[row["class"]] for row in truth])
    seen = np.column_stack([measures, np.log(np.maximum(measures, 1e-3))])
    losses = {name: column(name) for name in ("ventricles", "hippocampi")}
    observers = {
        "both true losses": np.column_stack(list(losses.values())),
        "the ventricles' true loss": losses["ventricles"][:, None],
        "what is measured": seen,
    }
    scores = {}
    for name, features in observers.items():
        guess = predicted(features, severity)
        nearest = order[np.abs(guess[:, None] - order).argmin(1)]
        scores[name] = {
            "accuracy": float((nearest == classes).mean()),
            "correlation": float(np.corrcoef(guess, severity)[0, 1]),
        }
    told = {name: float(np.corrcoef(predicted(seen, loss), loss)[0, 1]) for name, loss in losses.items()}
    rows = [[name, f"{row['accuracy']:.2f}", f"{row['correlation']:.3f}"] for name, row in scores.items()]
    text = table(["severity from", "accuracy", "correlation"], rows) + f"\n\n{len(truth)} heads; measures tell "
    text += ", ".join(f"the loss of {name} with a correlation of {value:.2f}" for name, value in told.items())
    finish({"heads": len(truth), "observers": scores, "measures_tell": told}, text, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
