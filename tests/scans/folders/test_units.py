"""Which folders are a scan each: by whole studies, however they lie."""

from pathlib import Path

import pytest

from scans.folders.units import Found, Unit, merged, units
from scans.origin import Acquisition, Series

ROOT = Path("data")


def found(study, names, patient="p", uid="1", weighting="T1"):
    reasons = () if weighting == "T1" else ("not-t1",)
    series = Series("1", 100, 4, 6, "MR", Acquisition(weighting=weighting), reasons)
    return Found(uid, study, patient, series, tuple(names))


@pytest.mark.parametrize(
    ("series", "paths"),
    [
        ([found("a", ["x/1", "x/2"])], ["x"]),
        ([found("a", ["1", "2"])], ["."]),
        ([found("a", ["DIR/S1/1", "DIR/S2/2"])], ["DIR"]),
        ([found("a", ["x/S1/1"]), found("a", ["x/S2/1"], uid="2")], ["x"]),
        ([found("a", ["x/d1/1", "x/d1/2"]), found("b", ["x/d2/1", "x/d2/2"])], ["x/d1", "x/d2"]),
        ([found("a", ["x/1", "x/y/2"]), found("b", ["x/y/3", "x/y/4"])], ["x"]),
        ([found("a", ["one.dcm"]), found("b", ["two.dcm"])], ["one.dcm", "two.dcm"]),
        ([found("a", ["x/one.dcm"]), found("b", ["x/1", "x/2"])], ["x"]),
        ([found("a", ["x/1", "x/2"]), found("b", ["xy/1", "xy/2"])], ["x", "xy"]),
    ],
)
def test_the_smallest_folders_that_hold_a_study(series, paths):
    for order in (series, series[::-1]):
        assert [unit.path for unit in units(ROOT, order)] == [ROOT / path for path in paths]


def test_the_person_is_whose_series_would_be_read():
    head = found("a", ["x/1", "x/3"], "anna")
    other = found("b", ["x/2", "x/4"], "ben", weighting="T2")
    assert units(ROOT, [other, head]) == [Unit(ROOT / "x", "anna", mixed=True)]
    unsure = [found("a", ["x/1", "x/3"], "anna", weighting="PD"), other]
    assert units(ROOT, unsure) == [Unit(ROOT / "x", "", mixed=True)]
    assert units(ROOT, [unsure[0]]) == [Unit(ROOT / "x", "anna")]


def test_parts_of_a_series_are_put_together():
    one, other = found("a", ["1", "2"]), found("a", ["3"])
    (whole,) = merged([one, other])
    assert whole.names == ("1", "2", "3") and whole.series.images == 200
    assert len(merged([one, found("b", ["3"])])) == 2


def test_places_outside_the_list_are_no_places():
    record = {"uid": "1", "study": "a", "patient": "", "series": found("a", []).series.record(), "names": [7]}
    with pytest.raises(IndexError):
        Found.of(record, ("one",))
