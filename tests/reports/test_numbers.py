"""Numbers as people read them: rounded, but never to a certainty that is not there."""

import pytest

from reports import numbers


@pytest.mark.parametrize(
    ("chance", "shown"),
    [
        (0, "0.0 %"),
        (0.0001, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.55, "55.0 %"),
        (0.9994, "99.9 %"),
        (0.99951, "> 99.9 %"),
        (1, "100.0 %"),
    ],
)
def test_a_probability_never_looks_surer_than_it_is(chance, shown):
    assert numbers.percent(chance) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.275, 0.65, "27.5–65.0 %"),
        (0.0001, 0.65, "< 0.1 – 65.0 %"),
        (0.5, 0.99999, "50.0 – > 99.9 %"),
        (0.00001, 0.0001, "< 0.1 %"),
    ],
)
def test_an_interval_of_a_probability(low, high, shown):
    assert numbers.percent_span(low, high) == shown


def test_shares_scores_and_sizes():
    assert [numbers.whole_percent(share) for share in (0, 0.004, 0.25, 0.997, 1)] == [
        "0 %",
        "< 1 %",
        "25 %",
        "> 99 %",
        "100 %",
    ]
    assert numbers.score_interval({"value": 0.5, "low": -0.1, "high": 0.9}) == "0.50 (−0.10–0.90)"
    assert numbers.score_interval({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert numbers.score_interval({"value": None}) == "–"
    assert numbers.sizes((1.2, 1.0, 1), "mm") == "1.2 × 1 × 1 mm" and numbers.sizes((), "mm") == ""


@pytest.mark.parametrize(
    ("value", "unit", "digits", "shown"),
    [
        (3.104, "ml", 2, "3.10 ml"),
        (-4.26, "%", 1, "−4.3 %"),
        (0.284, "ratio", 2, "0.28"),
        (1.0, "grade", 1, "1.0"),
    ],
)
def test_a_measure_has_its_unit(value, unit, digits, shown):
    assert numbers.measure(value, unit, digits) == shown


def test_the_range_of_a_measure_is_read_without_mistaking_minus_for_a_dash():
    assert numbers.measure_span(2.91, 3.3, 2) == "2.91–3.30"
    assert numbers.measure_span(-4.2, 3.3, 1) == "−4.2 … 3.3"
    assert numbers.measure_span(1.0, 1.0, 1) == "1.0"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.4, "< 1"), (1.0, "< 1"), (1.2, "1"), (49.6, "50"), (99.2, "> 99")]
)
def test_nobody_is_the_last_of_all(value, shown):
    assert numbers.centile(value) == shown


def test_a_centile_beyond_what_the_controls_can_tell_is_open():
    assert [numbers.centile(value, (5, 95)) for value in (5.0, 5.6, 95.0)] == ["< 5", "6", "> 95"]
    assert (numbers.centile_span(0, 6.2), numbers.centile_span(49.8, 50.2)) == ("0–6", "50")
    assert (numbers.age(71.0), numbers.age(71.46)) == ("71", "71.5")
