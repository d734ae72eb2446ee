"""A training run's settings: from command line, study and defaults; kept as plain data and read back."""

from dataclasses import asdict, replace

import pytest
import torch

import studies
from learning import settings
from learning.settings import BRAIN_MIDDLE_GRID_SHARE, Settings, TrainError, on_grid


@pytest.mark.parametrize("key", studies.STUDIES)
def test_the_command_line_comes_before_the_study_and_the_study_before_the_defaults(key):
    study = studies.STUDIES[key]
    made = settings.settle({"study": key, "data": "d", "epochs": 999})
    assert made.epochs == 999 and made.network == study.network and made.arguments == study.arguments
    for name, value in study.training.items():
        assert name == "epochs" or getattr(made, name) == value
    assert made.batch == study.training.get("batch", Settings.batch) and made.val == 0.15
    assert made.command == f"python train.py --study {key} --data d --epochs 999"


def test_a_study_that_misspells_a_setting_is_refused_by_name(monkeypatch):
    study = replace(studies.STUDIES["alzheimers"], training={"epoch": 3, "out": "x"})
    monkeypatch.setitem(studies.STUDIES, "alzheimers", study)
    with pytest.raises(TrainError, match="study alzheimers: no setting is named epoch, out"):
        settings.settle({"study": "alzheimers", "data": "d"})


def test_a_checkpoint_keeps_plain_data_and_older_ones_still_open(tmp_path):
    made = settings.settle({"study": "covid-ct", "data": "d", "shape": [64, 64], "dropout": 0.1})
    torch.save(asdict(made), tmp_path / "last.pt")
    kept = torch.load(tmp_path / "last.pt", weights_only=True)
    assert settings.from_record(kept) == made
    older = {name: value for name, value in kept.items() if name != "deduplicate"} | {"precision": None}
    assert settings.from_record(older) == made
    with pytest.raises(TrainError, match=r"another version.*mood, unknown here"):
        settings.from_record(kept | {"mood": 3})


def test_a_smaller_grid_lies_about_the_middle_of_the_brain():
    study = studies.STUDIES["alzheimers"]
    smaller, made = on_grid(study, Settings(study.key, "data", network=study.network, shape=[90, 120, 92]))
    small = smaller.contract
    assert small.shape == (90, 120, 92) and made.arguments == {"shape": [90, 120, 92]}
    for axis in range(3):  # the middle of the small grid lies where the large one has the middle of the brain
        large = (BRAIN_MIDDLE_GRID_SHARE[axis] - study.contract.anchor[axis]) * study.contract.shape[axis]
        assert (0.5 - small.anchor[axis]) * small.shape[axis] == pytest.approx(large)
    with pytest.raises(TrainError, match="give 3 numbers of at most 166 256 256"):
        on_grid(study, Settings(study.key, "data", network=study.network, shape=[90, 120]))
