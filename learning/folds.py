"""Training in folds: one run for each part of the people held out, and the scores of all of them pooled.

Each fold is a run of its own in its own folder, by the very function that trains alone; every person is answered
about once, by the network that did not learn from them.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import model
from data.cases import find
from data.splits import check_balance, data_folder, write_split
from data.splits import folds as ways_of
from learning.run import train
from learning.settings import Given, Settings, TrainError, settle, study_learned
from networks.header import Header
from scans.files import write_bytes
from scoring.card import scored
from scoring.predictions import Predictions
from scoring.results import write_scores
from scoring.scores import scores
from studies import Target, to_json


def fold(given: Given) -> int:
    """Trains what is not trained yet, and writes the pooled scores; the same command goes on."""
    if "resume" in given or "split" in given or "sweep" in given:
        raise TrainError("--folds: it draws its own splits; leave --resume, --split and --sweep out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainError("--folds: start it without torchrun; its runs follow each other")
    count = given["folds"]
    base = {key: value for key, value in given.items() if key not in ("folds", "out")}
    settings = settle({key: value for key, value in base.items() if key != "allow_network"})
    out = Path(given.get("out", f"runs/{Path(given['study']).stem}-folds"))
    splits = drawn(settings, count, out, base)
    for number, split in enumerate(splits, 1):
        folder = out / f"fold-{number}"
        done = any(folder.glob("*.safetensors"))
        print(f"fold {number} of {count}{' (there already)' if done else ''}", flush=True)
        if done:
            continue
        broken_off = (folder / "last.pt").is_file()
        status = train({"resume": str(folder)} if broken_off else base | {"split": str(split), "out": str(folder)})
        if status:  # stopped by a person
            return status
    pooled(out, [out / f"fold-{number}" for number in range(1, count + 1)], settings)
    return 0


def drawn(settings: Settings, count: int, out: Path, base: Given) -> list[Path]:
    """The splits of the folds, drawn once; other settings want another folder."""
    kept, text = out / "folds.json", to_json(base | {"folds": count}, indent=1, sort_keys=True)
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise TrainError(
            f"{out}: its folds were begun with other settings ({kept.name} in it); use those, or choose another "
            "--out"
        )
    splits = [out / f"split.{number}.csv" for number in range(1, count + 1)]
    if kept.is_file():
        return splits
    study, data = study_learned(settings), Path(settings.data)
    cases = find(data, study, settings.subject_regex, settings.label_column)
    balance = settings.balance or []
    check_balance(cases, balance)
    free = [replace(case, split=None) for case in cases]
    ways = ways_of(free, count, settings.seed, settings.val, balance, bool(study.target))
    out.mkdir(parents=True, exist_ok=True)
    for path, way in zip(splits, ways, strict=True):
        write_split(path, way, data_folder(data))
    write_bytes(kept, text.encode())
    return splits


def pooled(out: Path, runs: list[Path], settings: Settings) -> None:
    """The answers about everybody, each by the run that held them out, scored together."""
    found = [answers(run) for run in runs]
    header = found[0][0]
    together = Predictions(
        [file for _, part in found for file in part.files],
        [subject for _, part in found for subject in part.subjects],
        [label for _, part in found for label in part.labels],
        np.concatenate([part.logits for _, part in found]),
        np.empty((0, 0)),
        splits=["test"] * sum(len(part.files) for _, part in found),
    )
    name = data_folder(Path(settings.data)).resolve().name
    measured = {
        "cohort": f"“{name}”, {len(runs)} folds, each person held out once",
        **scores(together, header, settings.rounds, settings.seed),
    }
    header = replace(header, scores=measured)
    write_scores(out, header, together, data_folder(Path(settings.data)))
    said = f"# {header.study.title}: {len(runs)} folds\n\nMeasured on {measured['cohort']} "
    said += f"({measured['subjects']} subjects, {measured['cases']} scans).\n\n{scored(measured['metrics'])}\n"
    write_bytes(out / "folds.md", said.encode())
    for name, score in measured["metrics"].items():
        if "." not in name and score["value"] is not None:
            spread = f"  ({score['low']:.3f} to {score['high']:.3f})" if score["low"] is not None else ""
            print(f"{name:28} {score['value']:.3f}{spread}")
    print(f"wrote {out / 'folds.md'}")


def answers(run: Path) -> tuple[Header, Predictions]:
    """What a fold's network says of those it held out, its calibration done."""
    (path,) = run.glob("*.safetensors")
    header = model.read_header(path)
    rows: list[dict[str, Any]] = json.loads((run / "predictions.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["split"] == "test"]
    study = header.study
    if study.target:
        values = np.array([[row["prediction"]] for row in rows])
        study = replace(study, target=Target(study.target.unit))
    else:
        p = np.array([[row["probabilities"][code] for code in study.codes] for row in rows])
        values = np.log(np.maximum(p, 1e-300))
    files, subjects, labels = ([str(row[name]) for row in rows] for name in ("file", "subject", "label"))
    told = Predictions(files, subjects, labels, values, np.empty((0, 0)))
    return replace(header, study=study, calibration={}), told
