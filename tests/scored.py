"""A network whose answers are known beforehand, and a cohort for it to judge."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

import model
from data.splits import subject_hash
from networks.base import Network
from networks.header import Header
from studies import Contract, Label, Study

LABELS = (Label("AD", "ill", 1.0), Label("CN", "well", 0.0), Label("MCI", "between", 0.5))
STUDY = Study(
    "tiny",
    "Tiny volumes",
    "Which?",
    LABELS,
    Contract("volume", (4, 4, 4), spacing=(1.0, 1.0, 1.0), place="fill", scale="stored"),
    "Brightest",
    ("Brightest",),
    "Tests.",
)


class Brightest(Network):
    """Answers by the mean brightness, 1 to 3, which class it is."""

    def __init__(self, classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.register_buffer("levels", torch.arange(1.0, classes + 1))

    def base(self, x):
        return torch.stack([x.mean((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)  # (N, 2)

    def head(self, features):
        return -self.scale * (features[:, :1] - self.levels) ** 2  # (N, K)


def cohort(folder: Path, people: int, first: int = 0) -> Path:
    """`people` of each class with two scans each, brightness as the class says, one of each class misleading."""
    random = np.random.default_rng(0)
    for place, label in enumerate(STUDY.labels):
        for i in range(people):
            for scan in range(2):
                level = (place + 1 if i else (place + 1) % 3 + 1) + random.normal(0, 0.1)
                file = folder / label.code / f"sub-{first + people * place + i:03}_{scan}.nii"
                file.parent.mkdir(parents=True, exist_ok=True)
                values = np.full((4, 4, 4), level, np.float32) + random.normal(0, 0.01, (4, 4, 4))
                nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), file)
    return folder


def brightest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights file that learned from the subjects sub-000 and sub-001."""
    monkeypatch.setitem(model.NETWORKS, "Brightest", Brightest)
    seen = {"train": [subject_hash("sub-000")], "val": [subject_hash("sub-001")], "test": []}
    calibration = {
        "temperature": 2.0,
        "cohort": "nobody",
        "subjects": 19,
        "cases": 19,
        "scores": [i / 20 for i in range(19)],
    }
    training = {"data": "nothing", "subject_hashes": seen}
    header = Header(STUDY, "Brightest", title="Tiny", training=training, calibration=calibration)
    return model.save(folder / "tiny.Brightest.safetensors", Brightest(3), header)
