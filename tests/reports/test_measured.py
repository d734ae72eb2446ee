"""The table of measures: each number where it belongs, centiles only where there are norms."""

from dataclasses import replace

import pytest

from diagnosis.measures import MEASURES, Value
from reports.measured import INDICES, STRUCTURES, measure_table
from reports.wording import Texts


def record(**centiles: float) -> dict:
    """Every measure has its place in MEASURES as its value, and a tenth of it less and more."""
    values = {
        name: Value(place, asked.unit, 0.9 * place, 1.1 * place)
        for place, (name, asked) in enumerate(MEASURES.items(), 1)
    }
    return {name: replace(value, centile=centiles.get(name)).record() for name, value in values.items()}


def test_each_structure_has_its_sides_its_total_its_share_and_its_range():
    table = measure_table(record(), Texts("en"))
    assert table.head == (
        "Structure", "Left, ml", "Right, ml", "Total, ml", "% inside the skull", "Range, ml"
    )  # fmt: skip
    place = {name: number for number, name in enumerate(MEASURES, 1)}
    row = dict(zip(STRUCTURES, table.cells, strict=True))["hippocampi"]
    sides = [f"{place[f'hippocampus_{side}']}.00" for side in ("left", "right")]
    whole = place["hippocampi"]
    span = f"{0.9 * whole:.2f}–{1.1 * whole:.2f}"
    assert row == ("Hippocampi", *sides, f"{whole}.00", f"{place['hippocampi_share']}.00", span)


def test_indices_and_grades_come_with_their_ranges_and_say_what_is_computed():
    table = dict(measure_table(record(), Texts("en")).indices)
    assert len(table) == len(INDICES) and table["Evans index"].endswith(")")
    grade = table["Medial temporal atrophy (0–4), computed"]
    assert grade.startswith("left ") and " · right " in grade


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_notes_tell_what_is_not_assessed_and_whether_there_are_norms(language):
    t = Texts(language)
    plain, normed = (measure_table(record(**some), t) for some in ({}, {"hippocampi_share": 3.2}))
    assert t("measures.no-norms") in plain.notes and t("measures.no-norms") not in normed.notes
    for name in ("bleeds", "white-matter lesions", "strategic infarcts"):
        assert t.translated(f"unseen.{name}", name) in plain.notes[0]
    assert normed.head[-1] == t("column.centile") and len(plain.head) == len(normed.head) - 1
    assert dict(zip(STRUCTURES, normed.cells, strict=True))["hippocampi"][-1] == "3"


def test_without_measures_there_is_no_table():
    assert measure_table(None, Texts("en")) is None
