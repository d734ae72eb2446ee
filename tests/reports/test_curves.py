"""Norms as figures: where the person's point lies among the curves, round ticks, and what has no figure."""

import re
from xml.etree import ElementTree

import pytest

from diagnosis.anatomy import norms
from diagnosis.anatomy.measures import Value
from diagnosis.anatomy.norms import Person
from reports import curves
from tests.norms import SEGMENTER, made, written


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    names = ("ventricles", "ventricles_share")
    return norms.load(written(tmp_path_factory.mktemp("norms"), made(names)), SEGMENTER)


def test_the_point_lies_where_age_and_value_are(known):
    """Half-way from the youngest to the oldest, on the median: in the middle of the axis, on the middle curve."""
    person = Person(67.5, "F")
    median = known.at_age("ventricles", "F", 67.5).middle[len(known.centiles) // 2]
    found = curves.panel(known, "ventricles", Value(median, "ml", median - 2, median + 2), person)
    assert found.point[0] == pytest.approx((curves.LEFT + curves.WIDTH - curves.RIGHT) / 2)
    assert found.point == pytest.approx(found.median[len(found.median) // 2])
    assert found.span[0] < found.point[1] < found.span[1]
    assert found.ends == (2.5, 97.5)


def test_a_value_beyond_the_curves_is_in_the_figure_and_below_them(known):
    small = curves.panel(known, "ventricles", Value(1.0, "ml", 0.5, 1.5), Person(60, "M"))
    lowest = max(y for _, y in small.outer)  # rows run downwards
    assert lowest < small.point[1] < small.span[1] <= curves.HEIGHT - curves.BOTTOM


def test_curves_are_the_person_s_sex_s(known):
    value = Value(20.0, "ml", 19.0, 21.0)
    women, men = (curves.panel(known, "ventricles", value, Person(70, sex)) for sex in ("F", "M"))
    assert women.median != men.median


@pytest.mark.parametrize("person", [Person(), Person(40), Person(None, "F")])
def test_without_an_age_among_the_controls_there_is_no_figure(known, person):
    assert curves.panels(known, {"ventricles_share": Value(2.0, "%", 1.9, 2.1)}, person) == {}


def test_only_measures_that_are_there_have_figures(known):
    value = Value(1.0, "%", 0.9, 1.1)
    assert list(curves.panels(known, {"ventricles_share": value, "brain_share": value}, Person(70))) == [
        "ventricles_share"
    ]
    assert curves.panels(None, {"ventricles_share": value}, Person(70)) == {}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (50, 85, ["50", "60", "70", "80"]),
        (0.31, 0.52, ["0.4", "0.5"]),
        (1.2, 3.4, ["2", "3"]),
        (-4, 5, ["0", "5"]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert [words for _, words in curves.ticks(low, high)] == expected


def test_the_svg_is_whole(known):
    found = curves.panel(known, "ventricles", Value(20.0, "ml", 19.0, 21.0), Person(70))
    drawn = ElementTree.fromstring(curves.svg(found))
    (point,) = (part for part in drawn if part.get("class") == "point")
    assert (float(point.get("cx")), float(point.get("cy"))) == pytest.approx(found.point, abs=0.06)
    numbers = [float(each) for part in drawn for each in re.findall(r"[\d.]+", part.get("points", ""))]
    assert numbers and min(numbers) >= 0 and max(numbers) <= curves.WIDTH
