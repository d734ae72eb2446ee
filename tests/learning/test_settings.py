"""A training run's settings: from command line, study and defaults; kept as plain data and read back."""

import math
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


def test_a_cut_grid_lies_about_the_middle_of_the_brain():
    study = studies.STUDIES["alzheimers"]
    smaller, made = on_grid(study, Settings(study.key, "data", network=study.network, crop=[90, 120, 92]))
    small = smaller.contract
    assert small.shape == (90, 120, 92) and made.arguments == {"shape": [90, 120, 92]}
    assert small.spacing == study.contract.spacing
    for axis in range(3):  # the middle of the small grid lies where the large one has the middle of the brain
        large = (BRAIN_MIDDLE_GRID_SHARE[axis] - study.contract.anchor[axis]) * study.contract.shape[axis]
        assert (0.5 - small.anchor[axis]) * small.shape[axis] == pytest.approx(large)
    slices = studies.STUDIES["brain-tumour"]
    with pytest.raises(TrainError, match="only heads have a middle to cut about; for this image use --shape"):
        on_grid(slices, Settings(slices.key, "data", network=slices.network, crop=[90, 120]))


def test_a_coarser_grid_covers_the_same_space():
    """The same point of the world lies at the same share of the grid, its voxels as much larger as fewer."""
    study = studies.STUDIES["alzheimers"]
    own = study.contract
    smaller, _ = on_grid(study, Settings(study.key, "data", network=study.network, shape=[83, 128, 64]))
    small = smaller.contract
    assert small.spacing == pytest.approx((2.4, 2.0, 4.0))
    for axis in range(3):
        before, after = (
            (grid.anchor[axis] * (grid.shape[axis] - 1) + 0.5) * grid.spacing[axis] for grid in (own, small)
        )
        assert after == pytest.approx(before)  # mm from the grid's edge to the head's middle
        assert small.shape[axis] * small.spacing[axis] == pytest.approx(own.shape[axis] * own.spacing[axis])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"shape": [90, 120]}, "--shape 90 120: give 3 numbers from 1 to 166, 256, 256"),
        ({"shape": [0, 9, 9]}, "--shape 0 9 9: give 3 numbers from 1 to"),
        ({"crop": [167, 9, 9]}, "--crop 167 9 9: give 3 numbers from 1 to"),
        ({"shape": [90, 120, 92], "crop": [90, 120, 92]}, "give one of them"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(asked, words):
    study = studies.STUDIES["alzheimers"]
    with pytest.raises(TrainError, match=words):
        on_grid(study, Settings(study.key, "data", network=study.network, **asked))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"batch": 0}, "--batch 0: give a number of at least 1"),
        ({"epochs": -3}, "--epochs -3: give a number of at least 1"),
        ({"cache_limit": 0.0}, "--cache-limit 0: give a number above 0"),
        ({"lr": math.nan}, "--lr nan: give a number of at least 0"),
        ({"decay": math.inf}, "--decay inf: give a number of at least 0"),
        ({"dropout": 1.0}, "--dropout 1: give a number from 0 to below 1"),
        ({"val": 0.5, "test": 0.5}, "leave nobody to learn from"),
        ({"select": "correlation"}, "--select correlation: covid-ct can be chosen by loss, accuracy, balanced"),
    ],
)
def test_numbers_that_nothing_can_begin_with_are_refused(asked, words):
    with pytest.raises(TrainError, match=words):
        settings.settle({"study": "covid-ct", "data": "d", **asked})


def test_what_older_runs_call_a_shape_is_a_piece(tmp_path):
    made = settings.settle({"study": "alzheimers", "data": "d", "crop": [90, 120, 92]})
    older = {name: value for name, value in asdict(made).items() if name != "crop"} | {"shape": [90, 120, 92]}
    assert settings.from_record(older) == made
