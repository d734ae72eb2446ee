"""Scores of a number: by their definitions, with intervals over people."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr

from networks.header import Header
from scoring import numbers
from scoring.predictions import Predictions
from scoring.scores import scores
from studies import Label, Target
from tests.scored import STUDY

AGE = replace(STUDY, key="tiny-age", labels=(Label("age", "age (years)"),), target=Target("years", 60.0, 8.0))


def test_measures_by_their_definitions():
    truth, values = np.array([60.0, 70.0, 80.0, 90.0]), np.array([62.0, 69.0, 84.0, 88.0])
    found = numbers.measure(truth, values, 3.0)
    assert found["mae"] == pytest.approx((2 + 1 + 4 + 2) / 4)
    assert found["rmse"] == pytest.approx(np.sqrt((4 + 1 + 16 + 4) / 4))
    assert found["bias"] == pytest.approx((2 - 1 + 4 - 2) / 4)
    assert found["r2"] == pytest.approx(1 - 25 / 500)
    assert found["pearson"] == pytest.approx(pearsonr(truth, values).statistic)
    assert (found["coverage"], found["interval_width"]) == (0.75, 6.0)
    alone = numbers.measure(truth[:1], values[:1], None)
    assert np.isnan(alone["r2"]) and np.isnan(alone["pearson"]) and "coverage" not in alone


def test_a_study_of_a_number_is_scored_in_its_unit():
    truth = np.linspace(50, 80, 16)
    names = [str(i) for i in range(16)]
    told = Predictions(
        names, names, [f"{age}" for age in truth], (truth[:, None] - 60) / 8 + 0.5, np.empty((0, 0))
    )
    header = Header(AGE, "X", calibration={"scores": [1.0] * 8 + [5.0] * 2})
    found = scores(told, header, 40, 0)
    assert found["metrics"]["mae"]["value"] == pytest.approx(4.0)  # half of a deviation of eight years
    assert found["metrics"]["interval_width"]["value"] == 10.0  # the tenth of ten residuals, both ways
    assert found["metrics"]["coverage"]["value"] == 1.0
    assert found["metrics"]["coverage"]["low"] == pytest.approx(16 / (16 + 3.8415), abs=1e-4)
    assert found["metrics"]["pearson"]["low"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="a study of classes"):
        numbers.scores(told, Header(STUDY, "X"), 1, 0)
