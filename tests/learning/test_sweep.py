"""A sweep trains each combination once, goes on where it stopped, and tables what each run logged."""

import csv
import json
import signal

import pytest
from PIL import Image

import train
from learning import loop, sweep
from tests.tiny_cohorts import IMAGE, arguments, cohort


def rows(out):
    return list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))


def sweeping(data, out, *words):
    return arguments(IMAGE, data, out, "--epochs", "1", "--sweep", *words)


def test_every_combination_is_trained_once_and_tabled(tmp_path, capsys, monkeypatch):
    data, out = cohort(tmp_path / "data", IMAGE), tmp_path / "sweep"
    assert train.main(sweeping(data, out, "lr=0.01,0.001", "batch=4,8")) == 0
    found = rows(out)
    assert [(row["lr"], row["batch"]) for row in found] == [
        ("0.01", "4"),
        ("0.01", "8"),
        ("0.001", "4"),
        ("0.001", "8"),
    ]
    for row in found:
        folder = out / f"lr={row['lr']},batch={row['batch']}"
        log = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
        assert row["val_loss"] == log[0]["val_loss"] and row["epochs"] == "1" and row["state"] == "done"
        settings = json.loads((folder / "losses.json").read_text())["settings"]
        assert (settings["lr"], settings["batch"]) == (float(row["lr"]), int(row["batch"]))
    assert len({(out / f"lr={row['lr']},batch={row['batch']}" / "split.csv").read_text() for row in found}) == 1
    best = min(found, key=lambda row: float(row["val_loss"]))
    assert f"with lr={best['lr']}, batch={best['batch']}" in capsys.readouterr().out
    with Image.open(out / "sweep.png") as drawn:
        assert drawn.size[0] > 500
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    monkeypatch.setattr(train, "train", lambda given: pytest.fail("a finished run was run again"))
    assert train.main(sweeping(data, out, "lr=0.01,0.001", "batch=4,8")) == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")} == before


def test_a_stopped_sweep_goes_on_and_a_failed_run_is_named(tmp_path, monkeypatch, capsys):
    data, out = cohort(tmp_path / "data", IMAGE), tmp_path / "sweep"
    words = ("lr=0.01,1e30", "optimiser=sgd", "schedule=constant")
    fitted, calls = loop.Trainer.fit, []

    def pressed(self, halt):
        calls.append(self.out.name)
        if len(calls) == 2:
            halt.note(signal.SIGTERM, None)
        fitted(self, halt)

    monkeypatch.setattr(loop.Trainer, "fit", pressed)
    assert train.main(sweeping(data, out, *words)) == 128 + signal.SIGTERM
    assert len(rows(out)) == 1
    assert train.main(sweeping(data, out, *words)) == 1
    assert [name.partition(",")[0] for name in calls] == ["lr=0.01", "lr=1e30", "lr=1e30"]
    good, bad = rows(out)
    assert good["state"] == "done" and "use a smaller --lr" in bad["state"] and bad["val_loss"] == ""
    assert "use a smaller --lr" in capsys.readouterr().err


def test_other_settings_want_another_folder(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", IMAGE), tmp_path / "sweep"
    assert train.main(sweeping(data, out, "lr=0.01")) == 0
    assert train.main([*sweeping(data, out, "lr=0.01"), "--seed", "5"]) == 1
    assert "begun with other settings" in capsys.readouterr().err
    assert train.main(sweeping(data, out, "lr=0.01,0.02")) == 0  # more of the same is welcome
    assert len(rows(out)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr"], "give settings and values such as"),
        (["lr=0.1,"], "give settings and values such as"),
        (["data=a,b"], "data is the same for all runs"),
        (["lr=1", "lr=2"], "nothing may stand twice"),
        (["lr=1,1"], "nothing may stand twice"),
        (["init=../x"], "give settings and values such as"),
    ],
)
def test_a_wrong_sweep_is_said_in_words(tmp_path, capsys, words, said):
    assert train.main(sweeping(tmp_path, tmp_path / "sweep", *words)) == 1
    assert said in capsys.readouterr().err


def test_a_setting_that_train_does_not_know_ends_before_any_training(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(sweeping(tmp_path, tmp_path / "sweep", "lr=0.1", "colour=red"))
    assert "--colour" in capsys.readouterr().err


def test_a_row_of_panels_an_architecture(tmp_path):
    made = [
        {"network": network, "lr": lr, "batch": batch, "val_loss": "0.5"}
        for network in ("one", "two")
        for lr in ("0.1", "0.01")
        for batch in ("4", "8")
    ]
    tall, low = (sweep.drawing(chosen, ["network", "lr", "batch"]) for chosen in (made, made[:4]))
    sizes = []
    for drawn in (tall, low):
        (tmp_path / "x.png").write_bytes(drawn)
        with Image.open(tmp_path / "x.png") as image:
            sizes.append(image.size)
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] > 1.7 * sizes[1][1]
