"""The series among DICOM files: images grouped by their UIDs, and what headers say of each group.

Which of them is read, `scans.folders.candidates` decides.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom import Dataset

from scans.dicom import acquisition as told
from scans.dicom.headers import ODD_HEADERS, File
from scans.folders import candidates
from scans.origin import Acquisition, Series


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
    return coded(str(header.get("Modality", "")))


def coded(text: str) -> str:
    """A code of a header, such as a modality, without anything that no code has."""
    return re.sub(r"[^A-Z0-9]", "", text.upper())[:16]


def acquired(header: Dataset) -> Acquisition:
    """How it was acquired; nothing of it where the elements that say so are damaged."""
    try:
        return told.acquisition(header)
    except ODD_HEADERS:
        return Acquisition()


def in_3d(header: Dataset) -> bool:
    try:
        return told.is_3d(header)
    except ODD_HEADERS:
        return False


def why_not(header: Dataset, acquisition: Acquisition) -> list[str]:
    """What a header says against a series as the T1 scan of a head."""
    found: list[str] = []
    try:
        if modality(header) not in ("MR", ""):
            return ["modality"]
        if told.is_localizer(header):
            found.append("localizer")
        if not told.is_head(header):
            found.append("body-part")
        if acquisition.weighting is None:
            found.append("nothing-says-t1")
        elif acquisition.weighting != "T1":
            found.append("not-t1")
        if acquisition.contrast:
            found.append("contrast")
        if told.is_derived(header):
            found.append("derived")
    except ODD_HEADERS:
        found.append("nothing-says-t1")
    return found


def series_of(groups: dict[str, Group]) -> list[Series]:
    """All of them, with what their headers say against each."""
    studies: dict[tuple[str, str], int] = {}
    people: dict[str, int] = {}
    found = []
    for key, group in groups.items():
        acquisition = acquired(group.header)
        whose = str(group.header.get("PatientID", ""))
        found.append(
            Series(
                key,
                group.images,
                group.rows,
                group.columns,
                modality(group.header),
                acquisition,
                tuple(why_not(group.header, acquisition)),
                in_3d(group.header),
                study=numbered(studies, (str(group.header.get("StudyInstanceUID", "")), whose)),
                person=numbered(people, whose),
            )
        )
    return found


def numbered(known: dict[Any, int], one: Any) -> int:
    """The place of one among those that came before, from 1."""
    return known.setdefault(one, len(known) + 1)


def choose(groups: dict[str, Group], name: str, asked: str | None) -> tuple[Group, tuple[Series, ...]]:
    """The series that was asked for, the only one, or the best; and the list, where there are several."""
    series = candidates.choose(series_of(groups), name, asked)
    chosen = next(one.key for one in series if one.chosen)
    return groups[chosen], series if len(series) > 1 else ()
