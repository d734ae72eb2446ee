"""Which folders and files below a folder are a scan each: the smallest folders that hold a whole study.

A person's slices may lie in one folder or many, under any names: what belongs together the headers tell. Two
studies whose files lie among one another are one folder of several series; reading it takes the best of them.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scans.folders import candidates
from scans.origin import Series


@dataclass(frozen=True)
class Found:
    """One series below a folder; person and UIDs are digests, worth nothing without their salt."""

    uid: str
    study: str
    patient: str  # empty where the header names none
    series: Series
    names: tuple[str, ...]

    @classmethod
    def of(cls, record: dict[str, Any], names: Sequence[str]) -> "Found":
        series = Series.of(record["series"])
        places = tuple(names[int(index)] for index in record["names"])
        return cls(str(record["uid"])[:64], str(record["study"])[:64], str(record["patient"])[:64], series, places)


@dataclass(frozen=True)
class Unit:
    """A folder or a file that is read as one scan."""

    path: Path
    patient: str  # whose scan would be read, as a digest; empty where that is not known
    mixed: bool = False  # whether the images of several studies lie among one another in it
    damaged: bool = False  # a file called .dcm that is none, or has no pixels: no scan, whatever it was


def merged(parts: Iterable[Found]) -> list[Found]:
    """The series of a folder that was looked through in parts."""
    found: dict[tuple[str, str], Found] = {}
    for one in parts:
        key = (one.study, one.uid)
        if key in found:
            before = found[key]
            series = replace(before.series, images=before.series.images + one.series.images)
            one = replace(before, series=series, names=before.names + one.names)
        found[key] = one
    return list(found.values())


def units(folder: Path, found: Sequence[Found]) -> list[Unit]:
    """The scans below a folder, in the order of their paths."""
    studies: dict[str, list[Found]] = {}
    for one in found:
        studies.setdefault(one.study, []).append(one)
    places: dict[str, list[Found]] = {}
    for series in studies.values():
        names = [name for one in series for name in one.names]
        place = names[0] if len(names) == 1 else os.path.commonpath([Path(name).parent for name in names])
        places.setdefault("" if place == os.curdir else place, []).extend(series)
    outermost: dict[str, list[Found]] = {}
    for place in sorted(places, key=lambda place: Path(place).parts):
        above = next((other for other in outermost if Path(place).is_relative_to(other)), None)
        outermost.setdefault(place if above is None else above, []).extend(places[place])
    return [
        Unit(folder / place, patient(series), len({one.study for one in series}) > 1)
        for place, series in outermost.items()
    ]


def patient(found: Sequence[Found]) -> str:
    """Whose series would be read; empty where that cannot be told."""
    keyed = {str(number): one for number, one in enumerate(found)}
    key = candidates.best(candidates.judged([replace(one.series, key=key) for key, one in keyed.items()]))
    people = {one.patient for one in found}
    return keyed[key].patient if key is not None else people.pop() if len(people) == 1 else ""
