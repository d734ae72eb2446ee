"""The plots beside a card and a run's log: confusion, ROC, reliability, losses by epoch; each as PNG."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from studies import Study


def confusion(counts: np.ndarray, study: Study) -> bytes:
    """True classes by row, predicted by column, in the order of severity; as PNG."""
    places = [study.codes.index(code) for code in study.by_severity]
    counts = counts[np.ix_(places, places)]
    figure, axes = canvas()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = count / max(counts[row].sum(), 1)
        axes.text(column, row, str(count), ha="center", va="center", color="white" if share > 0.5 else "black")
    axes.set_xticks(range(len(places)), study.by_severity)
    axes.set_yticks(range(len(places)), study.by_severity)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    return png(figure)


def roc(truth: np.ndarray, p: np.ndarray, study: Study) -> bytes:
    """Each class against the rest, where both occur; as PNG."""
    figure, axes = canvas()
    for i, code in enumerate(study.codes):
        if 0 < (truth == i).sum() < len(truth):
            fall_out, hits, _ = roc_curve(truth == i, p[:, i])
            axes.plot(fall_out, hits, label=code)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")
    axes.legend()
    return png(figure)


def reliability_plot(rows: list[dict[str, float]]) -> bytes:
    """Stated probability against how often it was right; as PNG."""
    figure, axes = canvas()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    axes.plot([row["confidence"] for row in rows], [row["accuracy"] for row in rows], marker="o", label="measured")
    for row in rows:
        axes.annotate(
            str(row["count"]), (row["confidence"], row["accuracy"]), textcoords="offset points", xytext=(4, -10)
        )
    axes.set_xlabel("stated probability")
    axes.set_ylabel("share right")
    axes.legend()
    return png(figure)


def curves(history: list[dict[str, float]]) -> bytes:
    """Losses and accuracy by epoch, as a PNG."""
    figure = Figure(figsize=(8, 3.2))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.15, top=0.97)  # an automatic layout takes twice as long
    epochs = [row["epoch"] for row in history]
    lines = (("train_loss", "val_loss"), ("train_accuracy", "val_accuracy", "val_correlation"))
    for axes, names in zip(figure.subplots(1, 2), lines, strict=True):
        for name in names:
            if name in history[-1]:
                values = [row.get(name, np.nan) for row in history]
                axes.plot(epochs, values, marker=".", label=name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.legend()
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=110)
    return memory.getvalue()


def canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    return figure, figure.subplots()


def png(figure: Figure) -> bytes:
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=110)
    return memory.getvalue()
