"""Where a run's weights come from, for their header and card: data, subjects, settings, versions, predecessors."""

import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import model
from data.splits import data_folder, subject_hash
from learning.loop import Trainer, cases_of
from learning.settings import MOVABLE, TrainError, shown
from networks.header import Header

SPLITS = ("train", "val", "test")
ABOUT_LETTERS = 2000  # of the data's about.txt that a weights file keeps
NOT_OF_THE_METHOD = MOVABLE | {"out", "split", "command"}  # settings that change no weight


def header_of(run: Trainer) -> Header:
    """The header as far as it is known before any judging."""
    study, settings, state = run.study, run.settings, run.state
    counts = data_counts(run)
    data = data_in_words(counts, run.facts["duplicates"])
    hashes = {split: sorted(hashes_of(run, split)) for split in SPLITS}
    before = model.read_header(settings.init) if settings.init else None
    if before:
        hashes["train"] = learned_before(before, hashes, Path(settings.init or "").name)
    training = {
        "data": data,
        "counts": counts,
        "about": about(Path(settings.data)),
        "begun_with": {key: before.training.get(key) for key in ("command", "epochs", "commit")}
        if before
        else None,
        "subjects": {split: subjects_by_class(run, split) for split in SPLITS},
        "subject_hashes": hashes,
        "seed": settings.seed,
        "command": settings.command,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "settings": {
            name: shown(name, value) for name, value in asdict(settings).items() if name not in NOT_OF_THE_METHOD
        },
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "leaks_allowed": run.facts["leaks"],
        "started": run.facts["started"],
    }
    title = settings.title or f"{study.title}; learned from {data}"
    return Header(study, settings.network, settings.arguments, title, training)


def data_counts(run: Trainer) -> dict[str, Any]:
    return {
        "name": shown("data", run.settings.data),
        "scans": len(run.cases),
        "people": len({case.subject for case in run.cases}),
    }


def data_in_words(counts: dict[str, Any], duplicates: int) -> str:
    left_out = f" ({duplicates} more left out, identical to others)" if duplicates else ""
    return "“{name}”: {scans} scans of {people} subjects".format(**counts) + left_out


def about(data: Path) -> str | None:
    """What the data's own about.txt says of them."""
    file = data_folder(data) / "about.txt"
    return file.read_text(encoding="utf-8").strip()[:ABOUT_LETTERS] if file.is_file() else None


def subjects_by_class(run: Trainer, split: str) -> dict[str, int]:
    cases = cases_of(run.cases, split)
    return {code: len({case.subject for case in cases if case.label == code}) for code in run.study.codes}


def hashes_of(run: Trainer, split: str) -> set[str]:
    return {subject_hash(case.subject) for case in cases_of(run.cases, split)}


def learned_before(before: Header, hashes: dict[str, list[str]], name: str) -> list[str]:
    """The subjects of the training part and of the weights it began with: those too were learned from."""
    if before.learned_from & set(hashes["test"]):
        raise TrainError(
            f"--init {name}: it learned from subjects to be tested on here; use the same split for both"
        )
    return sorted((before.learned_from | set(hashes["train"])) - set(hashes["val"]))


def commit() -> str | None:
    """The commit of the code that trains, where it is a git checkout."""
    here = Path(__file__).resolve().parent.parent
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
