"""How a scan was acquired, and the series it was chosen from, in a reader's words."""

from typing import Any

from reports.wording import Texts


def facts(t: Texts, acquisition: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What DICOM headers say of the scanner, a line each; nothing of what they leave open."""
    if not acquisition:
        return []
    tesla, thickness = acquisition["tesla"], acquisition["thickness"]
    scanner = [acquisition["maker"], acquisition["model"]]
    rows = [
        (t("fact.scanner"), " ".join(part for part in scanner if part)),
        (t("fact.field"), f"{tesla:.3g} T" if tesla else ""),
        (t("fact.sequence"), sequence(acquisition)),
        (t("fact.thickness"), f"{thickness:g} mm" if thickness else ""),
        (t("fact.contrast"), t("fact.yes") if acquisition["contrast"] else ""),
    ]
    return [(name, value) for name, value in rows if value]


def sequence(acquisition: dict[str, Any]) -> str:
    return " · ".join(part for part in (acquisition["weighting"], acquisition["sequence"]) if part)


def series_rows(t: Texts, series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each series of a folder: what it is, and what speaks against it; of several people, whose."""
    several = any(one["person"] > 1 for one in series)
    return [
        {
            "key": one["key"],
            "chosen": one["chosen"],
            "name": " · ".join(part for part in (one["modality"], sequence(one["acquisition"])) if part)
            or t("series.unnamed"),
            "person": t("series.person", number=one["person"]) if several else "",
            "size": t("series.size", count=one["images"], rows=one["rows"], columns=one["columns"]),
            "why_not": t("series.stop").join(t(f"series.{code}") for code in one["why_not"]),
        }
        for one in series
    ]
