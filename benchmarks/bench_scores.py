"""One resampling of the scores by classes, beside the same measures by scikit-learn, in turn in one process.

    python -m benchmarks.bench_scores [--cases N] [--rounds N] [--json]

scikit-learn is told to check neither its parameters nor that numbers are finite.
"""

import argparse

import numpy as np
import sklearn
from sklearn import metrics as sk

from benchmarks.side_by_side import finish, in_turn, table
from scoring.scores import Answers, measure
from studies import STUDIES


def library(truth: np.ndarray, p: np.ndarray) -> None:
    classes, chosen = np.arange(p.shape[1]), p.argmax(1)
    is_it, said = truth[:, None] == classes, chosen[:, None] == classes
    sk.accuracy_score(truth, chosen)
    sk.precision_recall_fscore_support(truth, chosen, labels=classes, zero_division=np.nan)
    sk.recall_score(~is_it, ~said, average=None, zero_division=np.nan)
    sk.cohen_kappa_score(truth, chosen, labels=classes, weights="linear")
    sk.brier_score_loss(truth, p, labels=classes)
    for i in classes:
        sk.roc_auc_score(is_it[:, i], p[:, i])
        sk.average_precision_score(is_it[:, i], p[:, i])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=490)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    random, labels = np.random.default_rng(0), STUDIES["alzheimers"].labels
    truth = random.integers(0, len(labels), given.cases)
    p = random.dirichlet(np.ones(len(labels)), given.cases)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        seconds = in_turn(
            {
                "ours, and what scikit-learn lacks": lambda: measure(Answers(truth, p, None, labels)),
                "scikit-learn": lambda: library(truth, p),
            },
            given.rounds,
        )
    ours, theirs = seconds.values()
    rows = [(name, f"{1000 * each:.2f}") for name, each in seconds.items()]
    text = f"{table((f'{given.cases} cases of {len(labels)} classes', 'ms'), rows)}\nratio {theirs / ours:.1f}"
    finish({"seconds": seconds, "ratio": theirs / ours}, text, given.json)


if __name__ == "__main__":
    main()
