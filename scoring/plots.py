"""The plots beside a card and a run's log: confusion, ROC, reliability, losses by epoch; for screen and print."""

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoring.intervals import draws, rows_of
from scoring.ranking import ranking
from studies import Study

BAND_ROUNDS = 200
NOTHING: Mapping[str, Any] = MappingProxyType({})


def confusion(counts: np.ndarray, study: Study) -> Figure:
    """True classes by row, predicted by column, in the order of severity."""
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
    return figure


def roc(
    truth: np.ndarray,
    p: np.ndarray,
    study: Study,
    subjects: Sequence[str] = (),
    areas: Mapping[str, Any] = NOTHING,
) -> Figure:
    """Each class against the rest, where both occur, with its area and a 95 % band by resampling people."""
    figure, axes = canvas()
    across = np.linspace(0, 1, 101)
    rounds = draws(rows_of(subjects), BAND_ROUNDS, 0) if len(subjects) else []
    for i, code in enumerate(study.codes):
        if 0 < (truth == i).sum() < len(truth):
            fall_out, hits = ranking(truth == i, p[:, i]).roc
            label = f"{code}, AUC {in_words(areas[f'roc_auc.{code}'])}" if f"roc_auc.{code}" in areas else code
            (line,) = axes.plot(fall_out, hits, label=label)
            drawn = [
                np.interp(across, *ranking(truth[rows] == i, p[rows, i]).roc)
                for rows in rounds
                if 0 < (truth[rows] == i).sum() < len(rows)
            ]
            if drawn:
                low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
                axes.fill_between(across, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")
    axes.legend(fontsize="small")
    return figure


def in_words(score: Mapping[str, Any]) -> str:
    """A score with its interval, where there is one."""
    if score["value"] is None:
        return "not defined"
    spread = f" ({score['low']:.2f}–{score['high']:.2f})" if score["low"] is not None else ""
    return f"{score['value']:.2f}{spread}"


def agreement(truth: np.ndarray, values: np.ndarray, study: Study) -> Figure:
    """What was answered against what is true, for a study of a number."""
    figure, axes = canvas()
    ends = [min(truth.min(), values.min()), max(truth.max(), values.max())]
    axes.plot(ends, ends, color="grey", linestyle=":", label="perfect")
    axes.plot(truth, values, marker="o", linestyle="", alpha=0.6, label="measured")
    unit = f" ({study.target.unit})" if study.target and study.target.unit else ""
    axes.set_xlabel(f"true {study.codes[0]}{unit}")
    axes.set_ylabel(f"answered {study.codes[0]}{unit}")
    axes.legend()
    return figure


def reliability_plot(rows: list[dict[str, float]]) -> Figure:
    """Stated probability against how often it was right."""
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
    return figure


def curves(history: list[dict[str, float]]) -> bytes:
    """Losses and accuracy by epoch, as a PNG."""
    figure = Figure(figsize=(8, 3.2))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.15, top=0.97)  # an automatic layout takes twice as long
    epochs = [row["epoch"] for row in history]
    measured = ("train_accuracy", "val_accuracy", "val_correlation")
    lines = (("train_loss", "val_loss"), ("train_mae", "val_mae") if "val_mae" in history[-1] else measured)
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


def svg(figure: Figure) -> bytes:
    """The figure as lines, for print; the same lines give the same file."""
    memory = io.BytesIO()
    with rc_context({"svg.hashsalt": "scanwise"}):
        figure.savefig(memory, format="svg", metadata={"Date": None, "Creator": None})
    return memory.getvalue()
