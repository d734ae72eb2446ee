"""Leaks and duplicates: subjects, files and pictures that splits share, and pictures that stand more than once."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from data.cases import Case
from data.splits import ORDER
from data.tables import DataError, first_few
from scans.files import content_hash
from scans.processes import read
from scans.progress import progress


@dataclass(frozen=True)
class Leaks:
    """What stands on both sides of a split, and what stands twice on one side; `str()` lists it."""

    pairs: tuple[tuple[str, Case, Case], ...]  # (why, a case, a case of another split)
    groups: tuple[tuple[Case, ...], ...]  # cases with the same picture, wherever they stand
    unreadable: tuple[tuple[Case, str], ...] = ()

    @property
    def duplicates(self) -> list[list[Case]]:
        """The groups as far as they lie inside one split."""
        parts = [[case for case in group if case.split == split] for group in self.groups for split in ORDER]
        return [part for part in parts if len(part) > 1]

    def __str__(self) -> str:
        named = [case for _, *two in self.pairs for case in two] + [case for case, _ in self.unreadable]
        roots = {case.file.parent for case in named + [case for group in self.groups for case in group]}
        root = Path(os.path.commonpath(roots)) if roots else Path()
        root = root.parent if len(roots) == 1 else root

        def show(case: Case) -> str:
            return case.file.relative_to(root).as_posix()

        pairs = [
            f"{why}: {one.split or 'undivided'} {show(one)} – {other.split or 'undivided'} {show(other)}"
            for why, one, other in self.pairs
        ]
        duplicates = [
            f"{part[0].split or 'undivided'}: {first_few(map(show, part))}{_differ(part)}"
            for part in self.duplicates
        ]
        failed = [f"{show(case)}: {reason}" for case, reason in self.unreadable]
        return (
            "\n".join(
                _block(len(pairs), "leak", "between splits", pairs)
                + _block(len(duplicates), "group", "of identical pictures inside a split", duplicates)
                + _block(len(failed), "file", "that cannot be read", failed)
            )
            or "no leaks"
        )


Prints = dict[Path, tuple[str, str | None, str | None]]  # file → hash of its bytes, of its picture, or why not


def fingerprints(cases: Sequence[Case], workers: int | None = None) -> Prints:
    """What `leaks` compares; make it once where several splits of the same cases are checked."""
    files = [case.file for case in cases]
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        return dict(
            zip(
                files,
                progress(pool.map(_fingerprint, files), "comparing", len(files), "scan"),
                strict=True,
            )
        )


def leaks(cases: Sequence[Case], prints: Prints | None = None) -> Leaks:
    """Subjects, files and pictures that splits share. Cases without a split count as one more split."""
    prints = prints or fingerprints(cases)
    people, pictures, pairs = defaultdict(list), defaultdict(list), []
    for case in cases:
        content, pixels, _ = prints[case.file]
        people[case.subject].append(case)
        pictures[pixels or content].append((case, content))
    for subject, shown in people.items():
        pairs += [(f"same subject {subject}", *pair) for pair in _across([(case, "") for case in shown], False)]
    for group in pictures.values():
        contents = dict(group)
        pairs += [
            ("same bytes" if contents[one] == contents[other] else "same pixels", one, other)
            for one, other in _across(group, True)
        ]
    groups = tuple(tuple(case for case, _ in group) for group in pictures.values() if len(group) > 1)
    failed = tuple((case, why) for case in cases if (why := prints[case.file][2]))
    return Leaks(tuple(pairs), groups, failed)


def deduplicate(cases: Sequence[Case], leaking: Leaks | None = None, refuse: bool = True) -> list[Case]:
    """One case of each group of identical pictures, a test case before one of val and of train.

    A group whose labels differ says nothing that could be learned: it is refused, or else left out whole.
    """
    leaking = leaking or leaks(cases)
    contradictory = contradictions(leaking)
    if contradictory and refuse:
        raise DataError(
            f"{len(contradictory)} identical pictures have different labels; correct or remove them:\n  "
            + first_few(contradictory, 10, "\n  ")
        )
    drop = set()
    for group in leaking.groups:
        keep = max(sorted(group, key=lambda case: str(case.file)), key=lambda case: ORDER.index(case.split))
        drop |= {case.file for case in group} - ({keep.file} if not _differ(group) else set())
    return [case for case in cases if case.file not in drop]


def contradictions(leaking: Leaks) -> list[str]:
    """The groups of identical pictures that carry different labels, a line each."""
    return [
        first_few(str(case.file) for case in group) + _differ(group) for group in leaking.groups if _differ(group)
    ]


def _fingerprint(file: Path) -> tuple[str, str | None, str | None]:
    """Hashes of a file's bytes and of its picture, or why there is none; grey stored as RGB is grey."""
    content = content_hash(file)
    try:
        voxels = read(file).voxels
    except ValueError as error:  # ScanError, or a library's word for a file it cannot make out
        return content, None, str(error)
    if voxels.shape[-1] == 3 and (voxels == voxels[..., :1]).all():
        voxels = voxels[..., 0]
    digest = hashlib.sha256(str(voxels.shape).encode())
    digest.update((np.ascontiguousarray(voxels, np.float32) + np.float32(0)).data)  # −0 becomes 0
    return content, digest.hexdigest(), None


def _across(appearances: list[tuple[Case, str]], every: bool) -> list[tuple[Case, Case]]:
    """The first case of a split with the first, or with `every` one, of each later split."""
    parts = [[case for case, _ in appearances if case.split == split] for split in ORDER]
    return [
        (one[0], case)
        for one, other in combinations([part for part in parts if part], 2)
        for case in (other if every else other[:1])
    ]


def _differ(group: Sequence[Case]) -> str:
    labels = sorted({case.label for case in group})
    return f" (labels differ: {', '.join(labels)})" if len(labels) > 1 else ""


def _block(count: int, noun: str, rest: str, lines: list[str], most: int = 20) -> list[str]:
    if not count:
        return []
    return [
        f"{count} {noun}{'s' * (count > 1)} {rest}:",
        *(f"  {line}" for line in lines[:most]),
        *([f"  and {count - most} more"] if count > most else []),
    ]
