"""What the page is given of measures: folded until an age is told, centiles where norms allow them."""

from dataclasses import replace

import pytest

from diagnosis.anatomy import norms
from diagnosis.anatomy.measures import MEASURES, Value
from diagnosis.anatomy.norms import NOBODY, Person
from reports.wording import Texts
from server.page.measures import measures_view
from tests.norms import LAWFUL, SEGMENTER, made, written

VALUES = {name: Value(20.0, asked.unit, 18.0, 22.0) for name, asked in MEASURES.items()}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return norms.load(written(tmp_path_factory.mktemp("norms"), made(LAWFUL)), SEGMENTER)


def seen(diagnosis, known, person=NOBODY, language="en"):
    values = known.placed(VALUES, person) if known else VALUES
    asked = replace(diagnosis, measures=values, norms=known, person=person)
    return measures_view(Texts(language), asked.record(), known)


def test_without_norms_values_stand_alone_and_the_page_says_so(diagnosis):
    view = seen(diagnosis, None)
    assert view["line"].startswith("Ventricles 20.0 ml (20.00 % of the volume inside the skull)")
    assert not view["open"] and not view["may_tell"] and view["curves"] == []
    assert len(view["table"].head) == 6 and any("values stand alone" in note for note in view["table"].notes)


def test_norms_wait_for_an_age(diagnosis, known):
    view = seen(diagnosis, known)
    assert (
        not view["open"] and view["may_tell"] and view["curves"] == [] and (view["age"], view["sex"]) == ("", "")
    )


def test_an_age_opens_the_table_with_centiles_and_curves(diagnosis, known):
    view = seen(diagnosis, known, Person(71.5, "F"))
    assert view["open"] and (view["age"], view["sex"]) == ("71.5", "F")
    titles = [title for title, _, _ in view["curves"]]
    assert len(titles) == 4 and titles[0] == "Brain, of the volume inside the skull"
    assert all(figure.startswith("<svg") and centile for _, centile, figure in view["curves"])
    bars = {row.name: row.bar for row in view["table"].rows}
    assert bars["intracranial"] is None and bars["brain"][0] <= bars["brain"][1] <= bars["brain"][2]


def test_an_age_outside_the_controls_has_no_curves(diagnosis, known):
    view = seen(diagnosis, known, Person(30), "zh")
    assert view["open"] and view["curves"] == [] and any("30 岁" in note for note in view["table"].notes)


def test_where_nothing_was_measured_there_is_nothing_to_show(diagnosis):
    assert measures_view(Texts("en"), diagnosis.record(), None) is None
