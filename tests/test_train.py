"""The command that trains: every layout of labelled scans from end to end, and what cannot be done said first."""

import csv
import json

import pytest
from PIL import Image

import model
import train
from tests.tiny_cohorts import (
    FULL,
    IMAGE,
    VOLUME,
    arguments,
    cohort,
    registered,
    state,
    weights_of,
)


@pytest.fixture(autouse=True)
def tiny():
    with registered():
        yield


@pytest.mark.parametrize("layout", ["folders", "csv", "bids"])
@pytest.mark.parametrize("study", [VOLUME, IMAGE], ids=lambda study: study.key)
def test_each_layout_trains_end_to_end(tmp_path, study, layout):
    data, out = cohort(tmp_path / "data", study, layout=layout), tmp_path / "run"
    assert train.main(arguments(study, data, out)) == 0
    weights = model.load(weights_of(out), "cpu")
    header = weights.header
    assert {name: sum(counts.values()) for name, counts in header.training["subjects"].items()} == {
        "train": 12,
        "val": 3,
        "test": 3,
    }
    assert len(header.training["subject_hashes"]["train"]) == 12
    assert header.scores["subjects"] == 3
    assert len(header.conformal_scores) == 3
    assert set(weights.extras) == {"features.mean", "features.precision", "likeness.sketch"}
    assert str(tmp_path) not in json.dumps(header.record())  # nobody's folders go into a file for others
    assert "## Limits" in header.card and study.use in header.card
    log = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in log] == ["1", "2"]
    assert ("val_correlation" in log[0]) == study.ordered
    for name in ("curves.png", "confusion.png", "roc.png", "reliability.png"):
        with Image.open(out / name) as drawn:
            assert drawn.size[0] > 100
    assert not list(out.glob("*.part"))


def test_the_published_network_trains_with_a_test_folder_beside(tmp_path):
    data, out = cohort(tmp_path / "data", FULL, each=3, test=1), tmp_path / "run"
    assert train.main(arguments(FULL, data, out, "--epochs", "1", "--precision", "bf16", "--accumulate", "2")) == 0
    header = model.read_header(weights_of(out))
    assert sum(header.training["subjects"]["test"].values()) == 5
    assert header.title.startswith("Alzheimer's stages")


def test_it_learns_what_can_be_seen(tmp_path):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    more = ("--epochs", "8", "--lr", "0.05", "--augment", "none", "--dropout", "0")
    assert train.main(arguments(VOLUME, data, out, *more)) == 0
    history = state(out)["history"]
    assert history[-1]["train_loss"] < 0.75 * history[0]["train_loss"]
    assert history[-1]["val_correlation"] > 0.9


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--network", "resnet18"), "tiny-volume has Tiny, ClassificationModel3D"),
        (("--precision", "amp"), "amp needs CUDA"),
        (("--network", "ClassificationModel3D"), "ClassificationModel3D does not take"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--val", "0"), "no case for val"),
        (("--batch", "0"), "--batch 0: give a number of at least 1"),
        (("--shape", "2", "2", "2"), "--shape: Tiny cannot look at 2×2×2"),
        (("--balance", "sex"), "no case has sex; known are none"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(tmp_path, capsys, more, words):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", *more)) == 1
    assert words in capsys.readouterr().err


def test_a_grid_too_small_is_refused_before_anything_is_read(tmp_path, capsys):
    data = cohort(tmp_path / "data", FULL, each=1)
    assert train.main(arguments(FULL, data, tmp_path / "run", "--shape", "60", "60", "60")) == 1
    said = capsys.readouterr().err
    assert "--shape: ClassificationModel3D cannot look at 60×60×60" in said and "give a larger grid" in said
    assert not list((tmp_path / "cache").iterdir()) and not (tmp_path / "run").exists()


def test_no_bars_go_into_pipes(tmp_path, capfd):
    data = cohort(tmp_path / "data", IMAGE)
    assert train.main(arguments(IMAGE, data, tmp_path / "run", "--epochs", "1")) == 0
    told = capfd.readouterr()
    assert "\r" not in told.out + told.err and "|" not in told.err


def test_the_command_line_wants_a_study_or_a_run(capsys):
    for argv, words in (
        (["--data", "x"], "give --study and --data"),
        (["--study", "alzheimers", "--data", "x", "--finish"], "give --resume FOLDER too"),
    ):
        with pytest.raises(SystemExit):
            train.main(argv)
        assert words in capsys.readouterr().err


def test_shards_teach_what_the_cache_teaches(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--epochs", "2", "--workers", "2", "--seed", "3")
    assert train.main(arguments(VOLUME, data, tmp_path / "cached", *more)) == 0
    cached = {path.name for path in (tmp_path / "cache").iterdir()}
    packed = (*more, "--shards", str(tmp_path / "shards"))
    assert train.main(arguments(VOLUME, data, tmp_path / "packed", *packed)) == 0
    assert {path.name for path in (tmp_path / "cache").iterdir()} == cached  # nothing more
    losses = [[row["train_loss"] for row in state(tmp_path / run)["history"]] for run in ("cached", "packed")]
    assert losses[0] == losses[1]
