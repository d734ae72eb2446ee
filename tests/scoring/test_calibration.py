"""What is fitted on validation subjects: temperature, prediction sets, likeness, the worked example."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

import model
from networks.header import Header
from scoring.calibration import example, fit_calibration, fit_likeness, precision
from scoring.predictions import Predictions
from scoring.scores import scores
from studies import Contract
from tests.scored import LABELS, STUDY, brightest, cohort


@pytest.fixture
def weights(tmp_path, monkeypatch):
    return brightest(tmp_path, monkeypatch)


def test_the_temperature_undoes_a_known_overconfidence():
    random = np.random.default_rng(3)
    logits = random.normal(0, 1.5, (4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (p.cumsum(1) > random.random((4000, 1))).argmax(1)  # drawn by these very probabilities
    fitted = fit_calibration(3 * logits, truth, "made", 4000)
    assert fitted["temperature"] == pytest.approx(3, rel=0.08)
    assert fitted["ece"]["after"] < 0.03 < fitted["ece"]["before"]
    assert fitted["scores"] == sorted(fitted["scores"]) and len(fitted["scores"]) == 4000


def test_a_few_easy_subjects_do_not_make_it_sure_of_everybody():
    truth = np.arange(40) % 2
    logits = np.eye(2)[truth]  # all right, at 0.73: only an ever smaller temperature would be likelier
    few, many = (fit_calibration(logits, truth, "made", count)["temperature"] for count in (4, 4000))
    assert many < 0.3 < 0.7 < few < 1


def test_prediction_sets_cover_new_cases_as_promised():
    random = np.random.default_rng(4)

    def draw(n):
        logits = random.normal(0, 1.5, (n, 3))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return logits, (p.cumsum(1) > random.random((n, 1))).argmax(1)

    fitted = fit_calibration(*draw(2000), "made", 2000)
    logits, truth = draw(2000)
    predictions = Predictions(
        [""] * 2000, [str(i) for i in range(2000)], [LABELS[i].code for i in truth], logits, logits
    )
    header = Header(replace(STUDY, labels=LABELS), "Brightest", calibration=fitted)
    found = scores(predictions, header, rounds=3)
    assert found["metrics"]["coverage"]["value"] == pytest.approx(0.9, abs=0.025)


def test_likeness_knows_strangers():
    random = np.random.default_rng(5)
    contract = Contract(kind="image", shape=(48, 48))

    def draw(n):
        features = 2 * random.normal(size=(n, 3))
        picture = np.outer(np.hanning(48), np.hanning(48))  # the same in all, but for its noise
        sketches = (picture + random.normal(0, 0.1, (n, 48, 48))).astype(np.float16)
        return Predictions([""] * n, [""] * n, [""] * n, np.empty((n, 2)), features, sketches)

    record, extras = fit_likeness(draw(600), draw(400), contract)
    assert extras["features.mean"].dtype == extras["features.precision"].dtype == torch.float32
    # distances of a normal cloud follow chi with 3 degrees of freedom: 99 of 100 are below 3.37
    assert record["threshold"] == pytest.approx(3.37, rel=0.12)
    offset = np.array([0.0, 0.0, 20.0]) - extras["features.mean"].numpy()  # ten deviations off
    assert np.sqrt(offset @ extras["features.precision"].numpy() @ offset) > 2 * record["threshold"]


def test_where_training_scans_hardly_vary_others_may_a_little():
    """A tenth of the mean variance, (1 + 1 + 0) / 3, is granted to each direction."""
    values = np.random.default_rng(1).normal(size=(4000, 3)) * (1, 1, 1e-4)
    shrunk = precision(values, 0.1)
    away = np.array([0.0, 0.0, 0.5])
    assert away @ shrunk @ away == pytest.approx(0.5**2 / (0.1 * 2 / 3), rel=0.05)
    away = np.array([0.5, 0.0, 0.0])
    assert away @ shrunk @ away == pytest.approx(0.5**2 / (0.9 + 0.1 * 2 / 3), rel=0.1)


@pytest.mark.parametrize(("count", "dead"), [(50, 0), (50, 3), (5, 0), (5, 3), (5, 8)])
def test_the_precision_is_scikit_learns_whether_cases_or_features_are_more(count, dead):
    values = np.random.default_rng(0).normal(size=(count, 8)) * np.arange(1, 9)
    values[:, :dead] = 1
    known = LedoitWolf().fit(values)
    np.testing.assert_allclose(precision(values - known.location_, known.shrinkage_), known.precision_, atol=1e-9)


def test_one_worked_answer_is_what_the_network_says(tmp_path, weights):
    file = next(cohort(tmp_path / "people", 1).rglob("*.nii"))
    loaded = model.load(weights, "cpu")
    told = example(loaded, file)
    level = nibabel.load(file).get_fdata().mean()
    powers = np.exp(-4 * (level - np.array([1, 2, 3])) ** 2 / 2)  # temperature 2
    assert told["file"] == file.name
    assert list(told["probabilities"].values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-4)
