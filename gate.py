"""The gate: whether a scan is fit to be judged, with reasons in plain words and what to do about each.

`before` looks at the file's header and at the prepared picture, `after` at how far the network's features lie
from those it learned from. Neither knows anything of classes or probabilities.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model import Weights
from scans import Prepared, Scan
from studies import Contract

FIT, DOUBTFUL, UNFIT = "fit", "doubtful", "cannot be judged"


@dataclass(frozen=True)
class Finding:
    level: str  # DOUBTFUL or UNFIT
    code: str  # a key of REASONS
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return REASONS[self.code].format(**self.values)


REASONS = {
    "no-affine": "The file does not say how the head lies; it was taken as stored. Export it again with its "
    "orientation.",
    "thick-slices": "The slices are {mm:.1f} mm thick; detail between them is lost. Use a scan of at most 5 mm.",
    "unlike-training": "The scan looks unlike those the network learned from (distance {distance:.1f}, usual: up "
    "to {threshold:.1f}). Check that it is the kind of picture this study asks for.",
}


def verdict(findings: list[Finding] | tuple[Finding, ...]) -> str:
    """The worst of the findings."""
    levels = {finding.level for finding in findings}
    return UNFIT if UNFIT in levels else DOUBTFUL if DOUBTFUL in levels else FIT


def before(scan: Scan, prepared: Prepared, contract: Contract) -> list[Finding]:
    """What the header and the prepared picture say."""
    findings = []
    if scan.kind == "volume":
        thickest = max(scan.facts["spacing"])
        if thickest > 5:
            findings.append(Finding(DOUBTFUL, "thick-slices", {"mm": thickest}))
        if not scan.facts["affine_known"]:
            findings.append(Finding(DOUBTFUL, "no-affine"))
    return findings


def after(features: np.ndarray, weights: Weights) -> list[Finding]:
    """How far the penultimate features (F,) lie from the training features, where the weights file knows them."""
    threshold = weights.header.get("likeness", {}).get("threshold")
    if threshold is None:
        return []
    distance = likeness_distance(features, weights)
    if distance <= threshold:
        return []
    return [Finding(DOUBTFUL, "unlike-training", {"distance": distance, "threshold": threshold})]


def likeness_distance(features: np.ndarray, weights: Weights) -> float:
    """Mahalanobis distance of one feature vector (F,) to the training features."""
    mean = weights.extras["features.mean"].cpu().numpy()
    precision = weights.extras["features.precision"].cpu().numpy()
    offset = features - mean
    return float(np.sqrt(offset @ precision @ offset))
