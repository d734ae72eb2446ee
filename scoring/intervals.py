"""95 % intervals over people: by resampling them, and by Wilson's score where resampling has nothing to vary."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Z = 1.959964  # of the normal distribution, for 95 %


def wilson(share: float, people: int) -> tuple[float, float]:
    """Wilson's score interval of a share among so many people: of width above none at 0 and 1 too."""
    middle, spread = (
        share + Z**2 / (2 * people),
        Z * np.sqrt(share * (1 - share) / people + Z**2 / (4 * people**2)),
    )
    low, high = ((middle + sign * spread) / (1 + Z**2 / people) for sign in (-1, 1))
    return (0.0 if share == 0 else float(low)), (1.0 if share == 1 else float(high))


def rows_of(subjects: Sequence[str]) -> list[np.ndarray]:
    """The places of each person's cases."""
    names, which = np.unique(np.array(subjects), return_inverse=True)
    return [np.flatnonzero(which == i) for i in range(len(names))]


def draws(rows: Sequence[np.ndarray], rounds: int, seed: int) -> list[np.ndarray]:
    """The cases of as many people, drawn again with replacement, for each round; none of a single person."""
    random = np.random.default_rng(seed)
    return [
        np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        for _ in range(rounds if len(rows) > 1 else 0)
    ]


def interval(point: float, drawn: Sequence[float], rounds: int) -> dict[str, Any]:
    """A score with the middle 95 % of its draws; None where it, or most of them, are not defined."""
    spread = np.array(drawn, float)
    spread = spread[~np.isnan(spread)]
    known = not np.isnan(point) and len(spread) > rounds / 2
    low, high = np.percentile(spread, (2.5, 97.5)).tolist() if known else (None, None)
    return {"value": None if np.isnan(point) else float(point), "low": low, "high": high}


def widened(score: dict[str, Any], people: int) -> dict[str, Any]:
    """A share with Wilson's interval where its own is 0 % or 100 % all through."""
    if score["value"] not in (0.0, 1.0) or score["low"] != score["high"] or not people:
        return score
    low, high = wilson(score["value"], people)
    return score | {"low": low, "high": high}


def share(hits: np.ndarray, subjects: Sequence[str], rounds: int, seed: int) -> dict[str, Any]:
    """The share of cases that hit, with its interval over people."""
    if not len(hits):
        return {"value": None, "low": None, "high": None}
    rows = rows_of(subjects)
    right = np.array([hits[own].sum() for own in rows], float)
    all_of = np.array([len(own) for own in rows], float)
    random = np.random.default_rng(seed)
    times = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=rounds)  # (rounds, people)
    drawn = (times @ right) / (times @ all_of) if len(rows) > 1 else np.array([])
    return widened(interval(float(hits.mean()), drawn.tolist(), rounds), len(rows))
