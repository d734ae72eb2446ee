"""`Settings`: every setting of a training run with its default, and what study and command line make of them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any

import model
import studies
from studies import Study

BRAIN_MIDDLE_GRID_SHARE = (0.5, 0.475, 0.54)  # of the full head grid: what a smaller one is cut about
MOVABLE = {"data", "device", "workers", "threads", "cache", "cache_limit", "title", "example", "rounds"}
PATHS = {"data", "out", "split", "cache", "example", "init", "start"}  # in the weights file without folders

Given = dict[str, Any]  # what a command line says, by setting, and only that


class TrainError(Exception):
    """Training cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """A default holds where neither the command line nor the study's own `training` says otherwise."""

    study: str
    data: str
    command: str = ""  # the command line again, for the card
    network: str = ""  # "" until the study's own is filled in
    arguments: dict[str, Any] = field(default_factory=dict)  # of the network
    # the data
    split: str | None = None
    val: float = 0.15
    test: float = 0.2
    subject_regex: str | None = None
    label_column: str | None = None
    deduplicate: bool = False
    allow_leak: bool = False
    augment: str = "full"
    shape: list[int] | None = None
    scale: str | None = None  # of the contract; the study's own
    # the fitting
    epochs: int = 20
    lr: float = 1e-3
    batch: int = 8
    accumulate: int = 1
    patience: int = 0
    seed: int = 0
    schedule: str = "cosine"
    optimiser: str = "adamw"
    decay: float = 1e-2
    momentum: float = 0.9
    clip: float = 0.0
    severity_weight: float = 0.0
    ends_first: int = 0
    dropout: float | None = None
    class_weights: bool = False
    precision: str | None = None
    init: str | None = None
    start: str | None = None
    start_optional: bool = False
    freeze: bool = False
    # the machine
    device: str = "auto"
    workers: int = 2
    threads: int = 0
    cache: str = ".cache/prepared"
    cache_limit: float = 64.0
    # what is written
    out: str = ""  # "" until a folder is chosen
    title: str | None = None
    example: str | None = None
    rounds: int = 1000


NAMES = {one.name for one in fields(Settings)}
# What a study cannot decide: the names that a run or its command line fills in.
OF_A_RUN = {"study", "data", "out", "command", "network", "arguments"}


def settle(given: Given) -> Settings:
    """Every setting of a new run: the command line, else the study's own, else the default."""
    study = studies.STUDIES[given["study"]]
    unknown = sorted(set(study.training) - (NAMES - OF_A_RUN))
    if unknown:
        raise TrainError(f"study {study.key}: no setting is named {', '.join(unknown)}; see learning/settings.py")
    settings = Settings(**(study.training | given), command=command(given))
    network = settings.network or study.network
    if network not in study.networks:
        raise TrainError(f"--network {network}: {study.key} has {', '.join(study.networks)}")
    dropout = {} if settings.dropout is None else {"dropout": settings.dropout}
    out = settings.out or f"runs/{study.key}-{datetime.now():%Y%m%d-%H%M%S}"
    return replace(settings, network=network, arguments=study.arguments | dropout, out=out)


def from_record(record: Mapping[str, Any]) -> Settings:
    """The settings that a checkpoint keeps as plain data; what older ones leave open has its default."""
    unknown = sorted(set(record) - NAMES)
    if unknown:
        raise TrainError(
            f"the run was made by another version: it has the settings {', '.join(unknown)}, unknown here; go on "
            "with the version that began it"
        )
    return Settings(**{name: value for name, value in record.items() if value is not None})


def on_grid(study: Study, settings: Settings) -> tuple[Study, Settings]:
    """Both on the grid that was asked for: the study's own, or a smaller one about the same place."""
    if settings.scale:
        if study.contract.kind != "volume" or study.contract.place != "head":
            raise TrainError(f"--scale {settings.scale}: {study.key} does not place heads; leave it out")
        study = replace(study, contract=replace(study.contract, scale=settings.scale))
    shape = settings.shape
    if not shape:
        return study, settings
    own = study.contract.shape
    if len(shape) != len(own) or any(n > m for n, m in zip(shape, own, strict=True)):
        raise TrainError(
            f"--shape {' '.join(map(str, shape))}: give {len(own)} numbers of at most {' '.join(map(str, own))}"
        )
    anchor = study.contract.anchor
    if anchor:  # the middle of the smaller grid is where the larger one has the middle of the brain
        sizes = zip(anchor, BRAIN_MIDDLE_GRID_SHARE, own, shape, strict=True)
        anchor = tuple(0.5 + (a - b) * m / n for a, b, m, n in sizes)
    if "shape" in signature(model.NETWORKS[settings.network]).parameters:
        settings = replace(settings, arguments=settings.arguments | {"shape": list(shape)})
    return replace(study, contract=replace(study.contract, shape=tuple(shape), anchor=anchor)), settings


def command(given: Given) -> str:
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
