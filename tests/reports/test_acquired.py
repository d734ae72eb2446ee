"""What the scanner and the other series are told as: our own words in two languages, blanks left out."""

import pytest

from reports.acquired import facts, series_rows
from reports.wording import Texts
from scans.folders.candidates import WHY_NOT
from scans.origin import Acquisition, Series

MADE = Acquisition("Siemens", "TrioTim", 2.893, "MPRAGE 3D GR/IR", "T1", 0.9, True)


def test_each_fact_has_its_line():
    assert facts(Texts("en"), MADE.record()) == [
        ("Scanner", "Siemens TrioTim"),
        ("Field strength", "2.89 T"),
        ("Sequence", "T1 · MPRAGE 3D GR/IR"),
        ("Slice thickness", "0.9 mm"),
        ("Contrast agent named", "yes"),
    ]


def test_what_is_not_known_has_none():
    assert facts(Texts("en"), Acquisition(model="Signa").record()) == [("Scanner", "Signa")]
    assert facts(Texts("en"), None) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_reason_against_a_series_has_its_words(language):
    series = Series("3", 20, 4, 6, "MR", MADE, tuple(WHY_NOT)).record()
    (row,) = series_rows(Texts(language), [series])
    stop = Texts(language)("series.stop")
    told = row["why_not"].split(stop)
    assert len(set(told)) == len(WHY_NOT) and not any("series." in words for words in told)
    assert row["name"] == "MR · T1 · MPRAGE 3D GR/IR" and "20" in row["size"] and not row["chosen"]
