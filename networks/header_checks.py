"""What a weights file's header must hold: the kind and the bounds of every entry, checked before it is believed.

It knows plain JSON alone: tables, lists, texts and finite numbers. What the entries mean stands in `studies`.
"""

import math
from collections.abc import Callable
from typing import Any

KINDS = {"volume": 3, "image": 2}  # and how many axes each has
PLACES = ("head", "fill", "crop", "squeeze")
SCALES = ("foreground", "structures", "normalised-structures", "stored", "unit", "imagenet")
ANATOMY = ("ventricles_share", "hippocampi_share")  # measures of a cohort that must be there
MOST_VOXELS = 1 << 27  # of a prepared grid
MOST_TEXT = 1 << 20

Check = Callable[[Any, str], None]


class HeaderError(ValueError):
    """An entry of the wrong kind; the message names it and quotes the value."""


def fault(where: str, value: Any, wanted: str) -> HeaderError:
    shown = repr(value)
    return HeaderError(f"{where} is {shown[:60]}{'…' if len(shown) > 60 else ''}, and must be {wanted}")


def text(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise fault(where, value, "a text")


def number(low: float = -math.inf, high: float = math.inf, whole: bool = False) -> Check:
    """A finite number within bounds, both of them allowed."""

    def check(value: Any, where: str) -> None:
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not (low <= value <= high) or not math.isfinite(value):
            bounds = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
            raise fault(where, value, f"a {'whole' if whole else 'finite'} number{bounds}")

    return check


def one_of(*values: str) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in values:
            raise fault(where, value, f"one of {', '.join(values)}")

    return check


def optional(inner: Check) -> Check:
    return lambda value, where: None if value is None else inner(value, where)


def each(inner: Check, least: int = 0, most: int = 1_000_000) -> Check:
    """A list of so many entries, every one of them checked."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            raise fault(where, value, f"a list of {least} to {most} entries")
        for place, entry in enumerate(value):
            inner(entry, f"{where}[{place}]")

    return check


def table(
    fields: dict[str, Check] | None = None, needed: tuple[str, ...] = (), others: Check | None = None
) -> Check:
    """A table: `needed` are there, and what is there is checked, by name or by `others`."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise fault(where, value, "a table")
        for key in needed:
            if key not in value:
                raise HeaderError(f"{where} lacks {key!r}")
        for key, entry in value.items():
            inner = (fields or {}).get(key, others)
            if inner is not None:
                inner(entry, f"{where}.{key[:40]}")

    return check


CONTRACT = table(
    {
        "kind": one_of(*KINDS),
        "shape": each(number(1, 4096, whole=True), 2, 3),
        "channels": number(1, 16, whole=True),
        "spacing": each(number(1e-3, 1e3), 0, 3),
        "place": one_of(*PLACES),
        "scale": one_of(*SCALES),
        "anchor": each(number(0, 1), 0, 3),
        "planes": optional(number(1, 4096, whole=True)),
    },
    ("kind", "shape"),
)
LABEL = table({"code": text, "name": text, "severity": optional(number(0, 1))}, ("code", "name"))
SCORE = table({part: optional(number()) for part in ("value", "low", "high")}, ("value",))
QUANTILES = each(number(), 2, 100)
GROUP = table(
    {
        "severity": each(number(), 2, 2),
        "cases": number(0, whole=True),
        "measures": table(dict.fromkeys(ANATOMY, QUANTILES), ANATOMY, others=QUANTILES),
    },
    ("severity", "measures"),
)
POINTS = table(others=table(others=number()))  # class → wanted sensitivity → threshold
HEADER = table(
    {
        "title": text,
        "card": optional(text),
        "contract_hash": text,
        "contract": CONTRACT,
        "study": table(
            {
                **dict.fromkeys(("key", "title", "question", "network", "use"), text),
                "labels": each(LABEL, 1, 1000),
                "contract": CONTRACT,
                "networks": each(text),
                "arguments": table(),
                "training": table(),
                "target": optional(table({"unit": text, "mean": number(), "deviation": number(1e-12, 1e12)})),
                "aliases": table(others=text),
            },
            ("key", "labels", "contract"),
        ),
        "network": table({"name": text, "arguments": table()}, ("name",)),
        "calibration": table(
            {
                "temperature": number(1e-6, 1e6),
                "scores": each(number()),
                "operating_points": POINTS,
            }
        ),
        "likeness": table({"threshold": optional(number()), "match": number()}),
        "anatomy": table(
            {
                "segmenter": text,
                "cohort": text,
                "cases": number(1, whole=True),
                "levels": QUANTILES,
                "groups": each(GROUP, 2, 100),
            },
            ("segmenter", "levels", "groups"),
        ),
        "example": optional(
            table({"file": text, "probabilities": table(others=number(0, 1)), "value": number()}, ("file",))
        ),
        "scores": optional(table({"metrics": table(others=SCORE), "cohort": text})),
        "training": table(
            {
                "data": text,
                "about": optional(text),
                "counts": optional(table()),
                "subject_hashes": table(others=each(text)),
                "subject_salt": text,
                "earlier_hashes": table(others=each(text)),
            }
        ),
    },
    ("study", "contract", "contract_hash", "network"),
)


def check(header: dict[str, Any]) -> None:
    """Raise HeaderError at the first entry that is not what it must be."""
    HEADER(header, "header")
    codes = [label["code"] for label in header["study"]["labels"]]
    if len(set(codes)) < len(codes):
        raise HeaderError(f"header.study.labels name a code twice: {', '.join(codes)[:80]}")
    check_grid(header["contract"], "header.contract")
    if header["study"].get("target") and len(codes) != 1:
        raise HeaderError(f"header.study has a target and {len(codes)} labels; a number has one")
    _check_anatomy(header.get("anatomy"))


def check_grid(contract: dict[str, Any], where: str) -> None:
    """That a contract's sizes belong together and fit into memory."""
    axes, shape = KINDS[contract["kind"]], contract["shape"]
    if len(shape) != axes:
        raise fault(f"{where}.shape", shape, f"{axes} sizes")
    if math.prod(shape) > MOST_VOXELS:
        raise fault(f"{where}.shape", shape, f"at most {MOST_VOXELS:,} voxels in all")
    for part in ("spacing", "anchor"):
        if len(contract.get(part, ())) not in (0, axes):
            raise fault(f"{where}.{part}", contract[part], f"{axes} numbers or none")


def _check_anatomy(anatomy: dict[str, Any] | None) -> None:
    """As many quantiles as levels, and these rising."""
    if not anatomy:
        return
    levels = anatomy["levels"]
    if sorted(set(levels)) != list(levels):
        raise fault("header.anatomy.levels", levels, "rising")
    for group in anatomy["groups"]:
        for name, quantiles in group["measures"].items():
            if len(quantiles) != len(levels):
                raise fault(f"header.anatomy.groups.measures.{name[:40]}", quantiles, f"{len(levels)} numbers")
