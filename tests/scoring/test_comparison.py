"""Two networks on the same people: areas, tests and differences by their definitions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from data.tables import DataError
from networks.header import Header
from scoring.comparison import areas, compare, lines, mcnemar
from scoring.predictions import Predictions
from studies import Label, Target
from tests.scored import STUDY

RANDOM = np.random.default_rng(0)
TRUTH = np.array([True] * 18 + [False] * 22)
ONE = RANDOM.normal(size=40) + TRUTH
OTHER = ONE * 0.3 + RANDOM.normal(size=40)
PEOPLE = [str(i) for i in range(40)]


def test_the_area_s_test_is_de_long_s():
    """By its definition, pair by pair, for a person a case."""
    found = areas(TRUTH, ONE, OTHER, PEOPLE)
    over = [
        np.array([[(a > b) + 0.5 * (a == b) for b in said[~TRUTH]] for a in said[TRUTH]]) for said in (ONE, OTHER)
    ]
    assert found["one"] == pytest.approx(over[0].mean()) and found["other"] == pytest.approx(over[1].mean())
    s10 = np.cov([part.mean(1) for part in over])
    s01 = np.cov([part.mean(0) for part in over])
    s = s10 / 18 + s01 / 22
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert found["error"] == pytest.approx(error)
    assert 0 < found["p"] < 1
    assert areas(TRUTH, ONE, ONE, PEOPLE)["p"] == 1.0
    swapped = areas(TRUTH, OTHER, ONE, PEOPLE)
    assert swapped["p"] == pytest.approx(found["p"]) and swapped["difference"] == -found["difference"]


def test_copies_of_people_tell_nothing_new():
    twice = np.repeat(np.arange(40), 2)
    alone = areas(TRUTH, ONE, OTHER, PEOPLE)
    doubled = areas(TRUTH[twice], ONE[twice], OTHER[twice], [PEOPLE[i] for i in twice])
    assert doubled["error"] == pytest.approx(alone["error"], rel=0.02)


@pytest.mark.parametrize(("first", "second"), [(5, 1), (0, 0), (3, 3), (0, 6)])
def test_who_is_right_about_whom_is_tested_exactly(first, second):
    right = np.array([True] * first + [False] * second + [True] * 4)
    other = np.array([False] * first + [True] * second + [True] * 4)
    found = mcnemar(right, other, [str(i) for i in range(len(right))])
    assert (found["only_one"], found["only_other"]) == (first, second)
    n = first + second
    tosses = [sum(tossed) for tossed in itertools.product((0, 1), repeat=n)]
    as_odd = np.mean([abs(heads - n / 2) >= abs(first - n / 2) for heads in tosses])
    assert found["p"] == pytest.approx(as_odd)


def test_a_comparison_of_classes():
    labels = [STUDY.codes[i % 3] for i in range(45)]
    truth = np.arange(45) % 3
    names = [str(i) for i in range(45)]
    good = np.eye(3)[truth] * 3 + RANDOM.normal(size=(45, 3))
    poor = np.eye(3)[truth] * 0.5 + RANDOM.normal(size=(45, 3))
    parts = [Predictions(names, names, labels, logits, np.empty((0, 0))) for logits in (good, poor)]
    header = Header(STUDY, "X")
    found = compare((parts[0], header), (parts[1], header), 60, 0)
    accuracy = found["differences"]["accuracy"]
    assert accuracy["one"] == pytest.approx((good.argmax(1) == truth).mean())
    assert accuracy["value"] == pytest.approx(accuracy["one"] - accuracy["other"])
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert set(found["delong"]) == set(STUDY.codes) and found["mcnemar"]["p"] < 0.05
    said = "\n".join(lines(found))
    assert "45 subjects, 45 scans" in said and "(DeLong)" in said and "(McNemar)" in said
    of_two = replace(STUDY, labels=STUDY.labels[:2])
    with pytest.raises(DataError, match="compare networks of the same classes"):
        compare((parts[0], header), (parts[1], Header(of_two, "X")), 5, 0)


def test_a_comparison_of_numbers():
    study = replace(STUDY, labels=(Label("age", "age"),), target=Target("years", 70, 10))
    names = [str(i) for i in range(30)]
    truth = RANDOM.normal(70, 10, 30)
    parts = [
        Predictions(
            names, names, [f"{age}" for age in truth], ((truth - 70) / 10 + off)[:, None], np.empty((0, 0))
        )
        for off in (0.1, RANDOM.normal(size=30))
    ]
    found = compare((parts[0], Header(study, "X")), (parts[1], Header(study, "X")), 40, 0)
    assert found["differences"]["mae"]["one"] == pytest.approx(1.0)  # a tenth of a deviation of ten years
    assert found["differences"]["mae"]["high"] < 0 and "delong" not in found
