"""Which series of several is read: the best T1 scan of a head, by rule, and what speaks against each other one.

A series is never taken without evidence: where none says that it is a T1 scan and several could be, all are listed
and one has to be asked for by its number.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom import Dataset

from scans.dicom import acquisition as told
from scans.dicom.headers import ODD_HEADERS, File
from scans.origin import Acquisition, Series
from scans.scan import ScanError

SERIES_SHOWN = 20
FEW_PLANES = 16  # a series of fewer shows no whole head
# What speaks against a series, and whether it is out of the question while there is another one.
WHY_NOT = {
    "modality": True,
    "localizer": True,
    "body-part": True,
    "few-planes": True,
    "not-t1": True,
    "nothing-says-t1": False,
    "contrast": False,
    "derived": False,
    "second": False,  # fit, and another one suits better
}


@dataclass(eq=False)
class Group:
    """The images of one series: the header of the first, and where all of them are."""

    header: Dataset
    rows: int
    columns: int
    images: int = 0
    members: list[tuple[float, Any]] = field(default_factory=list)  # how high it lies, and the image's place

    def add(self, file: File, place: Any) -> None:
        if file.pixels is not None:
            self.images += file.pixels.frames
            self.members.append((height(file.header), place))

    @property
    def places(self) -> list[Any]:
        return [place for _, place in self.members]

    @property
    def middle(self) -> Any:
        """The image that lies in the middle."""
        ordered = sorted(range(len(self.members)), key=lambda index: self.members[index][0])
        return self.members[ordered[len(ordered) // 2]][1]


def grouped(images: Iterable[tuple[File, Any]]) -> dict[str, Group]:
    """The series by their keys: their numbers, told apart by a second number where two series share one."""
    found: dict[tuple[str, str], Group] = {}
    for file, place in images:
        if file.pixels is None:
            continue
        uids = (str(file.header.get("StudyInstanceUID", "")), str(file.header.get("SeriesInstanceUID", "")))
        if uids not in found:
            found[uids] = Group(file.header, file.pixels.rows, file.pixels.columns)
        found[uids].add(file, place)
    keyed: dict[str, Group] = {}
    taken: dict[int, int] = {}
    for _, group in sorted(found.items(), key=lambda item: (series_number(item[1].header), item[0])):
        number = series_number(group.header)
        taken[number] = taken.get(number, 0) + 1
        keyed[str(number) if taken[number] == 1 else f"{number}-{taken[number]}"] = group
    return keyed


def series_number(header: Dataset) -> int:
    try:
        return int(told.text(header, "SeriesNumber") or 0)
    except ODD_HEADERS:
        return 0


def height(header: Dataset) -> float:
    """Where an image lies along the way that its rows and columns stand upright on; 0 where it does not say."""
    try:
        ways = np.array(header["ImageOrientationPatient"].value, dtype=float).reshape(2, 3)
        return float(np.array(header["ImagePositionPatient"].value, dtype=float) @ np.cross(*ways))
    except ODD_HEADERS:
        return 0.0


def modality(header: Dataset) -> str:
    return re.sub(r"[^A-Z0-9]", "", str(header.get("Modality", "")).upper())[:16]


def acquired(header: Dataset) -> Acquisition:
    """How it was acquired; nothing of it where the elements that say so are damaged."""
    try:
        return told.acquisition(header)
    except ODD_HEADERS:
        return Acquisition()


def why_not(group: Group, acquisition: Acquisition) -> list[str]:
    """What speaks against a series as the T1 scan of a head."""
    header, found = group.header, []
    try:
        if modality(header) not in ("MR", ""):
            return ["modality"]
        if told.is_localizer(header):
            found.append("localizer")
        if not told.is_head(header):
            found.append("body-part")
        if group.images < FEW_PLANES:
            found.append("few-planes")
        if acquisition.weighting not in ("T1", None):
            found.append("not-t1")
        if acquisition.weighting is None:
            found.append("nothing-says-t1")
        if acquisition.contrast:
            found.append("contrast")
        if told.is_derived(header):
            found.append("derived")
    except ODD_HEADERS:
        found.append("nothing-says-t1")
    return found


def listed(groups: dict[str, Group]) -> list[Series]:
    """All of them, with what speaks against each."""
    found = []
    for key, group in groups.items():
        acquisition = acquired(group.header)
        reasons = tuple(why_not(group, acquisition))
        found.append(
            Series(key, group.images, group.rows, group.columns, modality(group.header), acquisition, reasons)
        )
    return found


def choose(groups: dict[str, Group], name: str, asked: str | None) -> tuple[Group, tuple[Series, ...]]:
    """The series that was asked for by its number, the only one, or the best; and the list of all."""
    series = listed(groups)
    key = asked if asked is not None else best(series, groups)
    if key is None or key not in groups:
        words = f"no series {str(asked)[:16]} in it" if asked is not None else f"{len(groups)} series in it"
        raise ScanError(
            "several-series",
            f"{name}: {words} ({in_words(series)}); name one by its number, or zip one alone",
        )
    return groups[key], tuple(marked(one, key) for one in series) if len(series) > 1 else ()


def best(series: list[Series], groups: dict[str, Group]) -> str | None:
    """The key of the series to read where none was asked for; None where it cannot be told."""
    if len(series) == 1:
        return series[0].key
    possible = [one for one in series if not any(WHY_NOT[code] for code in one.why_not)]
    sure = [one for one in possible if "nothing-says-t1" not in one.why_not]
    if not sure:
        return possible[0].key if len(possible) == 1 else None
    return min(sure, key=lambda one: (*rank(one, groups[one.key].header), series.index(one))).key


def rank(one: Series, header: Dataset) -> tuple[bool, bool, bool, int]:
    """The lower the better: without a contrast agent, as it was acquired, in three dimensions, of many planes."""
    return "contrast" in one.why_not, "derived" in one.why_not, not told.is_3d(header), -one.images


def marked(one: Series, chosen: str) -> Series:
    reasons = one.why_not if one.why_not or one.key == chosen else ("second",)
    return Series(
        one.key, one.images, one.rows, one.columns, one.modality, one.acquisition, reasons, one.key == chosen
    )


def in_words(series: list[Series]) -> str:
    """The list for a refusal, in numbers and words of our own."""
    lines = [
        " ".join(
            part
            for part in (
                f"{one.key}: {one.images} images {one.rows}×{one.columns}",
                one.modality,
                one.acquisition.weighting or "",
            )
            if part
        )
        for one in series[:SERIES_SHOWN]
    ]
    more = [f"and {len(series) - SERIES_SHOWN} more"] if len(series) > SERIES_SHOWN else []
    return "; ".join(lines + more)
