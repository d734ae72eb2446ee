"""What the page's templates show of a result, of several, and of a refusal: values in the visitor's words."""

from typing import Any

from diagnosis import gate
from diagnosis.diagnoser import Diagnoser
from networks.dropout import PASSES
from reports import numbers
from reports.acquired import series_rows
from reports.content import bars
from reports.style import HEAT, OUTLINES
from reports.wording import Texts
from server import payloads
from server.page.details import details, file_name
from server.page.measures import measures_view
from server.state import Result
from studies import to_json

MARKS = {gate.FIT: "fit", gate.DOUBTFUL: "doubtful", gate.UNFIT: "unfit"}  # verdict → class of the style sheet
REFUSED = "refused"  # the group of files that gave no diagnosis
NOWHERE = 1000  # the place of what has no class, behind all classes
IN_VIEWER = (
    "viewer.",
    "map.",
    "region.",
    "warning.",
    "outlines.",
    "structure.",
)  # texts that the viewer's script needs


def result_view(t: Texts, result: Result, diagnoser: Diagnoser) -> dict[str, Any]:
    """One answer with everything about it."""
    record, weights = result.record, diagnoser.weights
    study, label, verdict = weights.study, record["label"], record["gate"]["verdict"]
    rows = bars(record, study, t)
    return {
        **series_view(t, result, False),
        "file": file_name(t, result),
        "label": label,
        "name": t.class_name(study, label) if label else None,
        "amount": t.number(study, record["value"]) if record["value"] is not None else "",
        "amount_span": t.number_span(study, record["interval"], record["level"]) if study.target else "",
        "verdict": t.verdict(verdict),
        "kind": MARKS[verdict],
        "judged_anyway": record["gate"]["judged_anyway"],
        "reasons": [t.reason(finding) for finding in result.findings],
        **prediction_set(t, record, weights.header.calibrated),
        "answers": [bar for code in record["set"] or () for bar in rows if bar.code == code],
        "calibrated": weights.header.scaled,
        "ordered": study.ordered,
        "bars": rows,
        "may_ask": diagnoser.why_no_uncertainty is None,
        "passes": PASSES,
        "intervals": bool(record["intervals"]),
        "severity": record["severity"],
        "severity_shown": "" if record["severity"] is None else numbers.severity(record["severity"]),
        "ends": (study.by_severity[0], study.by_severity[-1]),
        "methods": payloads.methods(),
        "volume": weights.contract.kind == "volume",
        "dicom": result.facts.get("format") == "DICOM",
        "measured": measures_view(t, record, diagnoser.norms) if record["measures"] else None,
        "heat": HEAT,
        "outlines": OUTLINES,
        "viewer_texts": to_json(t.starting(*IN_VIEWER)),
        "by": t.weights_title(weights),
        "details": details(t, result, weights),
        "card": weights.header.card,
    }


def series_view(t: Texts, result: Result, is_open: bool) -> dict[str, Any]:
    """The series of a folder to choose from; folded away where one was chosen."""
    return {"key": result.id, "series": series_rows(t, result.listed), "series_open": is_open}


def prediction_set(t: Texts, record: dict[str, Any], known: bool) -> dict[str, str]:
    """What stands beside the set, and the sentence below it."""
    if not known:
        return {"promise": "", "set_note": t("result.set.raw")}
    miss = numbers.whole_percent(1 - record["level"])
    return {"promise": t.coverage(record["level"], True), "set_note": t("result.set.note", miss=miss)}


def table_row(t: Texts, result: Result, diagnoser: Diagnoser) -> dict[str, Any]:
    """One file among several."""
    record = result.record
    row: dict[str, Any] = {
        "id": result.id,
        "file": file_name(t, result),
        "name": None,
        "code": "",
        "chance": None,
        "shown": "",
    }
    if result.refused:
        why = t.error_title(record["error"]["code"])
        told: dict[str, Any] = {"file": record["file"], "why": why, "kind": "unfit", "verdict": t("table.refused")}
        return row | told | {"group": REFUSED, "rank": len(MARKS), "order": NOWHERE}
    label, verdict = record["label"], record["gate"]["verdict"]
    row |= {"why": t("result.none"), "kind": MARKS[verdict], "verdict": t(f"table.{verdict}")}
    row |= {"group": verdict, "rank": list(MARKS).index(verdict), "order": NOWHERE}
    if label is None:
        return row
    if record["value"] is not None:
        shown = t.number(diagnoser.study, record["value"])
        return row | {"name": t.class_name(diagnoser.study, label), "code": "", "shown": shown}
    chance = record["probabilities"][label]
    name = t.class_name(diagnoser.study, label)
    order = diagnoser.study.by_severity.index(label)
    return row | {
        "name": name,
        "code": label,
        "chance": 100 * chance,
        "shown": numbers.percent(chance),
        "order": order,
    }


def verdict_groups(t: Texts, rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """The verdicts among the rows, from the best: key, words and how many have it."""
    found = {row["group"]: row["verdict"] for row in sorted(rows, key=lambda row: row["rank"])}
    return [(group, words, sum(row["group"] == group for row in rows)) for group, words in found.items()]


def refusal_view(t: Texts, result: Result) -> dict[str, Any]:
    """A file that was refused: in English the reader's own words, in other languages a remedy and those words."""
    error, file = result.record["error"], result.record["file"]
    message = error["message"].removeprefix(f"{file}: ")
    message = message[:1].upper() + message[1:]
    own = t.speaks_english and message
    return {
        "heading": t.error_title(error["code"]),
        "file": file,
        "words": message if own else t.remedy(error["code"]),
        "detail": "" if t.speaks_english else message,
        "number": error.get("id"),
        **series_view(t, result, True),
    }
