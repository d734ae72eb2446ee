"""How well a probability ranks cases: the ROC curve, the area under it, average precision.

Our own because scikit-learn, which checks what it is given, takes eighteen times as long, and a thousand
resamplings ask for them (`benchmarks/bench_scores.py`).
"""

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """The cases at and above each threshold, from the highest on; of equal probabilities none comes first."""

    found: np.ndarray  # (t,) how many of those that are it
    wrong: np.ndarray  # (t,) how many of the others

    @property
    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """1 − specificity and sensitivity (t + 1,), from no case to all."""
        return _from_zero(self.wrong) / self.wrong[-1], _from_zero(self.found) / self.found[-1]

    @property
    def area(self) -> float:
        return float(np.trapezoid(*reversed(self.roc)))

    @property
    def average_precision(self) -> float:
        gained = np.diff(_from_zero(self.found))
        return float((gained * self.found / (self.found + self.wrong)).sum() / self.found[-1])


def ranking(is_it: np.ndarray, said: np.ndarray) -> Ranking:
    """Of cases (n,) of which some are it and others are not."""
    order = np.argsort(-said)
    last = np.append(np.diff(said[order]) != 0, True)  # of those with the same probability
    found = np.cumsum(is_it[order])[last]
    return Ranking(found, np.flatnonzero(last) + 1 - found)


def _from_zero(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts])
