"""Centiles: where a person's measures lie among healthy controls of that age and sex.

The controls are one's own, measured with the very segmenter that measures the person, for tools differ by up to
a third. `learning.norms` fits the curves of a file of norms; here it is opened, checked and applied.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diagnosis.anatomy.measures import MEASURES, Centile, Value

FILE = "norms.json"  # beside the weights, where none is named
FORMAT = 1
LEAST = 40  # controls
LEVEL = 0.9  # of the interval around each curve
EVERYBODY = "any"  # the curves that know no sex
SEXES = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}  # as people write it
OLDEST = 120.0  # years
MOST_BYTES = 32 << 20  # of a file of norms; one of 40 measures has 400,000


class NormsError(ValueError):
    """Why norms cannot be made or used, and what to do about it."""


@dataclass(frozen=True)
class Person:
    """What the centiles need to know of a person; neither is kept anywhere but in the answer."""

    age: float | None = None  # years
    sex: str | None = None  # "F" or "M"


NOBODY = Person()  # of whom nothing was told


@dataclass(frozen=True, eq=False)
class Curves:
    """Of one measure and one sex: the value at each centile (rows) and age (columns), and its interval."""

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class Norms:
    name: str  # the file's name
    sha256: str  # of the file
    segmenter: str  # the sha256 of the segmenter's weights
    people: int
    sexes: dict[str, int]  # how many of each; empty where the controls' sex was not given
    ages: np.ndarray  # years, from the youngest to the oldest
    centiles: np.ndarray  # percent, rising
    curves: dict[str, dict[str, Curves]]  # by measure and sex

    def why_none(self, person: Person) -> str | None:
        """The code of why this person gets no centiles; None where they do."""
        if person.age is None:
            return "no-age"
        return None if self.ages[0] <= person.age <= self.ages[-1] else "outside"

    def group(self, person: Person) -> str:
        """Whose curves hold for a person: those of their sex, or everybody's."""
        return person.sex if person.sex in self.sexes else EVERYBODY

    def at_age(self, name: str, group: str, age: float) -> Curves:
        """The curves at one age: (centiles,)."""
        curves = self.curves[name][group]
        at = lambda rows: np.array([np.interp(age, self.ages, row) for row in rows])  # noqa: E731
        return Curves(at(curves.middle), at(curves.low), at(curves.high))

    def centile(self, name: str, value: float, person: Person) -> Centile | None:
        """Where a value lies; None where there are no curves for it or for this person."""
        if name not in self.curves or person.age is None or self.why_none(person) is not None:
            return None
        at = self.at_age(name, self.group(person), person.age)
        # A value's centile is least where the curves lie highest.
        low = 0.0 if value < at.high[0] else float(np.interp(value, at.high, self.centiles))
        high = 100.0 if value > at.low[-1] else float(np.interp(value, at.low, self.centiles))
        found = float(np.interp(value, at.middle, self.centiles))
        return Centile(found, min(low, found), max(high, found))

    def placed(self, measures: Mapping[str, Value], person: Person) -> dict[str, Value]:
        """The measures with their centiles, where there are any."""
        return {
            name: replace(measure, centile=self.centile(name, measure.value, person))
            for name, measure in measures.items()
        }

    def record(self, person: Person) -> dict[str, Any]:
        """What an answer tells of the norms that it was, or was not, compared with."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "people": self.people,
            "ages": [float(self.ages[0]), float(self.ages[-1])],
            "sex": self.group(person),
            "outermost": [float(self.centiles[0]), float(self.centiles[-1])],
            "level": LEVEL,
            "why_none": self.why_none(person),
        }


def person(age: Any = None, sex: Any = None) -> Person:
    """A person from what was typed: empty is not given, anything else must make sense."""
    years, written = str(age if age is not None else "").strip(), str(sex if sex is not None else "").strip()
    try:
        number = float(years.replace(",", ".")) if years else None
    except ValueError:
        number = math.nan
    if number is not None and not 0 <= number <= OLDEST:
        raise NormsError(f"age {years[:20]!r}: give it in years, from 0 to {OLDEST:g}, such as 71.5")
    if written and written.lower() not in SEXES:
        raise NormsError(f"sex {written[:20]!r}: give F or M, or leave it out")
    return Person(number, SEXES.get(written.lower()))


def load(path: str | Path, segmenter: str) -> Norms:
    """Open a file of norms for the segmenter of this sha256; NormsError says why not."""
    path = Path(path)
    if not path.is_file():
        raise NormsError(f"{path}: no such file; make one with `python norms.py`")
    if path.stat().st_size > MOST_BYTES:
        raise NormsError(f"{path.name}: larger than {MOST_BYTES >> 20} MB, so these are no norms")
    data = path.read_bytes()
    try:
        record = json.loads(data)
        known = record["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NormsError(f"{path.name}: holds no norms; make them with `python norms.py`") from error
    if known != FORMAT:
        raise NormsError(f"{path.name}: format {known!r}; this version reads {FORMAT}, so make the norms again")
    try:
        norms = _norms(path.name, hashlib.sha256(data).hexdigest(), record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NormsError(f"{path.name}: damaged ({str(error)[:120]}); make the norms again") from error
    if norms.segmenter != segmenter:
        raise NormsError(
            f"{path.name}: made with the segmenter {norms.segmenter[:16]}, and this one is {segmenter[:16]}; "
            "segmenters differ too much to share norms, so make them again with `python norms.py`"
        )
    return norms


def _norms(name: str, sha256: str, record: dict[str, Any]) -> Norms:
    ages, centiles = (np.array(record[key], dtype=float) for key in ("ages", "centiles"))
    for key, values in (("ages", ages), ("centiles", centiles)):
        if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise ValueError(f"{key} do not rise")
    if centiles[0] <= 0 or centiles[-1] >= 100:
        raise ValueError("centiles reach beyond 0 to 100")
    sexes = {str(sex): int(count) for sex, count in record["sexes"].items() if sex in SEXES.values()}
    curves = {}
    for measure, groups in record["measures"].items():
        if measure not in MEASURES:
            raise ValueError(f"the measure {measure[:40]!r} is not known here")
        curves[measure] = {
            group: _curves(f"{measure}, {group}", groups[group], (len(centiles), len(ages)))
            for group in (EVERYBODY, *sexes)
        }
    people = int(record["people"])
    return Norms(name, sha256, str(record["segmenter"]["sha256"]), people, sexes, ages, centiles, curves)


def _curves(what: str, rows: dict[str, Any], shape: tuple[int, int]) -> Curves:
    parts = {key: np.array(rows[key], dtype=float) for key in ("middle", "low", "high")}
    for key, values in parts.items():
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"{what}: {key} is not {shape[0]} curves of {shape[1]} numbers")
        if (np.diff(values, axis=0) < 0).any():
            raise ValueError(f"{what}: curves of {key} cross")
    return Curves(**parts)
