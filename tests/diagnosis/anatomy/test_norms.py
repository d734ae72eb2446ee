"""Centiles of a person: against the law of the controls, at the ends, and files of norms that are refused."""

import json

import pytest
from scipy.stats import norm

from diagnosis.anatomy import norms
from diagnosis.anatomy.measures import Value
from diagnosis.anatomy.norms import NormsError, Person, person
from tests.norms import SEGMENTER, made, ventricles, written


@pytest.fixture(scope="module")
def record():
    return made()


@pytest.fixture(scope="module")
def known(record, tmp_path_factory):
    return norms.load(written(tmp_path_factory.mktemp("norms"), record), SEGMENTER)


@pytest.mark.parametrize("sex", ["F", "M"])
@pytest.mark.parametrize("centile", [10, 50, 90])
def test_a_value_of_the_law_has_the_law_s_centile(known, centile, sex):
    value = ventricles(float(norm.ppf(centile / 100)), 72, sex == "F")
    found = known.centile("ventricles", value, Person(72, sex))
    assert found.value == pytest.approx(centile, abs=9)
    assert found.low <= found.value <= found.high
    assert found.high - found.low > 2


def test_the_record_says_whose_curves_were_taken(known):
    told = known.record(Person(70, "F"))
    assert (told["people"], told["sex"], told["outermost"], told["why_none"]) == (120, "F", [2.5, 97.5], None)
    assert known.record(Person(70))["sex"] == "any"


def test_women_s_ventricles_are_compared_with_women_s(known):
    value = ventricles(0, 70, woman=False)
    one, other = (known.centile("ventricles", value, Person(70, sex)).value for sex in ("F", "M"))
    everybody = known.centile("ventricles", value, Person(70)).value
    assert one > everybody > other  # theirs are smaller, so the same is more for them


def test_beyond_the_outermost_curve_the_centile_is_that_curve_s(known):
    small, large = (known.centile("ventricles", value, Person(60, "F")) for value in (1.0, 500.0))
    assert (small.value, small.low) == (2.5, 0) and small.high < 50
    assert (large.value, large.high) == (97.5, 100) and large.low > 50


@pytest.mark.parametrize(
    ("who", "why"),
    [(Person(49.9, "F"), "outside"), (Person(86), "outside"), (Person(None, "M"), "no-age"), (Person(85), None)],
)
def test_only_ages_of_the_controls_have_centiles(known, who, why):
    assert known.why_none(who) == why
    assert (known.centile("ventricles", 20.0, who) is None) == (why is not None)


def test_measures_without_curves_have_no_centile(known):
    values = {name: Value(20.0, "ml", 19.0, 21.0) for name in ("ventricles", "gca")}
    placed = known.placed(values, Person(70))
    assert placed["gca"] == values["gca"] and placed["ventricles"].centile.value > 50
    record = placed["ventricles"].record()
    low, high = record["centile_range"]
    assert low <= record["centile"] <= high and record["value"] == 20
    assert values["gca"].record()["centile"] is None and values["gca"].record()["centile_range"] is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("", ""), Person()),
        ((None, None), Person()),
        ((" 71,5 ", "female"), Person(71.5, "F")),
        (("80", "M"), Person(80.0, "M")),
    ],
)
def test_what_was_typed_is_understood(typed, meant):
    assert person(*typed) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("old", ""), "age 'old': give it in years"),
        (("-1", ""), "age '-1'"),
        (("nan", ""), "age 'nan'"),
        (("1e9", ""), "from 0 to 120"),
        (("", "x"), "sex 'x': give F or M"),
    ],
)
def test_what_makes_no_sense_is_refused(typed, said):
    with pytest.raises(NormsError, match=said):
        person(*typed)


def test_norms_of_another_segmenter_are_refused(record, tmp_path):
    with pytest.raises(
        NormsError, match="made with the segmenter 5e5e5e5e5e5e5e5e, and this one is ababababababab"
    ):
        norms.load(written(tmp_path, record), "ab" * 32)


def changed(record: dict, **changes) -> dict:
    return json.loads(json.dumps(record)) | changes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 9}, "format 9; this version reads 1"),
        ({"ages": [50, 40]}, "damaged .ages do not rise"),
        ({"ages": [40, float("nan")]}, "damaged .ages do not rise"),
        ({"centiles": [0, 50, 100]}, "centiles reach beyond"),
        ({"sexes": None}, "damaged"),
        ({"measures": {"spleen": {}}}, "the measure 'spleen' is not known"),
        ({"measures": {"ventricles": {"any": {}}}}, "damaged"),
        ({"measures": {"ventricles": {"any": {"middle": [[1]]}}}}, "damaged"),
    ],
)
def test_damaged_norms_are_refused_in_words(record, tmp_path, change, said):
    with pytest.raises(NormsError, match=said):
        norms.load(written(tmp_path, changed(record, **change)), SEGMENTER)


def test_curves_that_cross_or_are_not_finite_are_refused(record, tmp_path):
    for value, said in ((1e9, "curves of middle cross"), (float("inf"), "is not 9 curves of 13 numbers")):
        broken = changed(record)
        broken["measures"]["ventricles"]["F"]["middle"][3][4] = value
        with pytest.raises(NormsError, match=said):
            norms.load(written(tmp_path, broken), SEGMENTER)


@pytest.mark.parametrize(
    ("text", "said"), [("", "holds no norms"), ("[1]", "holds no norms"), ("{}", "holds no norms")]
)
def test_what_is_no_file_of_norms_is_refused(tmp_path, text, said):
    path = tmp_path / "norms.json"
    with pytest.raises(NormsError, match="no such file; make one"):
        norms.load(path, SEGMENTER)
    path.write_text(text)
    with pytest.raises(NormsError, match=said):
        norms.load(path, SEGMENTER)
