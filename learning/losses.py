"""What training makes small, and how it judges an epoch on validation subjects."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.cases import Case
from learning.settings import Settings
from scoring.ranking import ranking
from studies import Study

LEAST_IS_BEST = ("loss", "mae")


class Goal(Protocol):
    """A loss, and the plain measure that is shown beside it while training."""

    measure: str

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...

    def measured(self, logits: Tensor, targets: Tensor) -> Tensor: ...

    def on(self, device: torch.device | str) -> "Goal": ...


@dataclass(frozen=True, eq=False)
class Loss:
    """Cross-entropy, plus the squared error of the expected severity where the classes have an order.

    Targets are places of classes (n,), or (n, 2): those and each case's own severity, where it is known.
    """

    class_weights: Tensor  # (K,), of mean 1 over the training cases, so that batches need no common divisor
    severities: Tensor  # (K,)
    severity_weight: float
    measure = "accuracy"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits, classes = logits.float(), classes_of(targets)
        loss = (F.cross_entropy(logits, classes, reduction="none") * self.class_weights[classes]).mean()
        if self.severity_weight:
            severities = self.severities[classes] if targets.ndim == 1 else targets[:, 1]
            error = logits.softmax(1) @ self.severities - severities
            loss = loss + self.severity_weight * error.square().mean()
        return loss

    def measured(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.argmax(1) == classes_of(targets)).float().mean()

    def on(self, device: torch.device | str) -> "Loss":
        return Loss(self.class_weights.to(device), self.severities.to(device), self.severity_weight)


@dataclass(frozen=True, eq=False)
class SquaredError:
    """Of a number, scaled by its spread among the training cases."""

    mean: float
    deviation: float
    measure = "mae"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(logits.float()[:, 0], (targets.float() - self.mean) / self.deviation)

    def measured(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.float()[:, 0] * self.deviation + self.mean - targets.float()).abs().mean()

    def on(self, device: torch.device | str) -> "SquaredError":
        return self


def classes_of(targets: Tensor) -> Tensor:
    """The places of the classes, of targets that may say each case's severity too."""
    return targets if targets.ndim == 1 else targets[:, 0].long()


def loss_of(study: Study, cases: list[Case], settings: Settings, device: torch.device) -> Goal:
    if study.target:
        return SquaredError(study.target.mean, study.target.deviation)
    counts = np.array([sum(case.label == code for case in cases) for code in study.codes], float)
    weights = np.ones(len(counts))
    if settings.class_weights:
        weights = len(cases) / (np.maximum(counts, 1) * (counts > 0).sum())
    severities = [label.severity or 0.0 for label in study.labels]
    return Loss(
        torch.tensor(weights, dtype=torch.float32, device=device),
        torch.tensor(severities, device=device),
        settings.severity_weight if study.ordered else 0.0,
    )


def validation(study: Study, loss: Goal, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """An epoch's loss and measures on validation cases, (n, K) and (n,), by the names of the log."""
    if study.target:
        more = numbers(study.target.value(logits[:, 0]), targets.float())
    else:
        more = classes(study, logits.softmax(1), classes_of(targets))
    return {
        "val_loss": float(loss(logits, targets)),
        f"val_{loss.measure}": float(loss.measured(logits, targets)),
        **more,
    }


def numbers(values: Tensor, truth: Tensor) -> dict[str, float]:
    spread = float((truth - truth.mean()).square().mean())
    explained = 1 - float((values - truth).square().mean()) / spread if spread else math.nan
    return {"val_r2": explained, "val_correlation": correlation(values, truth)}


def classes(study: Study, p: Tensor, targets: Tensor) -> dict[str, float]:
    chosen, truth = p.argmax(1), targets
    present = truth.unique()
    recalls = [float((chosen[truth == k] == k).float().mean()) for k in present]
    areas = [
        ranking((truth == k).numpy(), p[:, k].numpy()).area
        for k in present.tolist()
        if len(present) > 1 and bool(p[:, k].isfinite().all())
    ]
    row = {
        "val_balanced_accuracy": float(np.mean(recalls)),
        "val_roc_auc": float(np.mean(areas)) if areas else math.nan,
    }
    if study.ordered:
        severities = torch.tensor([label.severity or 0.0 for label in study.labels])
        row["val_correlation"] = correlation(p @ severities, severities[truth])
    return row


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, or NaN where either does not vary."""
    pair = torch.stack([one, other])  # (2, n)
    known = len(other) > 1 and bool((pair.std(1) > 0).all())
    return float(torch.corrcoef(pair)[0, 1]) if known else math.nan


def score_of(row: dict[str, float], select: str) -> float:
    """An epoch's score by what is selected by: the lower, the better; infinite where it is not known."""
    value = row[f"val_{select}"]
    return math.inf if math.isnan(value) else value if select in LEAST_IS_BEST else -value
