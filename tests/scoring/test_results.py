"""The files beside a scored weights file: one row a case, by names that hold nobody's folders."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from networks.header import Header
from scoring import results
from scoring.predictions import Predictions
from scoring.scores import scores
from tests.scored import STUDY


def test_every_case_has_its_row_with_cooled_probabilities(tmp_path):
    files = [str(tmp_path / "data" / "AD" / "a.nii"), str(tmp_path / "data" / "CN" / "b.nii"), "/elsewhere/c.nii"]
    logits = np.log(np.array([[0.64, 0.04, 0.04], [0.01, 0.81, 0.01], [0.25, 0.36, 0.04]]))
    told = Predictions(files, ["a", "b", "c"], ["AD", "CN", "MCI"], logits, np.zeros((3, 1)), splits=["test"] * 3)
    calibration = {"temperature": 2.0, "scores": [0.5] * 19, "subjects": 19, "cases": 19, "cohort": "nobody"}
    header = Header(STUDY, "Brightest", calibration=calibration)
    header = replace(header, scores=scores(told, header, rounds=10) | {"cohort": "nobody"})
    learned = replace(told.take([0]), subjects=["d"], splits=["train"])
    results.write(tmp_path / "out", header, told, tmp_path / "data", [learned])
    rows = list(csv.reader((tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["file", "subject", "split", "label", "prediction", "AD", "CN", "MCI"]
    assert rows[1] == ["AD/a.nii", "a", "test", "AD", "AD", "0.666667", "0.166667", "0.166667"]  # of .8, .2, .2
    assert rows[3][:5] == ["/elsewhere/c.nii", "c", "test", "MCI", "CN"]
    assert rows[4][1:4] == ["d", "train", "AD"]  # listed beside, and not scored
    first = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))[0]
    assert first["file"] == "AD/a.nii" and first["probabilities"]["AD"] == pytest.approx(2 / 3)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{name}.{kind}" for name in ("confusion", "roc", "reliability") for kind in ("png", "svg")}
    assert names == plots | {"card.md", "checklist.md", "metrics.json", "predictions.csv", "predictions.json"}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["cases"] == 3


def test_without_test_cases_there_is_the_card_alone(tmp_path):
    nobody = Predictions([], [], [], np.empty((0, 3)), np.empty((0, 1)))
    results.write(tmp_path, Header(STUDY, "Brightest"), nobody, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.md", "checklist.md"]
