"""The command line that scores a weights file: known scores of a known network, and its refusals."""

import csv
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import evaluate
import model
from data.cases import find
from data.splits import write_split
from networks.header import Header
from studies import HEAD, STRUCTURES, STUDIES
from tests.scored import STUDY, brightest, cohort


@pytest.fixture
def weights(tmp_path, monkeypatch):
    return brightest(tmp_path, monkeypatch)


def run(weights: Path, data: Path, out: Path, *more: str) -> int:
    return evaluate.main(
        [
            str(weights),
            "--data",
            str(data),
            "--out",
            str(out),
            "--workers",
            "0",
            "--rounds",
            "30",
            "--cache",
            str(out.parent / "cache"),
            "--device",
            "cpu",
            *more,
        ]
    )


def test_outlined_weights_are_not_scored_with_another_segmenter(tmp_path, measuring_folder):
    study = replace(STUDIES["alzheimers"], contract=replace(HEAD, scale=STRUCTURES))
    header = Header(study, study.network, training={"segmenter": "0" * 64})
    weights = model.Weights("outlined", "", header, torch.nn.Identity(), torch.device("cpu"))
    options = Namespace(cache=tmp_path, cache_limit=1.0, workers=0, batch=1)
    with pytest.raises(model.WeightsError, match="learned with another segmenter"):
        evaluate.answers(weights, measuring_folder / "outlined.safetensors", [], options)


def test_scores_and_files_of_a_known_network(tmp_path, weights, capsys):
    data, out = cohort(tmp_path / "people", 4, first=10), tmp_path / "out"
    assert run(weights, data, out) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert (found["subjects"], found["cases"], found["cohort"]) == (12, 24, "“people”")
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["value"] == 0.75  # one person in four of each class misleads
    assert accuracy["low"] < 0.75 < accuracy["high"]
    assert found["confusion"] == [[6, 2, 0], [0, 6, 2], [2, 0, 6]]
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert rows[0]["file"] == "AD/sub-010_0.nii"
    assert set(rows[0]) == {"file", "subject", "split", "label", "prediction", "AD", "CN", "MCI"}
    assert sum(float(rows[0][code]) for code in STUDY.codes) == pytest.approx(1, abs=1e-5)
    assert sum(row["label"] == row["prediction"] for row in rows) == 18
    told = json.loads((out / "predictions.json").read_text())
    assert [(one["file"], one["label"], one["prediction"]) for one in told] == [
        (row["file"], row["label"], row["prediction"]) for row in rows
    ]
    assert told[0]["probabilities"]["CN"] == pytest.approx(float(rows[0]["CN"]), abs=1e-6)
    assert {file.name for file in out.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "predictions.json",
        "card.md",
        "checklist.md",
        "confusion.png",
        "roc.png",
        "reliability.png",
        "confusion.svg",
        "roc.svg",
        "reliability.svg",
    }
    assert "accuracy" in capsys.readouterr().out


def test_people_who_were_learned_from_are_refused(tmp_path, weights, capsys):
    data, out = cohort(tmp_path / "people", 2), tmp_path / "out"
    assert run(weights, data, out) == 1
    said = capsys.readouterr().err
    assert "2 of 6 subjects were learned from: sub-000, sub-001" in said
    assert not out.exists()
    table = tmp_path / "split.csv"
    cases = [
        replace(case, split="train" if case.subject in ("sub-000", "sub-001") else "test")
        for case in find(data, STUDY)
    ]
    write_split(table, cases, data)
    assert run(weights, data, out, "--split", str(table)) == 0
    assert json.loads((out / "metrics.json").read_text())["subjects"] == 4
    assert run(weights, data, tmp_path / "asked", "--split", str(table), "--part", "train") == 0
    assert "no score on new people" in (tmp_path / "asked" / "card.md").read_text()


def test_two_networks_on_the_same_people(tmp_path, weights, capsys):
    data, out = cohort(tmp_path / "people", 4, first=10), tmp_path / "out"
    assert run(weights, data, out, "--against", str(weights)) == 0
    found = json.loads((out / "comparison.json").read_text())
    assert found["mcnemar"] == {"only_one": 0, "only_other": 0, "p": 1.0}
    assert found["differences"]["accuracy"]["value"] == 0 and found["delong"]["AD"]["p"] == 1.0
    assert "(DeLong)" in capsys.readouterr().out
    assert run(weights, data, tmp_path / "by", "--by", "sex") == 1
    assert "--by sex: no case tells it; known are none" in capsys.readouterr().err


def test_only_the_test_folder_is_scored_where_there_is_one(tmp_path, weights):
    data = cohort(tmp_path / "people", 2)  # sub-000 and sub-001 among them
    cohort(data / "test", 2, first=20)
    assert run(weights, data, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["subjects"] == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--part", "val"), "no case in part val"),
        (("--device", "cuda:99"), "cuda:99"),
    ],
)
def test_refusals_in_words(tmp_path, weights, capsys, more, words):
    assert run(weights, cohort(tmp_path / "people", 1, first=10), tmp_path / "out", *more) == 1
    assert words in capsys.readouterr().err


def test_unreadable_scans_are_refused(tmp_path, weights, capsys):
    data = cohort(tmp_path / "people", 2, first=10)
    (data / "AD" / "sub-010_0.nii").write_bytes(b"no scan")
    assert run(weights, data, tmp_path / "out") == 1
    assert "1 of 12 files cannot be read" in capsys.readouterr().err
