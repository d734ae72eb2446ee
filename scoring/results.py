"""The files that tell of a scored weights file: metrics, predictions, plots and the card."""

import csv
import io
from pathlib import Path

import numpy as np

import model
from networks.header import Header
from scans.files import write_bytes
from scoring.card import card
from scoring.plots import confusion, reliability_plot, roc
from scoring.scores import Predictions
from studies import to_json


def write(folder: Path, header: Header, predictions: Predictions, root: Path) -> None:
    """`metrics.json`, predictions as CSV and JSON, three plots and `card.md`, from a header with the scores."""
    study = header.study
    write_bytes(folder / "card.md", card(header).encode())
    if not predictions.files:
        return
    p = model.probabilities(predictions.logits, header.temperature)
    write_bytes(folder / "metrics.json", to_json(header.scores, indent=1).encode())
    lines, answers = io.StringIO(newline=""), []
    table = csv.writer(lines)
    table.writerow(["file", "label", "prediction", *study.codes])
    for file, label, row in zip(predictions.files, predictions.labels, p, strict=True):
        path = Path(file)
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        table.writerow([name, label, study.codes[row.argmax()], *(f"{value:.6f}" for value in row)])
        answers.append(
            {
                "file": name,
                "label": label,
                "prediction": study.codes[row.argmax()],
                "probabilities": dict(zip(study.codes, row.tolist(), strict=True)),
            }
        )
    write_bytes(folder / "predictions.csv", lines.getvalue().encode())
    write_bytes(folder / "predictions.json", to_json(answers, indent=1).encode())
    write_bytes(folder / "confusion.png", confusion(np.array(header.scores["confusion"]), study))
    write_bytes(folder / "roc.png", roc(predictions.targets(study), p, study))
    write_bytes(folder / "reliability.png", reliability_plot(header.scores["reliability"]))
