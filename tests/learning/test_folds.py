"""Training in folds: everybody held out once, pooled; the same command goes on; wrong words are refused."""

import csv
import json

import train
from tests.tiny_cohorts import VOLUME, arguments, cohort, weights_of


def test_everybody_is_held_out_once_and_the_scores_are_pooled(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "folds"
    asked = arguments(VOLUME, data, out, "--epochs", "1", "--folds", "3")
    assert train.main(asked) == 0
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert sorted(row["subject"] for row in rows) == [f"sub-{n:03}" for n in range(1, 19)]
    measured = json.loads((out / "metrics.json").read_text())
    assert measured["subjects"] == 18 and "3 folds, each person held out once" in measured["cohort"]
    right = sum(row["label"] == row["prediction"] for row in rows) / 18
    assert abs(measured["metrics"]["accuracy"]["value"] - right) < 1e-9
    assert "| Accuracy |" in (out / "folds.md").read_text() and "accuracy" in capsys.readouterr().out
    for number in (1, 2, 3):
        split = list(csv.DictReader((out / f"split.{number}.csv").read_text().splitlines()))
        held = {row["subject"] for row in split if row["split"] == "test"}
        own = json.loads((out / f"fold-{number}" / "predictions.json").read_text())
        assert {row["subject"] for row in own if row["split"] == "test"} == held
    kept = weights_of(out / "fold-2")
    before = kept.stat().st_mtime_ns
    for file in (out / "fold-3").iterdir():
        file.unlink()
    assert train.main(asked) == 0  # goes on where it stopped
    assert kept.stat().st_mtime_ns == before and weights_of(out / "fold-3").is_file()
    assert train.main([*asked[:-1], "2"]) == 1
    assert "its folds were begun with other settings" in capsys.readouterr().err


def test_folds_draw_their_own_splits(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME, each=2)
    assert train.main(arguments(VOLUME, data, tmp_path / "out", "--folds", "2", "--split", "s.csv")) == 1
    assert "leave --resume, --split and --sweep out" in capsys.readouterr().err
    assert train.main(arguments(VOLUME, data, tmp_path / "out", "--folds", "9")) == 1
    assert "9 folds of 6 undivided subjects" in capsys.readouterr().err
