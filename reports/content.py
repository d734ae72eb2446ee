"""What a report says, as a list of blocks that the HTML and the PDF both draw, and the same as JSON-ready data.

It holds no patient's name and no path, only the cleaned file name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diagnosis import gate
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from diagnosis.maps.regions import regions, warnings
from networks.dropout import PASSES
from reports import acquired, numbers
from reports.curves import panels
from reports.cuts import OUTLINED
from reports.measured import measure_table
from reports.style import ACCENT, BAD, DOUBT, GOOD, HEAT, INK, OUTLINES, QUIET
from reports.wording import Texts, ranked_regions
from studies import Study

TONES = {gate.FIT: GOOD, gate.DOUBTFUL: DOUBT, gate.UNFIT: BAD}


@dataclass(frozen=True)
class Block:
    """A piece of a report: "title", "heading", "big", "text", "small", "rows" and the smaller "details" of two
    columns, "table", "chart", "curves", "break", or a picture: "planes", or "overview" with its text and legend
    beside it.
    """

    kind: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()  # of a legend: names and colours
    colour: str = INK


@dataclass(frozen=True)
class Bar:
    """A class's row in the chart of probabilities."""

    code: str
    name: str
    chance: float  # 0 to 1
    shown: str
    chosen: bool  # the predicted class
    in_set: bool
    low: float = 0.0
    high: float = 0.0
    span: str = ""  # the interval from low to high in words, where one was asked for


def bars(record: Mapping[str, Any], study: Study, t: Texts) -> list[Bar]:
    """The chart's rows from least to most severe; none where no class is given."""
    chances, intervals = record["probabilities"] or {}, record["intervals"] or {}
    rows = []
    for code in study.by_severity if chances else ():
        low, high = intervals.get(code, (0.0, 0.0))
        rows.append(
            Bar(
                code,
                t.class_name(study, code),
                chances[code],
                numbers.percent(chances[code]),
                code == record["label"],
                code in record["set"],
                low,
                high,
                numbers.percent_span(low, high) if code in intervals else "",
            )
        )
    return rows


def content(diagnosis: Diagnosis, heat_map: Map | None, t: Texts, made: datetime) -> list[Block]:
    """The report as blocks, in the reader's language; what a weights file says of itself stays as written."""
    first = [*answer(diagnosis, t, made)]
    if diagnosis.measures:
        first += [overview(diagnosis, heat_map, t), *measured(diagnosis, t), Block("break")]
        first += over_age(diagnosis, t)
    regions_of_map = [] if heat_map is None else where(diagnosis, heat_map, t)
    room = (Block("break"), *regions_of_map) if not diagnosis.measures else (*regions_of_map, Block("break"))
    return [
        *first,
        *pictures(diagnosis, heat_map, t),
        *room,  # the first page is full, where it holds the pictures
        *network(diagnosis, t),
        *provenance(diagnosis, t),
    ]


def answer(diagnosis: Diagnosis, t: Texts, made: datetime) -> list[Block]:
    study, label = diagnosis.weights.study, diagnosis.label
    blocks = [
        Block("title", t("report.title")),
        Block("text", t.study_title(study), colour=QUIET),
        Block("small", f"{diagnosis.file} · {made:%Y-%m-%d %H:%M} UTC · {t.weights_title(diagnosis.weights)}"),
        Block("heading", t.question(study)),
    ]
    if label is None:
        blocks.append(Block("big", t("result.none"), colour=BAD))
        blocks.append(Block("text", t("result.none.why"), colour=BAD))
    else:
        blocks += judged(diagnosis, label, t)
    verdict = ((t("report.fit"), t.verdict(diagnosis.verdict)),)
    blocks.append(Block("rows", rows=verdict, colour=TONES[diagnosis.verdict]))
    return [*blocks, *(Block("small", f"– {t.reason(finding)}") for finding in diagnosis.findings)]


def judged(diagnosis: Diagnosis, label: str, t: Texts) -> list[Block]:
    """The class, its probability and what belongs to it; or the number and its interval."""
    if diagnosis.value is not None:
        return numbered(diagnosis, label, diagnosis.value, t)
    name = t.class_name(diagnosis.weights.study, label)
    chance = numbers.percent((diagnosis.probabilities or {})[label])
    blocks = [
        Block("small", f"{t('result.eyebrow')} · {t('report.chance', chance=chance)}"),
        Block("big", f"{name} ({label})", colour=ACCENT),
        Block("chart"),
    ]
    if diagnosis.intervals:
        blocks.append(Block("small", t("uncertainty.note", passes=PASSES)))
    promise = t.coverage(diagnosis.level, diagnosis.weights.header.calibrated)
    rows = [(t("report.set"), f"{t.prediction_set(diagnosis.set or ())} {promise}")]
    if diagnosis.severity is not None:
        rows.append((t("result.severity"), numbers.severity(diagnosis.severity)))
    blocks.append(Block("rows", rows=(*rows, *t.shares(diagnosis.shares))))
    if diagnosis.judged_anyway:
        blocks.append(Block("text", t("result.on_request"), colour=BAD))
    return blocks


def numbered(diagnosis: Diagnosis, label: str, value: float, t: Texts) -> list[Block]:
    study = diagnosis.weights.study
    span = t.number_span(study, diagnosis.interval, diagnosis.level)
    blocks = [
        Block("small", f"{t('number.eyebrow')} · {t.class_name(study, label)}"),
        Block("big", t.number(study, value), colour=ACCENT),
        Block("rows", rows=((t("number.interval"), span), *t.shares(diagnosis.shares))),
    ]
    return [*blocks, Block("text", t("result.on_request"), colour=BAD)] if diagnosis.judged_anyway else blocks


def overview(diagnosis: Diagnosis, heat_map: Map | None, t: Texts) -> Block:
    """The planes and the coronal cuts, with what is to be known of them."""
    if heat_map is None:
        said = [t("overview.planes")]
    else:
        code = f"{t.class_name(diagnosis.weights.study, heat_map.code)} ({heat_map.code})"
        said = [t("overview.mapped", code=code, method=t(f"method.{heat_map.method}"))]
    said += [t("overview.cuts"), t("overview.side")]
    legend = tuple((t(f"structure.{name}"), OUTLINES[name]) for name in OUTLINED)
    return Block("overview", "\n".join(said), legend)


def measured(diagnosis: Diagnosis, t: Texts) -> list[Block]:
    """What was measured, and what was not."""
    record = diagnosis.record()
    table = measure_table(record["measures"], t, record["norms"], record["person"])
    if table is None:
        return []
    return [
        Block("heading", t("measures.heading")),
        Block("table", rows=(table.head, *table.cells)),
        Block("details", rows=table.indices),
        Block("small", " ".join(table.notes)),
    ]


def over_age(diagnosis: Diagnosis, t: Texts) -> list[Block]:
    """The curves of the controls with this scan among them, where the age was told and is one of theirs."""
    figures = panels(diagnosis.norms, diagnosis.measures, diagnosis.person)
    if not figures:
        return []
    record = diagnosis.record()
    rows = tuple(
        (f"{t.measure_name(name)}, %", t.centile(record["measures"][name], record["norms"])) for name in figures
    )
    return [Block("heading", t("curves.heading")), Block("curves", rows=rows), Block("small", t("curves.note"))]


def pictures(diagnosis: Diagnosis, heat_map: Map | None, t: Texts) -> list[Block]:
    study = diagnosis.weights.study
    volume = study.contract.kind == "volume"
    blocks = [Block("heading", t("report.pictures"))]
    if heat_map is None:
        blocks.append(Block("text", t("report.plain")))
    else:
        blocks.append(
            Block(
                "text",
                t(
                    "report.colours",
                    code=f"{t.class_name(study, heat_map.code)} ({heat_map.code})",
                    method=t(f"method.{heat_map.method}"),
                    threshold=numbers.whole_percent(HEAT.threshold),
                ),
            )
        )
    blocks.append(Block("planes"))
    if volume:
        blocks.append(Block("small", t("report.middle" if heat_map is None else "report.planes")))
        if "no-affine" in diagnosis.prepared.notes:
            blocks.append(Block("small", t("viewer.unoriented"), colour=DOUBT))
    elif heat_map is not None:
        blocks.append(Block("small", t("report.beside")))
    if heat_map is None:
        return blocks
    shares = regions(heat_map, diagnosis.prepared, diagnosis.weights.contract)
    return [*blocks, *(Block("text", t(f"warning.{code}"), colour=BAD) for code in warnings(heat_map, shares))]


def where(diagnosis: Diagnosis, heat_map: Map, t: Texts) -> list[Block]:
    """What of the score lies on the map, and where in the head."""
    blocks = []
    if heat_map.absorbed is not None:
        blocks.append(Block("small", t("report.absorbed", share=numbers.whole_percent(heat_map.absorbed))))
    shares = regions(heat_map, diagnosis.prepared, diagnosis.weights.contract)
    if shares:
        rows = tuple((t(f"region.{name}"), shown) for name, _, shown in ranked_regions(shares))
        blocks += [Block("heading", t("report.regions")), Block("rows", rows=rows)]
    return blocks


def network(diagnosis: Diagnosis, t: Texts) -> list[Block]:
    """The weights' card in brief."""
    header, study = diagnosis.weights.header, diagnosis.weights.study
    scores, calibration, training = header.scores, header.calibration, header.training
    promise = t("report.uncalibrated")
    if diagnosis.weights.header.calibrated:
        subjects = calibration.get("subjects", len(calibration["scores"]))
        promise = t("report.calibrated", subjects=subjects, cohort=calibration.get("cohort", ""))
    blocks = [
        Block("heading", t("details.network")),
        Block(
            "rows",
            rows=((t("fact.trained"), t.learned_from(training) or "–"), (t("report.calibration"), promise)),
        ),
    ]
    rows = tuple(
        (t.metric(name), numbers.score_interval(score))
        for name, score in header.metrics.items()
        if t.has(f"metric.{name}") and score["value"] is not None
    )
    if rows:
        cohort, subjects = (scores.get(key, "–") for key in ("cohort", "subjects"))
        blocks += [Block("text", t("report.scores", cohort=cohort, subjects=subjects)), Block("rows", rows=rows)]
    else:
        blocks.append(Block("text", t("start.untrained"), colour=DOUBT))
    return [*blocks, Block("heading", t("report.limits")), Block("text", t.use(study))]


def provenance(diagnosis: Diagnosis, t: Texts) -> list[Block]:
    record, facts = diagnosis.record(), diagnosis.scan.facts
    segmenter = record["segmenter"]
    scan = [
        str(facts.get("format", "")),
        numbers.sizes(facts.get("shape", ())),
        numbers.sizes(facts.get("spacing", ()), "mm"),
        facts.get("orientation", ""),
    ]
    rows = (
        (t("report.study"), record["study"]),
        (t("report.scan"), ", ".join(part for part in scan if part)),
        *acquired.facts(t, record["acquisition"]),
        (t("report.weights"), f"{record['weights']['name']}  sha256 {record['weights']['sha256'][:16]}"),
        *(
            ((t("report.segmenter"), f"{segmenter['name']}  sha256 {segmenter['sha256'][:16]}"),)
            if segmenter
            else ()
        ),
        (t("report.contract"), diagnosis.weights.contract.hash()),
        (t("details.time"), t.seconds(sum(record["seconds"].values()))),
        (t("fact.versions"), " · ".join(f"{name} {number}" for name, number in record["versions"].items())),
    )
    return [Block("heading", t("report.provenance")), Block("rows", rows=rows)]


def data(diagnosis: Diagnosis, heat_map: Map | None, language: str, made: datetime) -> dict[str, Any]:
    """The report as JSON-ready data: the record, and what the map says in numbers."""
    described = None
    if heat_map is not None:
        shares = regions(heat_map, diagnosis.prepared, diagnosis.weights.contract)
        described = {
            "method": heat_map.method,
            "code": heat_map.code,
            "score": heat_map.score,
            "absorbed": heat_map.absorbed,
            "regions": shares,
            "warnings": warnings(heat_map, shares),
        }
    return {
        **diagnosis.record(),
        "map": described,
        "contract": diagnosis.weights.contract.hash(),
        "language": language,
        "made": made.isoformat(timespec="seconds"),
    }
