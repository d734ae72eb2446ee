"""The table of measures: each number where it belongs, centiles only where there are norms."""

from dataclasses import replace

import pytest

from diagnosis.anatomy.measures import MEASURES, Centile, Value
from reports.measured import INDICES, STRUCTURES, measure_table
from reports.wording import Texts

NORMS = {"people": 80, "ages": [50.0, 85.0], "sex": "F", "outermost": [5.0, 95.0], "level": 0.9, "why_none": None}


def record(**centiles: float) -> dict:
    """Every measure has its place in MEASURES as its value, and a tenth of it less and more."""
    values = {
        name: Value(place, asked.unit, 0.9 * place, 1.1 * place)
        for place, (name, asked) in enumerate(MEASURES.items(), 1)
    }
    placed = {name: Centile(centile, centile - 2, centile + 2) for name, centile in centiles.items()}
    return {name: replace(value, centile=placed.get(name)).record() for name, value in values.items()}


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
    plain = measure_table(record(), t)
    normed = measure_table(record(hippocampi_share=7.2, brain_share=5.0), t, NORMS, {"age": 71.5, "sex": "F"})
    assert t("norms.none") in plain.notes and t("norms.none") not in normed.notes
    for name in ("bleeds", "white-matter lesions", "strategic infarcts"):
        assert t.translated(f"unseen.{name}", name) in plain.notes[0]
    assert normed.head[-1] == t("column.centile") and len(plain.head) == len(normed.head) - 1
    rows = dict(zip(STRUCTURES, normed.rows, strict=True))
    assert (rows["hippocampi"].centile, rows["hippocampi"].bar) == ("7 (5–9)", (5.2, 7.2, 9.2))
    assert rows["brain"].centile == "< 5 (3–7)"  # the outermost curve: all that is known is that it is less
    assert (rows["fluid"].centile, rows["fluid"].bar) == ("", None)


@pytest.mark.parametrize(
    ("why", "age", "said"),
    [
        (None, 71.5, "at 71.5 years (women); from 80 controls of 50 to 85 years"),
        ("no-age", None, "Norms of 80 controls of 50 to 85 years are loaded: tell the age"),
        ("outside", 40, "No centiles: 40 years were told, and the 80 controls are 50 to 85 years old"),
    ],
)
def test_the_notes_tell_with_whom_measures_are_compared_or_why_with_nobody(why, age, said):
    table = measure_table(record(), Texts("en"), NORMS | {"why_none": why}, {"age": age, "sex": "F"})
    assert any(said in note for note in table.notes)


def test_without_measures_there_is_no_table():
    assert measure_table(None, Texts("en")) is None
