"""Centile curves from a group of controls: how each measure runs with age, apart by sex, and how sure that is.

Restricted regression quantiles (He, The American Statistician 51, 1997), by scikit-learn's linear programme, which
is here anyway: the median is a quantile regression on age, age² and sex, the spread a quantile regression of
what is left, and the curves are the median plus so many spreads. So they cannot cross, and the outer ones rest on
everybody. Volumes are fitted as logarithms. The intervals come from fits to people drawn again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import QuantileRegressor

from diagnosis.anatomy.measures import MEASURES
from diagnosis.anatomy.norms import EVERYBODY, FORMAT, LEAST, LEVEL, NormsError

CENTILES = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0)
BEHIND = 2.0  # people who must lie beyond a centile for its curve to be drawn
LEAST_OF_SEX = 15  # people for curves of their own
ROUNDS = 100  # of the bootstrap
AGES = 13  # at which the curves are written down
NARROWEST = 0.2  # of the median spread: no age has less
ROOM = 1e-9  # spread of a measure that is the same in everybody
FIGURES = 5  # that are kept of a number


@dataclass(frozen=True, eq=False)
class Fit:
    """Median and spread as sums over the terms of `Terms`, and the centiles in spreads from the median."""

    median: np.ndarray
    spread: np.ndarray
    least: float  # spread
    steps: np.ndarray  # one a centile, rising

    def curves(self, terms: np.ndarray) -> np.ndarray:
        """(people or ages, terms) → (centiles, people or ages)."""
        spread = np.maximum(terms @ self.spread, self.least)
        return terms @ self.median + self.steps[:, None] * spread


@dataclass(frozen=True)
class Terms:
    """What median and spread depend on, scaled so that the numbers stay small."""

    middle: float  # years
    reach: float  # years from the middle to either end

    def of(self, ages: np.ndarray, women: np.ndarray | None) -> np.ndarray:
        """(n,) → (n, terms): 1, age, age², and ±½ for the sex where it is known."""
        age = (ages - self.middle) / self.reach
        columns = [np.ones_like(age), age, age**2]
        return np.stack(columns if women is None else [*columns, women - 0.5], 1)


def drawn(people: int) -> np.ndarray:
    """The centiles that so many people can tell apart."""
    return np.array([each for each in CENTILES if people * min(each, 100 - each) / 100 >= BEHIND])


def fit(terms: np.ndarray, values: np.ndarray, centiles: np.ndarray) -> Fit:
    """The curves of one measure: terms (n, terms), values (n,)."""
    median = _middle(terms, values)
    rest = values - terms @ median
    straight = np.delete(
        terms, 2, axis=1
    )  # the spread runs straight with age: its own bend would follow single people
    spread = np.insert(_middle(straight, np.abs(rest)), 2, 0.0)
    least = max(NARROWEST * float(np.median(np.abs(rest))), ROOM)
    widths = np.maximum(terms @ spread, least)
    # What is left of a fit is smaller than what it will be in others, the more so the fewer people there are. With
    # this factor the 5th and 95th centiles of 40 simulated controls hold nine of ten new people, as they should.
    fitted = terms.shape[1] + straight.shape[1]
    steps = _weighted_centiles(rest / widths, widths, centiles) * (len(values) / (len(values) - fitted))
    return Fit(median, spread, least, steps)


def _middle(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weights of the terms whose sum has half of the values on either side."""
    size = max(float(np.abs(values).max()), ROOM)  # the programme's tolerances are for numbers about 1
    found = QuantileRegressor(quantile=0.5, alpha=0, fit_intercept=False, solver="highs").fit(terms, values / size)
    return found.coef_ * size


def _weighted_centiles(values: np.ndarray, weights: np.ndarray, centiles: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    weights = weights[order]
    at = (np.cumsum(weights) - weights / 2) / weights.sum()
    return np.interp(centiles / 100, at, values[order])


def norms(
    ages: Sequence[float],
    sexes: Sequence[str | None],
    measures: Sequence[Mapping[str, float]],
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """The part of a file of norms that people make: ages, centiles and curves with their intervals."""
    years = np.array(ages, dtype=float)
    counts = {sex: sum(each == sex for each in sexes) for sex in ("F", "M")}
    check(years, sexes, counts)
    apart = min(counts.values()) >= LEAST_OF_SEX and None not in sexes
    women = np.array([sex == "F" for sex in sexes], dtype=float)
    centiles = drawn(len(years))
    terms = Terms((years.min() + years.max()) / 2, (years.max() - years.min()) / 2)
    grid = np.linspace(years.min(), years.max(), AGES)
    groups = {EVERYBODY: (terms.of(years, None), {EVERYBODY: terms.of(grid, None)})}
    if apart:
        ones = np.ones_like(grid)
        of_each = {"F": terms.of(grid, ones), "M": terms.of(grid, 0 * ones)}
        groups["sexes"] = (terms.of(years, women), of_each)
    rng, everybody = np.random.default_rng(seed), np.arange(len(years))
    again = [rng.integers(len(years), size=len(years)) for _ in range(rounds)]
    found: dict[str, dict[str, Any]] = {}
    for name in (name for name, measure in MEASURES.items() if not measure.computed):
        progress(name)
        found[name] = {}
        values = np.array([row[name] for row in measures])
        to, back = (np.log, np.exp) if _positive(name, values) else (_same, _same)
        for there, grids in groups.values():
            fits = [fit(there[some], to(values[some]), centiles) for some in (everybody, *again)]
            for group, here in grids.items():
                first, *others = (back(each.curves(here)) for each in fits)
                low, high = np.quantile(others, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
                parts = {"middle": first, "low": np.minimum(low, first), "high": np.maximum(high, first)}
                found[name][group] = {key: _short(part) for key, part in parts.items()}
    return {
        "format": FORMAT,
        "people": len(years),
        "sexes": counts if apart else {},
        "ages": grid.tolist(),
        "centiles": centiles.tolist(),
        "level": LEVEL,
        "rounds": rounds,
        "measures": found,
    }


def check(ages: np.ndarray, sexes: Sequence[str | None], counts: Mapping[str, int]) -> None:
    """Refuse, in words, what no curve can be laid through."""
    if len(ages) < LEAST:
        raise NormsError(
            f"{len(ages)} controls; {LEAST} are the least that centiles can be told from, so add some"
        )
    if np.ptp(ages) < 1:
        raise NormsError(f"all controls are {ages.min():g} years old; add others, or there is no curve over age")


def _positive(name: str, values: np.ndarray) -> bool:
    """Whether a measure is a size, whose spread grows with it, and its logarithm can be taken."""
    return MEASURES[name].kind in ("volume", "share") and bool((values > 0).all())


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _short(curves: np.ndarray) -> list[list[float]]:
    """Rounded alike along a column, so that curves which do not cross still do not."""
    return [[float(f"{value:.{FIGURES}g}") for value in row] for row in curves.tolist()]
