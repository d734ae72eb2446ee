"""Labelled scans that a tiny network learns in seconds, and the words that train on them."""

import csv
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import model
import studies
import train
from learning import losses
from networks.base import Network
from studies import Contract, Label, Study


class Tiny(Network):
    """A network of a few hundred weights, for volumes or images, with or without batch norm."""

    cam_layer = "body.2"

    def __init__(self, classes: int, dimensions: int = 3, norm: bool = False, dropout: float = 0.2):
        super().__init__()
        conv, batch, pool = (
            (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveMaxPool3d)
            if dimensions == 3
            else (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveMaxPool2d)
        )
        between = batch(4) if norm else nn.Identity()
        self.body = nn.Sequential(conv(1, 4, 3), between, nn.ReLU(), pool(2), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(4 * 2**dimensions, classes)

    def base(self, x):
        return self.body(x)

    def head(self, features):
        return self.dense(self.dropout(features))


LABELS = (Label("low", "little", 0.0), Label("mid", "some", 0.5), Label("high", "much", 1.0))
VOLUME = Study(
    "tiny-volume",
    "Tiny volumes",
    "Which?",
    LABELS,
    Contract("volume", (8, 8, 8), spacing=(4.0, 4.0, 4.0), place="fill", scale="stored"),
    "Tiny",
    ("Tiny", "ClassificationModel3D"),
    "Tests.",
    {"dimensions": 3},
    {"epochs": 2, "batch": 4, "lr": 0.01, "severity_weight": 1.0, "clip": 1.0},
)
IMAGE = replace(
    VOLUME,
    key="tiny-image",
    labels=tuple(replace(label, severity=None) for label in LABELS),
    contract=Contract("image", (12, 12), place="squeeze", scale="unit"),
    arguments={"dimensions": 2, "norm": True},
)
FULL = replace(
    studies.STUDIES["alzheimers"],
    key="small-alzheimers",
    arguments={"shape": [78, 78, 78]},
    contract=replace(VOLUME.contract, shape=(78, 78, 78)),
)
TINY = {study.key: study for study in (VOLUME, IMAGE, FULL)}


def picture(study: Study, level: float, random: np.random.Generator) -> np.ndarray:
    """A bright block in noise, the brighter the more severe."""
    shape = (10, 10, 10) if study.contract.kind == "volume" else (14, 14)
    values = random.uniform(1, 20, shape)
    values[tuple(slice(3, -3) for _ in shape)] += 40 + 160 * level
    return values / 100 if study.contract.kind == "volume" else values


def put(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 3:
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0])), file)
    else:
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file)
    return file


def cohort(folder: Path, study: Study, each: int = 6, layout: str = "folders", test: int = 0) -> Path:
    """`each` people of every class, in one of the published layouts; what to give as --data."""
    random, rows, number = np.random.default_rng(7), [], 0
    suffix = "_T1w.nii" if study.contract.kind == "volume" else ".png"
    for place, label in enumerate(study.labels):
        for i in range(each + test):
            number += 1
            name = f"sub-{number:03}"
            inside = {
                "folders": Path("test" if i >= each else "") / label.code / f"{name}{suffix}",
                "csv": Path("pictures") / f"{name}{suffix}",
                "bids": Path(name) / "anat" / f"{name}{suffix}",
            }[layout]
            put(folder / inside, picture(study, place / (len(study.labels) - 1), random))
            rows.append({"participant_id": name, "file": inside.as_posix(), "label": label.code, "subject": name})
    if layout == "folders":
        return folder
    names = ["participant_id", "label"] if layout == "bids" else ["file", "label", "subject"]
    table = folder / ("participants.tsv" if layout == "bids" else "cases.csv")
    with table.open("w", newline="") as out:
        writer = csv.DictWriter(out, names, delimiter="\t" if layout == "bids" else ",", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder if layout == "bids" else table


@contextmanager
def registered() -> Iterator[None]:
    """The tiny studies among the others."""
    with pytest.MonkeyPatch.context() as patch:
        for study in TINY.values():
            patch.setitem(studies.STUDIES, study.key, study)
        patch.setitem(model.NETWORKS, "Tiny", Tiny)
        yield


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    """For a folder of tests whose `conftest.py` takes it up."""
    with registered():
        yield


def arguments(study: Study, data: Path, out: Path, *more: str) -> list[str]:
    return [
        "--study",
        study.key,
        "--data",
        str(data),
        "--out",
        str(out),
        "--cache",
        str(out.parent / "cache"),
        "--workers",
        "0",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--rounds",
        "5",
        *more,
    ]


def weights_of(out: Path) -> Path:
    """The weights file that a run wrote."""
    (path,) = out.glob("*.safetensors")
    return path


def state(out: Path) -> dict:
    return torch.load(out / "last.pt", weights_only=True)["state"]


def same(one, other) -> bool:
    """Equal to the bit, through dicts and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


if __name__ == "__main__":  # the command that trains, with the tiny studies; it can kill itself at a given step
    # Under torchrun the second process does, the first time that it is started.
    among_many = os.environ.get("RANK", "1"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if "KILL_AT" in os.environ and among_many == ("1", "0"):
        left, before = [int(os.environ["KILL_AT"])], losses.Loss.__call__

        def kill(self, logits, targets):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(self, logits, targets)

        losses.Loss.__call__ = kill
    with registered():
        sys.exit(train.main())
