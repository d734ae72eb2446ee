"""Norms as small figures: the curves of one measure over age, and the person's point among them.

A `Panel` says what is drawn where, in points from its upper left corner; the page and the HTML report write it as
SVG, the PDF draws it itself. Words stand beside it, so it holds numbers alone.
"""

import math
from dataclasses import dataclass

from diagnosis.anatomy.measures import Value
from diagnosis.anatomy.norms import Norms, Person

SHOWN = ("brain_share", "ventricles_share", "hippocampi_share", "inferior_horns_share")  # measures with a figure
WIDTH, HEIGHT = 240.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 8.0, 20.0  # margins
ROOM = 0.06  # of the height of the curves, above and below
TICKS = 4  # about so many on an axis
INNER = (25.0, 75.0)  # centiles between which half of the controls lie

Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    outer: tuple[Point, ...]  # the outline of what lies between the outermost curves
    inner: tuple[Point, ...]  # and between `INNER`
    median: tuple[Point, ...]
    ages: tuple[tuple[float, str], ...]  # ticks: where, and what stands there
    values: tuple[tuple[float, str], ...]
    point: Point
    span: tuple[float, float]  # of the person's value: its upper and lower end
    ends: tuple[float, float]  # the outermost centiles


def panel(norms: Norms, name: str, value: Value, person: Person) -> Panel | None:
    """The figure of one measure; None where no curve holds for this person."""
    if norms.why_none(person) is not None or name not in norms.curves or person.age is None:
        return None
    rows = norms.curves[name][norms.group(person)].middle
    bottom, top = min(float(rows.min()), value.low), max(float(rows.max()), value.high)
    room = ROOM * (top - bottom) or 1.0
    bottom, top = bottom - room, top + room
    first, last = float(norms.ages[0]), float(norms.ages[-1])

    def x(age: float) -> float:
        return LEFT + (age - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(measured: float) -> float:
        return HEIGHT - BOTTOM - (measured - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    def line(row: int) -> tuple[Point, ...]:
        return tuple((x(age), y(measured)) for age, measured in zip(norms.ages, rows[row], strict=True))

    def between(low: int, high: int) -> tuple[Point, ...]:
        return (*line(low), *reversed(line(high)))

    known = norms.centiles.tolist()
    low, middle, high = (min(range(len(known)), key=lambda k: abs(known[k] - c)) for c in (INNER[0], 50, INNER[1]))
    return Panel(
        between(0, len(known) - 1),
        between(low, high),
        line(middle),
        tuple((x(age), shown) for age, shown in ticks(first, last)),
        tuple((y(measured), shown) for measured, shown in ticks(bottom, top)),
        (x(person.age), y(value.value)),
        (y(value.high), y(value.low)),
        (known[0], known[-1]),
    )


def panels(norms: Norms | None, measures: dict[str, Value] | None, person: Person) -> dict[str, Panel]:
    """The figures that there are, by measure."""
    if norms is None or not measures:
        return {}
    found = {name: panel(norms, name, measures[name], person) for name in SHOWN if name in measures}
    return {name: each for name, each in found.items() if each is not None}


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers from low to high, about `TICKS` of them, with what to write."""
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(each for each in (1, 2, 5, 10) if each * unit >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    return [
        (number * step, f"{number * step:.{digits}f}")
        for number in range(math.ceil(low / step), math.floor(high / step) + 1)
    ]


def svg(figure: Panel) -> str:
    """The figure as an SVG element; style sheets colour it by its classes, and words stand below it."""
    points = lambda path: " ".join(f"{x:.1f},{y:.1f}" for x, y in path)  # noqa: E731
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    x, y = figure.point
    parts = [
        f'<svg class="curves" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" aria-hidden="true">',
        *(f'<path class="grid" d="M{LEFT:g} {at:.1f}H{right:g}"/>' for at, _ in figure.values),
        f'<polygon class="outer" points="{points(figure.outer)}"/>',
        f'<polygon class="inner" points="{points(figure.inner)}"/>',
        f'<polyline class="median" points="{points(figure.median)}"/>',
        f'<path class="axis" d="M{LEFT:g} {floor:g}H{right:g}"/>',
        *(
            f'<text x="{at:.1f}" y="{HEIGHT - 6:g}" text-anchor="middle">{words}</text>'
            for at, words in figure.ages
        ),
        *(
            f'<text x="{LEFT - 5:g}" y="{at + 3:.1f}" text-anchor="end">{words}</text>'
            for at, words in figure.values
        ),
        f'<path class="span" d="M{x:.1f} {figure.span[0]:.1f}V{figure.span[1]:.1f}"/>',
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>',
        "</svg>",
    ]
    return "".join(parts)
