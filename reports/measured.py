"""Measures as people read them: a table of structures, indices and grades, and what must be said beside them.

The page, the HTML and the PDF draw the same `MeasureTable`. Values come as they stand in a record, so that a
result whose voxels are no longer kept can be shown too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnosis.anatomy.measures import MEASURES, NOT_ASSESSED
from reports import numbers
from reports.wording import Texts

# Measure of the whole structure → of its left and right side, and its share of the volume inside the skull.
STRUCTURES: dict[str, tuple[str, str, str]] = {
    "hippocampi": ("hippocampus_left", "hippocampus_right", "hippocampi_share"),
    "inferior_horns": ("inferior_horn_left", "inferior_horn_right", "inferior_horns_share"),
    "lateral_ventricles": ("lateral_ventricle_left", "lateral_ventricle_right", ""),
    "ventricles": ("", "", "ventricles_share"),
    "brain": ("", "", "brain_share"),
    "fluid": ("", "", "fluid_share"),
    "intracranial": ("", "", ""),
}
# What is shown below the table → its one measure, or its left and right one.
INDICES: dict[str, tuple[str, ...]] = {
    "evans": ("evans",),
    "occupancy": ("occupancy_left", "occupancy_right"),
    "mta": ("mta_left", "mta_right"),
    "gca": ("gca",),
}

Record = Mapping[str, Mapping[str, Any]]  # measures by name, as `Value.record` gives them


@dataclass(frozen=True)
class Row:
    """One structure, in ml without the unit; empty where there is no such measure."""

    name: str
    title: str
    left: str
    right: str
    total: str
    share: str  # of the volume inside the skull, %
    span: str  # of the total
    centile: str  # of the share, or of the total where there is no share
    bar: tuple[float, float, float] | None  # the same, 0 to 100: low, value, high


@dataclass(frozen=True)
class MeasureTable:
    head: tuple[str, ...]  # over name, left, right, total, share, span, and centile where there are any
    rows: tuple[Row, ...]
    indices: tuple[tuple[str, str], ...]  # title, and value with its range
    notes: tuple[str, ...]  # sentences

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The rows as wide as the head."""
        cells = [
            (row.title, row.left, row.right, row.total, row.share, row.span, row.centile) for row in self.rows
        ]
        return [row[: len(self.head)] for row in cells]


def measure_table(
    measures: Record | None, t: Texts, norms: Mapping | None = None, person: Mapping | None = None
) -> MeasureTable | None:
    """What to show of a record's measures, norms and person; None where nothing was measured."""
    if not measures:
        return None
    normed = any(value["centile"] is not None for value in measures.values())
    columns = ("structure", "left", "right", "total", "share", "span", *(("centile",) if normed else ()))
    rows = tuple(_row(name, measures, t, norms) for name in STRUCTURES)
    indices = tuple((t(f"index.{name}"), _index(of, measures, t)) for name, of in INDICES.items())
    notes = [t("measures.computed"), t("measures.range")]
    return MeasureTable(
        tuple(t(f"column.{column}") for column in columns),
        rows,
        indices,
        (t.not_assessed(NOT_ASSESSED), t.norms(norms, person), *notes),
    )


def _row(name: str, measures: Record, t: Texts, norms: Mapping | None) -> Row:
    left, right, share = STRUCTURES[name]
    whole, digits = measures[name], MEASURES[name].digits

    def shown(other: str) -> str:
        return numbers.measure(measures[other]["value"], "", MEASURES[other].digits) if other else ""

    placed = measures[share or name]
    bar = None
    if placed["centile"] is not None:
        low, high = placed["centile_range"]
        bar = (low, placed["centile"], high)
    return Row(
        name,
        t.measure_name(name),
        shown(left),
        shown(right),
        shown(name),
        shown(share),
        numbers.measure_span(whole["low"], whole["high"], digits),
        t.centile(placed, norms),
        bar,
    )


def _index(of: tuple[str, ...], measures: Record, t: Texts) -> str:
    shown = []
    for name in of:
        value, digits = measures[name], MEASURES[name].digits
        span = numbers.measure_span(value["low"], value["high"], digits)
        shown.append(f"{numbers.measure(value['value'], '', digits)} ({span})")
    return t("measures.pair", left=shown[0], right=shown[1]) if len(shown) == 2 else shown[0]
