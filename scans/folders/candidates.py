"""Which series of several is read: the best T1 scan of a head, by rule, and what speaks against each other one.

A series is never taken without evidence: where none says that it is a T1 scan and several could be, all are listed
and one has to be asked for by its number.
"""

from collections.abc import Sequence
from dataclasses import replace

from scans.origin import Series
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


def judged(series: Sequence[Series]) -> list[Series]:
    """The series with what their number of images says against them."""
    return [
        replace(one, why_not=(*one.why_not, "few-planes"))
        if one.images < FEW_PLANES and "modality" not in one.why_not
        else one
        for one in series
    ]


def choose(found: Sequence[Series], name: str, asked: str | None) -> tuple[Series, ...]:
    """All of them, and the one marked that was asked for by its number, or the only one, or the best."""
    series = judged(found)
    key = asked if asked is not None else best(series)
    if key is None or key not in {one.key for one in series}:
        words = f"no series {str(asked)[:16]} in it" if asked is not None else f"{len(series)} series in it"
        raise ScanError(
            "several-series",
            f"{name}: {words} ({in_words(series)}); name one by its number, or zip one alone",
            tuple(series),
        )
    return tuple(
        replace(one, chosen=one.key == key, why_not=one.why_not if one.why_not or one.key == key else ("second",))
        for one in series
    )


def best(series: Sequence[Series]) -> str | None:
    """The key of the series to read where none was asked for; None where it cannot be told."""
    if len(series) == 1:
        return series[0].key
    possible = [one for one in series if not any(WHY_NOT[code] for code in one.why_not)]
    sure = [one for one in possible if "nothing-says-t1" not in one.why_not]
    if not sure:
        return possible[0].key if len(possible) == 1 else None
    return min(sure, key=rank).key


def each_study(found: Sequence[Series]) -> list[str]:
    """The keys of the series to read where several studies lie together, of several people or of one.

    One for each study in which one is a T1 scan, and for each person of whom there is but one that could be. The
    other studies, such as CTs, have none to be read; fewer than two mean that there is nothing to be told apart.
    """
    studies: dict[int, list[Series]] = {}
    for one in judged(found):
        studies.setdefault(one.study, []).append(one)
    keys = []
    for number, series in studies.items():
        key = best(series)
        chosen = next((one for one in series if one.key == key), None)
        if chosen is None or any(WHY_NOT[code] for code in chosen.why_not):
            continue
        alone = all(one.study == number for one in found if one.person == chosen.person)
        if "nothing-says-t1" not in chosen.why_not or alone:
            keys.append(chosen.key)
    return keys if len(keys) > 1 else []


def rank(one: Series) -> tuple[bool, bool, bool, int]:
    """The lower the better: without a contrast agent, as it was acquired, in three dimensions, of many planes."""
    return "contrast" in one.why_not, "derived" in one.why_not, not one.in_3d, -one.images


def in_words(series: Sequence[Series]) -> str:
    """The list for a refusal, in numbers and words of our own."""
    lines = []
    for one in series[:SERIES_SHOWN]:
        size = f"{one.key}: {one.images} images {one.rows}×{one.columns}"
        lines.append(" ".join(part for part in (size, one.modality, one.acquisition.weighting) if part))
    more = [f"and {len(series) - SERIES_SHOWN} more"] if len(series) > SERIES_SHOWN else []
    return "; ".join(lines + more)
