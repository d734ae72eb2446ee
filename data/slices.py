"""Folders of DICOM slices among labelled files: one scan each, and whose it is by a digest of the patient's ID.

The ID itself never leaves the process that reads headers. The digest's salt comes from the names of the cohort's
own files: the same person is found again in the same cohort, and nobody can look an ID up in what we write.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.tables import DataError
from scans import processes
from scans.folders.listing import listing
from scans.processes import MAX_SURVEYED
from scans.read import APART
from scans.scan import ScanError

PATIENT = "patient-"  # before the digest that stands for a person


def salt_of(data: Path) -> bytes:
    """The salt of a cohort: a digest of the names of what lies in it."""
    try:
        names = listing(data, data.name, APART, MAX_SURVEYED)
    except ScanError:  # nothing that could be DICOM: there will be nobody to name
        return b"none"
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).digest()


def scans_below(folder: Path, salt: bytes) -> dict[Path, str]:
    """The DICOM scans below a folder, and the person of each; empty where its header names none."""
    try:
        return {unit.path: unit.patient for unit in processes.survey(folder, salt)}
    except ScanError as error:
        if error.code == "no-image":
            return {}
        raise DataError(str(error)) from error


def subjects(named: Sequence[str | None], patients: Sequence[str], files: Sequence[str]) -> list[str]:
    """Who is shown: by the path's pattern, else by the patient's digest, else each file a person of its own.

    A patient whose other scans have a name by their path goes by that name too, if it is always the same.
    """
    by_path: dict[str, set[str]] = {}
    for name, patient in zip(named, patients, strict=True):
        if name and patient:
            by_path.setdefault(patient, set()).add(name)
    found = []
    for name, patient, file in zip(named, patients, files, strict=True):
        known = by_path.get(patient, set())
        found.append(
            name or (next(iter(known)) if len(known) == 1 else PATIENT + patient[:16] if patient else file)
        )
    return found


def note(people: Sequence[str]) -> str | None:
    """What to say of a cohort whose files all name one patient, as some ways to anonymise leave them."""
    counted = Counter(people)
    if len(people) > 1 and len(counted) == 1 and people[0].startswith(PATIENT):
        return (
            f"all {len(people)} scans name one patient; if they are of several, give --subject-regex or a CSV "
            "with a subject column"
        )
    return None
