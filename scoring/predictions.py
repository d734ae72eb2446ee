"""What a network says of labelled cases: each through the network, prepared as its weights file says."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

import datasets
import model
from data.cache import Cache
from data.cases import Case
from data.tables import DataError
from diagnosis import likeness
from networks.forward import Forward
from scans.prepare import prepare
from scans.processes import read
from studies import Study

MOST_SKETCHED = 150  # heads, evenly chosen, whose sketches make the mean one: each takes half a second
CORRUPT = 0.01  # the share of unreadable files that is left out with a warning; more is refused


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of some cases, case by case."""

    files: list[str]
    subjects: list[str]
    labels: list[str]
    logits: np.ndarray  # (n, K)
    features: np.ndarray  # (n, F)
    sketches: np.ndarray | None = None  # (n, …) of all cases or of some, where asked for
    splits: list[str] = field(default_factory=list)  # the part of each case; empty where nobody asked
    groups: list[dict[str, str]] = field(default_factory=list)  # age, sex, site, scanner, where told

    def targets(self, study: Study) -> np.ndarray:
        return np.array([study.answer(label) for label in self.labels], float if study.target else int)

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The predictions of some cases, without sketches."""

        def some(part: list[Any]) -> list[Any]:
            return [part[i] for i in rows] if part else part

        def array(part: np.ndarray) -> np.ndarray:
            return part[list(rows)] if len(part) else part

        return Predictions(
            some(self.files),
            some(self.subjects),
            some(self.labels),
            array(self.logits),
            array(self.features),
            None,
            some(self.splits),
            some(self.groups),
        )


def predict(
    weights: model.Weights,
    cases: Sequence[Case],
    cache: Cache | None = None,
    batch: int = 4,
    workers: int = 0,
    progress: Callable[[], None] | None = None,
    sketches: bool = False,
) -> Predictions:
    """Every case through the network, prepared as the weights file says; `progress` is called as it goes on.

    Sketches are of what the gate looks at: of whole heads where a network sees outlines, MOST_SKETCHED at most:
    each must be read again.
    """
    forward = Forward(weights.network)
    loader = DataLoader(datasets.Scans(cases, weights.study, cache), batch_size=batch, num_workers=workers)
    sketch = lambda x: likeness.sketch(x, weights.contract).half().numpy()  # noqa: E731
    logits, features = [np.empty((0, len(weights.study.labels)))], []
    sketched: list[np.ndarray] = []
    for x, _ in loader:
        batch_logits, batch_features = forward(x)  # (B, K), (B, F)
        logits.append(batch_logits.float().cpu().numpy())
        features.append(batch_features.float().cpu().numpy())
        if sketches and not weights.contract.outlined:
            sketched += map(sketch, x)
        if progress:
            progress()
    if sketches and weights.contract.outlined:
        for case in cases[:: -(-len(cases) // MOST_SKETCHED)]:
            sketched.append(sketch(prepare(read(case.file), weights.contract).tensor))
            if progress:
                progress()
    return Predictions(
        [case.file.as_posix() for case in cases],
        [case.subject for case in cases],
        [case.label for case in cases],
        np.concatenate(logits),
        np.concatenate(features) if features else np.empty((0, 0)),
        np.stack(sketched) if sketched else None,
        [case.split or "" for case in cases],
        [dict(case.groups) for case in cases],
    )


def readable(cases: list[Case], cache: Cache, workers: int) -> list[Case]:
    """The cases that can be read; a few that cannot are named and left out, many are refused."""
    good, failures = datasets.check_readable(cases, cache, workers)
    if len(failures) > CORRUPT * len(cases):
        raise DataError(
            f"{len(failures)} of {len(cases)} files cannot be read, more than {CORRUPT:.0%}; mend "
            f"them or take them out:{datasets.listed(failures)}"
        )
    if failures:
        left_out = f"{len(failures)} of {len(cases)} files cannot be read and are left out"
        print(f"warning: {left_out}:{datasets.listed(failures)}", file=sys.stderr)
    return good
