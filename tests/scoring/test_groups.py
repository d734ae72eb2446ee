"""Scores of groups of people: who is in which, and how few they are."""

import numpy as np
import pytest

from data.tables import DataError
from networks.header import Header
from scoring.card import group_lines
from scoring.groups import by
from scoring.predictions import Predictions
from tests.scored import STUDY

COUNT = 48


def told() -> Predictions:
    truth = np.arange(COUNT) % 3
    wrong = np.arange(COUNT) % 4 == 0  # these are the men
    logits = np.eye(3)[(truth + wrong) % 3] * 4
    names = [str(i) for i in range(COUNT)]
    groups = [{"sex": "M" if wrong[i] else "F", "age": f"{60 + i % 20}.5"} for i in range(COUNT)]
    groups[1] = {"age": "61"}
    labels = [STUDY.codes[k] for k in truth]
    return Predictions(names, names, labels, logits, np.empty((0, 0)), groups=groups)


def test_groups_are_scored_apart():
    found = by(told(), Header(STUDY, "X"), ["sex", "age"], 20, 0)
    assert {kind: group["subjects"] for kind, group in found["sex"].items()} == {"F": 35, "M": 12, "unknown": 1}
    assert found["sex"]["F"]["metrics"]["accuracy"]["value"] == 1.0
    assert found["sex"]["M"]["metrics"]["accuracy"]["value"] == 0.0
    assert found["sex"]["M"]["metrics"]["accuracy"]["high"] > 0.2  # Wilson's, of twelve people
    assert [group["few"] for group in found["sex"].values()] == [False, True, True]
    assert set(found["age"]) == {"60–69", "70–79"}
    said = group_lines(found)
    assert said[0].startswith("sex F: 35 subjects, accuracy 1.000 (0.9")
    assert "fewer than 20 people" in said[1] and "fewer" not in said[0]


def test_what_nobody_tells_cannot_be_asked_for():
    with pytest.raises(DataError, match="--by site: no case tells it; known are age, sex"):
        by(told(), Header(STUDY, "X"), ["sex", "site"], 5, 0)
