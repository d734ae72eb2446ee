"""The settings of a training run: their defaults, what study and command line make of them, how they are shown."""

import shlex
from dataclasses import replace
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any

import model
import studies
from learning.loop import TrainError
from studies import Study

# What holds where neither the command line nor the study's own `training` says otherwise.
DEFAULTS: dict[str, Any] = {
    "out": None, "epochs": 20, "lr": 1e-3, "batch": 8, "accumulate": 1, "patience": 0, "workers": 2, "seed": 0,
    "schedule": "cosine", "optimiser": "adamw", "decay": 1e-2, "momentum": 0.9, "severity_weight": 0.0,
    "ends_first": 0, "dropout": None, "class_weights": False, "clip": 0.0, "augment": "full", "precision": None,
    "device": "auto", "split": None, "val": 0.15, "test": 0.2, "subject_regex": None, "label_column": None,
    "cache": None, "cache_limit": 64.0, "allow_leak": False, "network": None, "title": None, "threads": 0,
    "example": None, "rounds": 1000, "init": None, "freeze": False, "shape": None,
    "start": None, "start_optional": False, "deduplicate": False,
}  # fmt: skip
BRAIN = (0.5, 0.475, 0.54)  # of the full grid: what a smaller one is cut about
MOVABLE = {"data", "device", "workers", "threads", "cache", "cache_limit", "title", "example", "rounds"}
PATHS = {"data", "out", "split", "cache", "example", "init", "start"}  # in the weights file without folders


def settle(given: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a new run: the command line, else the study's own, else DEFAULTS."""
    study = studies.STUDIES[given["study"]]
    settings = DEFAULTS | study.training | given
    settings["network"] = settings["network"] or study.network
    if settings["network"] not in study.networks:
        raise TrainError(f"--network {settings['network']}: {study.key} has {', '.join(study.networks)}")
    settings["arguments"] = dict(study.arguments)
    if settings["dropout"] is not None:
        settings["arguments"]["dropout"] = settings["dropout"]
    settings["out"] = settings["out"] or f"runs/{study.key}-{datetime.now():%Y%m%d-%H%M%S}"
    settings["cache"] = settings["cache"] or str(Path(".cache") / "prepared")
    return settings | {"command": command(given)}


def shaped(study: Study, settings: dict[str, Any]) -> Study:
    """The study on the grid that was asked for: its own, or a smaller one about the same place."""
    shape = settings["shape"]
    if not shape:
        return study
    own = study.contract.shape
    if len(shape) != len(own) or any(n > m for n, m in zip(shape, own, strict=True)):
        raise TrainError(
            f"--shape {' '.join(map(str, shape))}: give {len(own)} numbers of at most {' '.join(map(str, own))}"
        )
    middle = study.contract.anchor
    if middle:  # the middle of the smaller grid is where the larger one has the middle of the brain
        middle = tuple(0.5 + (a - b) * m / n for a, b, m, n in zip(middle, BRAIN, own, shape, strict=True))
    if "shape" in signature(model.NETWORKS[settings["network"]]).parameters:
        settings["arguments"] = settings["arguments"] | {"shape": list(shape)}
    return replace(study, contract=replace(study.contract, shape=tuple(shape), anchor=middle))


def command(given: dict[str, Any]) -> str:
    """The command line again, paths without their folders: it goes into a file that others will read."""
    words = ["python", "train.py"]
    for key, value in given.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(shown(key, value))]
    return shlex.join(words)


def shown(key: str, value: Any) -> Any:
    """A setting as others may read it: of a path the name alone."""
    return Path(value).resolve().name if key in PATHS and value else value
