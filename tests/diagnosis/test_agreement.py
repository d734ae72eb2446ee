"""Class against anatomy: a cohort whose measures are straight lines of severity, with known quantiles."""

import json

import pytest

from diagnosis.agreement import GROUPS, GROWS, SHRINKS, cohort_table, disagreement
from diagnosis.anatomy.measures import Value
from networks.header_checks import HeaderError, _check_anatomy

SHA = "ab" * 32


def straight(cases: int = 1001) -> dict:
    severities = [k / (cases - 1) for k in range(cases)]
    return cohort_table([(at, {GROWS: 1 + 4 * at, SHRINKS: 0.6 - 0.3 * at}) for at in severities], SHA, "lines")


def measures(ventricles: float, hippocampi: float) -> dict[str, Value]:
    return {name: Value(value, "%", value, value) for name, value in ((GROWS, ventricles), (SHRINKS, hippocampi))}


def test_each_tenth_of_the_cohort_has_its_quantiles():
    table = straight()
    assert len(table["groups"]) == GROUPS and table["cases"] == 1001 and table["segmenter"] == SHA
    least, most = table["groups"][0], table["groups"][-1]
    assert least["severity"] == [0, 0.1] and most["severity"] == [0.9, 1]
    # severity runs evenly from 0 to 0.1 and from 0.9 to 1
    assert least["measures"][GROWS] == pytest.approx([1 + 4 * 0.1 * level for level in table["levels"]], abs=1e-3)
    assert most["measures"][SHRINKS] == pytest.approx(
        [0.3 + 0.3 * 0.1 * level for level in table["levels"]], abs=1e-3
    )


def test_cases_of_one_label_stay_together():
    rows = [(label, {GROWS: 2.0, SHRINKS: 0.5}) for label in (0.0, 0.5, 1.0) for _ in range(50)]
    table = cohort_table(rows, SHA)
    assert [table["groups"][end]["cases"] for end in (0, -1)] == [50, 50]


def test_few_cases_are_refused_and_said():
    with pytest.raises(ValueError, match="99 measured cases; at least 100"):
        straight(99)


@pytest.mark.parametrize(
    ("severity", "ventricles", "hippocampi", "expected"),
    [
        (0.9, 1.1, 0.59, "little-atrophy"),  # both like the least affected tenth: 1.0 to 1.4 %, 0.57 to 0.6 %
        (0.9, 0.5, 0.70, "little-atrophy"),  # and beyond it
        (0.9, 2.0, 0.59, None),  # only one of them
        (0.9, 1.1, 0.45, None),
        (0.5, 1.1, 0.59, None),  # a class in the middle cannot be spoken against
        (0.1, 4.9, 0.31, "much-atrophy"),
        (0.1, 4.9, 0.45, None),
        (0.1, 1.1, 0.59, None),
        (None, 1.1, 0.59, None),  # no class
    ],
)
def test_a_class_is_doubted_where_both_measures_speak_against_it(severity, ventricles, hippocampi, expected):
    found = disagreement(severity, measures(ventricles, hippocampi), straight(), SHA)
    assert [finding.code for finding in found] == ([expected] if expected else [])
    for finding in found:
        assert f"{severity:.2f}" in finding.text and f"{ventricles:.2f} %" in finding.text


def test_without_a_table_by_this_very_segmenter_nothing_is_said():
    against = measures(1.1, 0.59)
    assert disagreement(0.9, against, {}, SHA) == disagreement(0.9, against, straight(), "cd" * 32) == []
    assert disagreement(0.9, None, straight(), SHA) == []


def test_the_table_stands_in_a_header_and_a_broken_one_is_refused():
    table = json.loads(json.dumps(straight()))
    _check_anatomy(table)
    table["groups"][3]["measures"][GROWS].pop()
    with pytest.raises(HeaderError, match=r"anatomy\.groups\.measures\.ventricles_share .* must be 5 numbers"):
        _check_anatomy(table)
