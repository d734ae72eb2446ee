"""`Settings`: every setting of a training run with its default, and what study and command line make of them."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any

import model
import studies
from data.study_file import pairs, study_of
from networks.base import Network
from studies import Contract, Study

BRAIN_MIDDLE_GRID_SHARE = (0.5, 0.475, 0.54)  # of the full head grid: what a smaller one is cut about
MOVABLE = {"data", "device", "workers", "threads", "cache", "cache_limit", "shards", "title", "example", "rounds"}
EXTENDABLE = {"epochs", "patience"}  # what a run that is taken up again may have more of
SELECT = ("loss", "accuracy", "balanced_accuracy", "roc_auc", "correlation", "mae", "r2")
# least, most, and whether the most itself is allowed
LIMITS: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(("epochs", "batch", "accumulate"), (1, math.inf, True)),
    **dict.fromkeys(("patience", "workers", "threads", "seed", "rounds", "ends_first"), (0, math.inf, True)),
    "cache_limit": (1e-12, math.inf, False),
    **dict.fromkeys(("lr", "decay", "clip", "severity_weight"), (0, math.inf, False)),
    **dict.fromkeys(("val", "test", "momentum", "dropout"), (0, 1, False)),
}
PATHS = {
    "study",
    "data",
    "out",
    "resume",
    "split",
    "cache",
    "shards",
    "example",
    "init",
    "start",
}  # in the weights file without folders

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
    record: dict[str, Any] = field(default_factory=dict)  # of the study as it was asked for
    # the data
    classes: str | None = None
    map: str | None = None
    target: str | None = None
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
    crop: list[int] | None = None
    balance: list[str] | None = None
    # the fitting
    epochs: int = 20
    lr: float = 1e-3
    batch: int = 8
    accumulate: int = 1
    patience: int = 0
    select: str = "loss"
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
    shards: str | None = None
    # what is written
    out: str = ""  # "" until a folder is chosen
    title: str | None = None
    example: str | None = None
    rounds: int = 1000


NAMES = {one.name for one in fields(Settings)}
# What a study cannot decide: the names that a run or its command line fills in.
OF_A_RUN = {"study", "data", "out", "command", "network", "arguments", "classes", "map", "target", "record"}


def settle(given: Given) -> Settings:
    """Every setting of a new run: the command line, else the study's own, else the default."""
    study = asked_study(given)
    unknown = sorted(set(study.training) - (NAMES - OF_A_RUN))
    if unknown:
        raise TrainError(f"study {study.key}: no setting is named {', '.join(unknown)}; see learning/settings.py")
    settings = Settings(**(study.training | given), command=command(given))
    check_limits(settings)
    known = selectable(study)
    if settings.select not in known:
        raise TrainError(f"--select {settings.select}: {study.key} can be chosen by {', '.join(known)}")
    network = settings.network or study.network
    if ":" in network:  # a person's own, whose code a command line may ask for
        model.allow_network(network)
        study = replace(study, networks=tuple(dict.fromkeys((*study.networks, network))))
    elif network not in study.networks:
        raise TrainError(f"--network {network}: {study.key} has {', '.join(study.networks)}")
    chosen = model.network_class(network, f"--network {network}")
    if "freeze" not in given and chosen.stem is Network.stem:  # a study says it of networks that have such a part
        settings = replace(settings, freeze=False)
    dropout = {} if settings.dropout is None else {"dropout": settings.dropout}
    out = settings.out or f"runs/{study.key}-{datetime.now():%Y%m%d-%H%M%S}"
    of_study = network == study.network or ":" not in network  # another's own knows nothing of them
    arguments = (study.arguments if of_study else {}) | dropout
    return replace(settings, network=network, arguments=arguments, out=out, record=studies.to_record(study))


def asked_study(given: Given) -> Study:
    """The study that a command line names, with the classes or the number that it asks for."""
    classes, mapping = given.get("classes"), given.get("map")
    return study_of(
        given["study"],
        [code.strip() for code in classes.split(",")] if classes else None,
        pairs(mapping) if mapping else None,
        given.get("target"),
    )


def study_learned(settings: Settings) -> Study:
    """The study of a run: as it was asked for; of old runs, as its name says."""
    return studies.from_record(settings.record) if settings.record else studies.STUDIES[settings.study]


def selectable(study: Study) -> list[str]:
    """What the epoch to keep can be chosen by."""
    if study.target:
        return ["loss", "mae", "r2", "correlation"]
    return ["loss", "accuracy", "balanced_accuracy", "roc_auc", *["correlation"] * study.ordered]


def check_limits(settings: Settings) -> None:
    """Refuse numbers that no training can begin with, before anything is prepared."""
    for name, (least, most, allowed) in LIMITS.items():
        value = getattr(settings, name)
        flag = "--" + name.replace("_", "-")
        if value is not None and not (least <= value < most or (allowed and value == most)):
            bounds = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to below {most:g}"
            bounds = "above 0" if name == "cache_limit" else bounds
            raise TrainError(f"{flag} {value:g}: give a number {bounds}")
    if settings.val + settings.test >= 1:
        raise TrainError(f"--val {settings.val:g} and --test {settings.test:g} leave nobody to learn from")


def from_record(record: Mapping[str, Any]) -> Settings:
    """The settings that a checkpoint keeps as plain data; what older ones leave open has its default."""
    unknown = sorted(set(record) - NAMES)
    if unknown:
        raise TrainError(
            f"the run was made by another version: it has the settings {', '.join(unknown)}, unknown here; go on "
            "with the version that began it"
        )
    given = {name: value for name, value in record.items() if value is not None}
    if "crop" not in record and "shape" in given and studies.STUDIES[given["study"]].contract.anchor:
        given["crop"] = given.pop("shape")  # what runs of old call the shape
    return Settings(**given)


def on_grid(study: Study, settings: Settings) -> tuple[Study, Settings]:
    """Both on the grid that was asked for: the study's own, a coarser one, or a piece about its middle."""
    if settings.scale:
        if study.contract.kind != "volume" or study.contract.place != "head":
            raise TrainError(f"--scale {settings.scale}: {study.key} does not place heads; leave it out")
        study = replace(study, contract=replace(study.contract, scale=settings.scale))
    asked = [name for name in ("shape", "crop") if getattr(settings, name)]
    if not asked:
        return study, settings
    if len(asked) > 1:
        raise TrainError("--shape and --crop: one makes the grid coarser, the other cuts it; give one of them")
    flag, shape, own = f"--{asked[0]}", getattr(settings, asked[0]), study.contract.shape
    if len(shape) != len(own) or any(not 1 <= n <= m for n, m in zip(shape, own, strict=True)):
        raise TrainError(
            f"{flag} {' '.join(map(str, shape))}: give {len(own)} numbers from 1 to {', '.join(map(str, own))}"
        )
    if "shape" in signature(model.network_class(settings.network)).parameters:
        settings = replace(settings, arguments=settings.arguments | {"shape": list(shape)})
    smaller = (cropped if settings.crop else coarser)(study.contract, tuple(shape))
    return replace(study, contract=smaller), settings


def coarser(contract: Contract, shape: tuple[int, ...]) -> Contract:
    """The same space in fewer, larger voxels, its edges where they were."""
    if not contract.spacing:
        return replace(contract, shape=shape)
    sizes = list(zip(contract.shape, shape, strict=True))
    spacing = tuple(mm * own / new for mm, (own, new) in zip(contract.spacing, sizes, strict=True))
    # `prepare` counts the anchor from the middle of the first voxel to that of the last
    anchor = (
        tuple(
            (at * (own - 1) / own + 0.5 / own - 0.5 / new) * new / (new - 1) if new > 1 else 0.5
            for at, (own, new) in zip(contract.anchor, sizes, strict=True)
        )
        if contract.anchor
        else ()
    )
    planes = contract.planes and max(1, round(contract.planes * shape[0] / contract.shape[0]))
    return replace(contract, shape=shape, spacing=spacing, anchor=anchor, planes=planes)


def cropped(contract: Contract, shape: tuple[int, ...]) -> Contract:
    """A piece of the grid with its own voxels, whose middle is the middle of the brain."""
    if contract.place != "head":
        raise TrainError(f"--crop: only heads have a middle to cut about; for this {contract.kind} use --shape")
    sizes = zip(contract.anchor, BRAIN_MIDDLE_GRID_SHARE, contract.shape, shape, strict=True)
    return replace(contract, shape=shape, anchor=tuple(0.5 + (a - b) * m / n for a, b, m, n in sizes))


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
