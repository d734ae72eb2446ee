"""How every number looks to a person, the same on the page, in the report and on the command line; no words."""

from collections.abc import Iterable
from typing import Any


def percent(chance: float) -> str:
    """A probability: what is not quite none or all does not look like it."""
    return f"{_tenths(chance)} %"


def percent_span(low: float, high: float) -> str:
    """An interval of a probability."""
    ends = (_tenths(low), _tenths(high))
    if ends[0] == ends[1]:
        return f"{ends[0]} %"
    dash = " – " if any(end[0] in "<>" for end in ends) else "–"
    return f"{dash.join(ends)} %"


def _tenths(chance: float) -> str:
    if 0 < chance < 0.0005:
        return "< 0.1"
    if 0.9995 <= chance < 1:
        return "> 99.9"
    return f"{100 * chance:.1f}"


def whole_percent(share: float) -> str:
    """A share of something, or a coverage, without decimals."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 <= share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def score_interval(score: dict[str, Any]) -> str:
    """A score with its interval where there is one; a dash where it could not be had."""
    value, low, high = (
        None if score.get(key) is None else f"{score[key]:.2f}".replace("-", "−")
        for key in ("value", "low", "high")
    )
    return f"{value} ({low}–{high})" if value and low and high else value or "–"


def measure(value: float, unit: str, digits: int) -> str:
    """A measure with its unit: ml and % are written behind it, ratios and grades stand alone."""
    shown = f"{value:.{digits}f}".replace("-", "−")
    return f"{shown} {unit}" if unit in ("ml", "%") else shown


def centile(value: float, outermost: tuple[float, float] = (1, 99)) -> str:
    """Of a hundred controls, how many have less; open at the ends that so many controls can tell."""
    low, high = outermost
    return f"< {low:g}" if value <= low else f"> {high:g}" if value >= high else f"{value:.0f}"


def centile_span(low: float, high: float) -> str:
    """How sure a centile is."""
    ends = [f"{end:.0f}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


def measure_span(low: float, high: float, digits: int) -> str:
    """From where to where a measure may lie."""
    ends = [f"{end:.{digits}f}".replace("-", "−") for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else "–".join(ends) if "−" not in "".join(ends) else " … ".join(ends)


def age(years: float) -> str:
    """Years, with a decimal where it was told with one."""
    return f"{years:.1f}".removesuffix(".0")


def amount(value: float) -> str:
    """A number of some unit, to three digits or the whole part."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def severity(value: float) -> str:
    return f"{value:.2f}"


def seconds(value: float) -> str:
    return f"{value:.2f}"


def sizes(lengths: Iterable[float], unit: str = "") -> str:
    """Lengths along the axes, such as 1.2 × 1 × 1 mm; nothing where there are none."""
    text = " × ".join(f"{length:g}" for length in lengths)
    return f"{text} {unit}" if text and unit else text
