"""A sweep: one training for every combination of some settings, with a table and a drawing of validation losses.

Each combination is a run of its own in its own folder, by the very function that trains alone; this module only
counts them off and gathers what they logged. Test scores are left out: whoever chooses by them has none left.
"""

import csv
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from learning.options import parse
from learning.run import sentence, train
from learning.settings import Given, TrainError
from scans.files import write_bytes
from scoring.plots import png
from studies import to_json

FIXED = ("study", "data", "out", "resume", "finish", "sweep", "folds")  # the same for all of a sweep
RESULTS = ("val_loss", "val_accuracy", "best_epoch", "epochs", "seconds", "state")


def sweep(given: Given) -> int:
    """Trains what is not trained yet, one after the other, and writes `sweep.csv` and `sweep.png` after each."""
    if "resume" in given:
        raise TrainError("--sweep: give the same command again instead of --resume; what is finished stays")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainError("--sweep: start it without torchrun; its runs follow each other")
    chosen = combinations(given["sweep"])
    out = Path(given.get("out", f"runs/{Path(given['study']).stem}-sweep"))
    base = {key: value for key, value in given.items() if key not in ("sweep", "out")}
    remember(out, base)
    start = ["--study", given["study"], "--data", str(given["data"])]
    plans = [
        base | parse([*start, *itertools.chain(*((f"--{name}", value) for name, value in one.items()))])
        for one in chosen
    ]  # all are parsed before the first is trained
    rows: list[dict[str, Any]] = []
    for number, (one, plan) in enumerate(zip(chosen, plans, strict=True), 1):
        name = ",".join(f"{key}={value}" for key, value in one.items())
        folder, state = out / name, "done"
        there = " (there already)" if finished(folder) else ""
        print(f"run {number} of {len(chosen)}: {name}{there}", flush=True)
        if not finished(folder):
            broken_off = (folder / "last.pt").is_file()
            try:
                status = train({"resume": str(folder)} if broken_off else plan | {"out": str(folder)})
            except Exception as error:
                why = sentence(error)
                if why is None:
                    raise
                state = why
                print(f"train.py: {state}", file=sys.stderr)
            else:
                if status:  # stopped by a person
                    return status
        rows.append({**one, **logged(folder), "state": state})
        write(out, rows, list(chosen[0]))
    known = [row for row in rows if row["val_loss"] != ""]
    if known:
        best = min(known, key=lambda row: float(row["val_loss"]))
        print(
            f"least validation loss: {float(best['val_loss']):.4g} with "
            + ", ".join(f"{key}={best[key]}" for key in chosen[0])
        )
    print(f"wrote {out / 'sweep.csv'}")
    return 1 if any(row["state"] != "done" for row in rows) else 0


def combinations(words: Sequence[str]) -> list[dict[str, str]]:
    """ "lr=0.1,0.01 batch=8" as each of its combinations, in the order given."""
    grid: dict[str, list[str]] = {}
    for word in words:
        name, _, values = word.partition("=")
        listed = values.split(",")
        if not re.fullmatch(r"[a-z-]+", name) or not all(re.fullmatch(r"[\w.+-]+", value) for value in listed):
            raise TrainError(f"--sweep {word}: give settings and values such as lr=0.001,0.0003 batch=8,16")
        if name in FIXED or name in grid or len(set(listed)) < len(listed):
            raise TrainError(
                f"--sweep {word}: "
                + (f"{name} is the same for all runs" if name in FIXED else "nothing may stand twice")
            )
        grid[name] = listed
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def remember(out: Path, base: Given) -> None:
    """Keeps what all runs have in common; runs made otherwise cannot stand in one table."""
    out.mkdir(parents=True, exist_ok=True)
    kept, text = out / "sweep.json", to_json(base, indent=1, sort_keys=True)
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise TrainError(
            f"{out}: its sweep was begun with other settings ({kept.name} in it); use those, or "
            "choose another --out"
        )
    write_bytes(kept, text.encode())


def finished(folder: Path) -> bool:
    """Whether the run in it has written its weights file."""
    return any(folder.glob("*.safetensors"))


def logged(folder: Path) -> dict[str, Any]:
    """A run's best epoch, by validation loss, from its log; blanks where there is none."""
    if not (folder / "log.csv").is_file():
        return dict.fromkeys(RESULTS[:-1], "")
    with (folder / "log.csv").open(newline="", encoding="utf-8") as lines:
        epochs = list(csv.DictReader(lines))
    best = min(epochs, key=lambda row: float(row["val_loss"]))
    seconds = sum(float(row["seconds"]) for row in epochs)
    return {
        "val_loss": best["val_loss"],
        "val_accuracy": best.get("val_accuracy", ""),
        "best_epoch": best["epoch"],
        "epochs": len(epochs),
        "seconds": f"{seconds:.1f}",
    }


def write(out: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
    lines = io.StringIO(newline="")
    table = csv.DictWriter(lines, [*names, *RESULTS], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(out / "sweep.csv", lines.getvalue().encode())
    write_bytes(out / "sweep.png", drawing(rows, names))


def drawing(rows: list[dict[str, Any]], names: list[str]) -> bytes:
    """Least validation loss against each swept number; a row of panels an architecture, a line for the rest."""
    numbers = [name for name in names if all(number(row[name]) is not None for row in rows)]
    networks = sorted({row.get("network", "") for row in rows})
    figure = Figure(figsize=(1 + 4 * max(1, len(numbers)), 0.4 + 3 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), max(1, len(numbers)), squeeze=False, sharey="row")
    for network, line in zip(networks, panels, strict=True):
        mine = [row for row in rows if row.get("network", "") == network and row["val_loss"] != ""]
        for name, axes in zip(numbers, line, strict=False):
            others = [other for other in names if other not in (name, "network")]
            for rest in sorted({tuple(row[other] for other in others) for row in mine}):
                points = sorted(
                    (float(row[name]), float(row["val_loss"]))
                    for row in mine
                    if tuple(row[other] for other in others) == rest
                )
                label = ", ".join(f"{other} {value}" for other, value in zip(others, rest, strict=True))
                axes.plot(*zip(*points, strict=True), marker="o", label=label or None)
                if label:
                    axes.legend(fontsize="small")
            places = sorted({float(row[name]) for row in rows})
            if places[0] > 0:
                axes.set_xscale("log")
            axes.set_xticks(places, [f"{place:g}" for place in places], minor=False)
            axes.set_xticks([], minor=True)
            axes.set_xlabel(name)
            axes.set_title(network)
        line[0].set_ylabel("least validation loss")
    return png(figure)


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
