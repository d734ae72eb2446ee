"""The files that tell of a scored weights file: metrics, predictions, plots and the card."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import model
from networks.header import Header
from scans.files import write_bytes
from scoring.card import card
from scoring.checklist import checklist
from scoring.plots import agreement, confusion, png, reliability_plot, roc, svg
from scoring.predictions import Predictions
from studies import to_json


def write(
    folder: Path, header: Header, predictions: Predictions, root: Path, others: Sequence[Predictions] = ()
) -> None:
    """`metrics.json`, predictions as CSV and JSON, plots, card and checklist, from a header with the scores.

    The scores are those of `predictions`; `others`, such as the parts that were learned from, are listed too.
    """
    write_bytes(folder / "card.md", card(header).encode())
    write_bytes(folder / "checklist.md", checklist(header).encode())
    if predictions.files:
        write_scores(folder, header, predictions, root, others)


def write_scores(
    folder: Path, header: Header, predictions: Predictions, root: Path, others: Sequence[Predictions] = ()
) -> None:
    """The same without card and checklist."""
    write_bytes(folder / "metrics.json", to_json(header.scores, indent=1).encode())
    write_predictions(folder, header, [predictions, *others], root)
    for name, figure in figures(header, predictions).items():
        write_bytes(folder / f"{name}.png", png(figure))
        write_bytes(folder / f"{name}.svg", svg(figure))


def write_predictions(folder: Path, header: Header, parts: Sequence[Predictions], root: Path) -> None:
    """A row a case, with its subject and its part, as CSV and as JSON."""
    study, lines = header.study, io.StringIO(newline="")
    answers: list[dict[str, Any]] = []
    table = csv.writer(lines)
    table.writerow(["file", "subject", "split", "label", "prediction", *(() if study.target else study.codes)])
    for part in parts:
        for i, file in enumerate(part.files):
            path = Path(file)
            name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
            case = {
                "file": name,
                "subject": part.subjects[i],
                "split": part.splits[i] if part.splits else "",
                "label": part.labels[i],
            }
            if study.target:
                value = study.target.value(float(part.logits[i, 0]))
                table.writerow([*case.values(), f"{value:.6g}"])
                answers.append({**case, "prediction": value})
                continue
            p = model.probabilities(part.logits[i], header.temperature)
            chosen = study.codes[int(p.argmax())]
            table.writerow([*case.values(), chosen, *(f"{value:.6f}" for value in p)])
            chances = dict(zip(study.codes, p.tolist(), strict=True))
            answers.append({**case, "prediction": chosen, "probabilities": chances})
    write_bytes(folder / "predictions.csv", lines.getvalue().encode())
    write_bytes(folder / "predictions.json", to_json(answers, indent=1).encode())


def figures(header: Header, predictions: Predictions) -> dict[str, Any]:
    """The plots by the names of their files."""
    study, scores = header.study, header.scores
    truth = predictions.targets(study)
    if study.target:
        return {"agreement": agreement(truth, study.target.value(predictions.logits[:, 0]), study)}
    p = model.probabilities(predictions.logits, header.temperature)
    return {
        "confusion": confusion(np.array(scores["confusion"]), study),
        "roc": roc(truth, p, study, predictions.subjects, scores["metrics"]),
        "reliability": reliability_plot(scores["reliability"]),
    }
