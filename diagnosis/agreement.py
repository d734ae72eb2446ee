"""Whether class and anatomy speak against each other, by what a cohort's brains measure at each severity.

The table of the cohort stands in a weights file's header; without one, or with one by another segmenter, nothing
is said. A class of much disease in a brain whose ventricles and hippocampi both measure like those of the least
affected tenth is doubtful, and so is the reverse.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from diagnosis.anatomy.measures import Value
from diagnosis.gate import DOUBTFUL, Finding

GROWS, SHRINKS = "ventricles_share", "hippocampi_share"  # with severity; the measures that are compared
GROUPS = 10  # of the cohort, by severity
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the quantiles
LIKE = (0.25, 0.75)  # the quantiles up to which a brain is like a group's, towards the other end of the scale
MILD, SEVERE = 0.3, 0.7  # expected severity below and above which a class can be spoken against
FEWEST = 100  # cases of a cohort


def cohort_table(
    rows: Iterable[tuple[float, Mapping[str, float]]], segmenter: str, cohort: str = ""
) -> dict[str, Any]:
    """The header's `anatomy`, from each case's severity and measures; `segmenter` is the sha256 of its file.

    Cases of one severity belong together, so that groups may be larger than a tenth where labels alone are known.
    """
    known = [(severity, measures[GROWS], measures[SHRINKS]) for severity, measures in rows]
    if len(known) < FEWEST:
        raise ValueError(f"{len(known)} measured cases; at least {FEWEST} are needed, so measure more")
    columns = np.array(known, float)  # (cases, 3)
    severities, values = columns[:, 0], columns[:, 1:]
    # Bounds are severities of cases, so that no group is empty.
    bounds = np.quantile(severities, np.linspace(0, 1, GROUPS + 1), method="inverted_cdf")
    groups = []
    for low, high in pairwise(bounds):
        inside = (severities >= low) & (severities <= high)
        quantiles = np.quantile(values[inside], LEVELS, axis=0).round(4)  # (levels, 2)
        groups.append(
            {
                "severity": [round(float(low), 4), round(float(high), 4)],
                "cases": int(inside.sum()),
                "measures": {GROWS: quantiles[:, 0].tolist(), SHRINKS: quantiles[:, 1].tolist()},
            }
        )
    about = {"segmenter": segmenter, "cohort": cohort, "cases": len(known)}
    return {**about, "levels": list(LEVELS), "groups": groups}


def disagreement(
    severity: float | None, measures: Mapping[str, Value] | None, table: Mapping[str, Any], segmenter: str
) -> list[Finding]:
    """A doubtful finding where an expected severity and the measures speak against each other."""
    if severity is None or not measures or table.get("segmenter") != segmenter:
        return []
    grown, shrunk = measures[GROWS].value, measures[SHRINKS].value
    told = {"severity": severity, "ventricles": grown, "hippocampi": shrunk}
    least, most = (_like(table["groups"][end]["measures"], table["levels"]) for end in (0, -1))
    if severity >= SEVERE and grown <= least[GROWS][1] and shrunk >= least[SHRINKS][0]:
        return [Finding(DOUBTFUL, "little-atrophy", told)]
    if severity <= MILD and grown >= most[GROWS][0] and shrunk <= most[SHRINKS][1]:
        return [Finding(DOUBTFUL, "much-atrophy", told)]
    return []


def _like(measures: Mapping[str, Sequence[float]], levels: Sequence[float]) -> dict[str, list[float]]:
    """The quantiles LIKE of a group's measures."""
    return {name: [float(np.interp(level, levels, values)) for level in LIKE] for name, values in measures.items()}
