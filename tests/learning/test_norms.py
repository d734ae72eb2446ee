"""The curves against the law that the controls follow: their place, order and intervals; few are refused."""

import numpy as np
import pytest
from scipy.stats import norm

from diagnosis.anatomy.norms import NormsError
from learning import norms
from tests.norms import controls, made, ventricles


@pytest.fixture(scope="module")
def record():
    return made()


def test_curves_follow_the_law_of_the_controls(record):
    middle = record["ages"].index(67.5)
    assert record["centiles"] == [2.5, 5, 10, 25, 50, 75, 90, 95, 97.5]
    for sex in ("F", "M"):
        rows = record["measures"]["ventricles"][sex]
        for centile, row in zip(record["centiles"], rows["middle"], strict=True):
            truth = ventricles(float(norm.ppf(centile / 100)), 67.5, sex == "F")
            if 10 <= centile <= 90:  # the outer ones rest on few people
                assert row[middle] == pytest.approx(truth, rel=0.15), (sex, centile)


def test_intervals_hold_the_law_most_of_the_time(record):
    inside = []
    for sex in ("F", "M"):
        rows = record["measures"]["ventricles"][sex]
        for k, centile in enumerate(record["centiles"]):
            for place, age in enumerate(record["ages"]):
                truth = ventricles(float(norm.ppf(centile / 100)), age, sex == "F")
                inside.append(rows["low"][k][place] <= truth <= rows["high"][k][place])
    assert np.mean(inside) > 0.6


def test_curves_never_cross(record):
    for rows in record["measures"]["ventricles"].values():
        for part in rows.values():
            assert (np.diff(np.array(part), axis=0) >= 0).all()


def test_new_people_lie_beyond_the_outer_curves_as_often_as_they_say():
    """Of 40 controls each time, over many groups: about a tenth of new people beyond the 5th and the 95th."""
    beyond = []
    for seed in range(30):
        ages, sexes, rows = controls(40, seed)
        years, women = np.array(ages), np.array([sex == "F" for sex in sexes], dtype=float)
        terms = norms.Terms(67.5, 17.5)
        values = np.log([row["ventricles"] for row in rows])
        found = norms.fit(terms.of(years, women), values, np.array([5.0, 95.0]))
        others, their_sexes, others_rows = controls(400, 1000 + seed)
        their_women = np.array([sex == "F" for sex in their_sexes], dtype=float)
        low, high = found.curves(terms.of(np.array(others), their_women))
        theirs = np.log([row["ventricles"] for row in others_rows])
        beyond.append(((theirs < low) | (theirs > high)).mean())
    assert 0.07 < np.mean(beyond) < 0.14


def test_few_people_have_no_outer_centiles():
    assert norms.drawn(40).tolist() == [5, 10, 25, 50, 75, 90, 95]
    assert norms.drawn(200).tolist() == list(norms.CENTILES)


def test_without_everybody_s_sex_the_curves_are_everybody_s(monkeypatch):
    monkeypatch.setattr(norms, "MEASURES", {"evans": norms.MEASURES["evans"]})
    ages, sexes, rows = controls()
    record = norms.norms(ages, [None, *sexes[1:]], rows, rounds=2)
    assert record["sexes"] == {} and list(record["measures"]["evans"]) == ["any"]
    assert np.array(record["measures"]["evans"]["any"]["middle"]) == pytest.approx(1, abs=1e-4)  # alike in all


def test_what_no_curve_can_be_laid_through_is_refused():
    ages, sexes, rows = controls(39)
    with pytest.raises(NormsError, match="39 controls; 40 are the least"):
        norms.norms(ages, sexes, rows)
    with pytest.raises(NormsError, match="all controls are 70 years old"):
        norms.norms([70.0] * 40, ["F"] * 40, controls(40)[2])
