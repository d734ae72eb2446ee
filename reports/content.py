"""The report of a `Diagnosis`, to file: pictures, one HTML file, the same as PDF, and JSON.

What a report says is one list of blocks (`content`), which the HTML and the PDF both draw. It holds no patient's
name and no path, only the cleaned file name; it loads nothing from anywhere, and works without a browser.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diagnosis import gate
from diagnosis.diagnoser import Diagnosis
from diagnosis.explain import Map
from diagnosis.regions import regions, warnings
from networks.dropout import PASSES
from reports.figures import ACCENT, INK, QUIET, class_name, texts

BAD, DOUBT, GOOD = "#b3261e", "#b26a00", "#2e7d4f"
TONES = {gate.FIT: GOOD, gate.DOUBTFUL: DOUBT, gate.UNFIT: BAD}


# --- what a report says -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A piece of a report: "title", "heading", "big", "text", "small", "rows", "chart", "planes" or "break"."""

    kind: str
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    colour: str = INK


def content(diagnosis: Diagnosis, found: Map | None, language: str, made: datetime) -> list[Block]:
    """The report as blocks, in the reader's language; what a weights file says of itself stays as written."""
    say = texts(language)
    return [
        *answer(diagnosis, say, made),
        Block("break"),
        *pictures(diagnosis, found, say),
        Block("break"),
        *network(diagnosis, say),
        *provenance(diagnosis, say),
    ]


def answer(diagnosis: Diagnosis, say: dict[str, str], made: datetime) -> list[Block]:
    record, study = diagnosis.record(), diagnosis.weights.study
    title = diagnosis.weights.header.get("title", diagnosis.weights.name)
    blocks = [
        Block("title", say["report.title"]),
        Block("text", say.get(f"study.{study.key}", study.title), colour=QUIET),
        Block(
            "rows",
            rows=(
                (say["report.file"], record["file"]),
                (say["report.made"], f"{made:%Y-%m-%d %H:%M} UTC"),
                (say["report.weights"], say.get(f"weights.{title}", title)),
            ),
        ),
        Block("heading", say["report.answer"]),
    ]
    if record["label"] is None:
        blocks.append(Block("big", say["report.none"], colour=BAD))
    else:
        name, code = class_name(diagnosis, record["label"], say), record["label"]
        chance = say["report.chance"].format(chance=f"{record['probabilities'][code]:.1%}")
        blocks += [Block("big", f"{name} ({code})", colour=ACCENT), Block("text", chance), Block("chart")]
        if diagnosis.intervals:
            blocks.append(Block("small", say["uncertainty.note"].format(passes=PASSES)))
        rows = [(say["report.set"], answers(diagnosis, say))]
        if record["severity"] is not None:
            rows.append((say["report.severity"], f"{record['severity']:.2f}"))
        rows += [(say.get(f"share.{name}", name), told(parts)) for name, parts in record["shares"].items()]
        blocks.append(Block("rows", rows=tuple(rows)))
        if record["gate"]["judged_anyway"]:
            blocks.append(Block("text", say["report.anyway"], colour=BAD))
    verdict = record["gate"]["verdict"]
    blocks += [
        Block("heading", say["report.fit"]),
        Block("text", say.get(f"verdict.{verdict}", verdict), colour=TONES[verdict]),
    ]
    for finding in diagnosis.findings:
        reason = say.get(f"reason.{finding.code}")
        blocks.append(Block("text", f"– {reason.format(**finding.values) if reason else finding.text}"))
    return blocks


def answers(diagnosis: Diagnosis, say: dict[str, str]) -> str:
    """The prediction set in words, with what it promises."""
    calibrated = (diagnosis.weights.header.get("calibration") or {}).get("scores")
    promise = say["set.promise"].format(level=f"{diagnosis.level:.0%}") if calibrated else say["set.raw"]
    return f" {say['set.or']} ".join(diagnosis.set) + f" {promise}"


def told(parts: dict[str, float]) -> str:
    """Named shares in a line."""
    return ", ".join(f"{name}: {share:.0%}" for name, share in parts.items())


def pictures(diagnosis: Diagnosis, found: Map | None, say: dict[str, str]) -> list[Block]:
    blocks = [Block("heading", say["report.pictures"])]
    volume = diagnosis.weights.study.contract.kind == "volume"
    if found is None:
        blocks.append(Block("text", say["report.plain"]))
    else:
        method = say.get(f"method.{found.method}", found.method)
        blocks.append(
            Block(
                "text",
                say["report.colours"].format(
                    code=f"{class_name(diagnosis, found.code, say)} ({found.code})", method=method
                ),
            )
        )
    blocks.append(Block("planes"))
    if volume:
        blocks.append(Block("small", say["report.middle" if found is None else "report.planes"]))
        if "no-affine" in diagnosis.prepared.notes:
            blocks.append(Block("small", say["report.unoriented"], colour=DOUBT))
    elif found is not None:
        blocks.append(Block("small", say["report.beside"]))
    if found is None:
        return blocks
    if found.absorbed is not None:
        blocks.append(Block("small", say["report.absorbed"].format(share=f"{found.absorbed:.0%}")))
    shares = regions(found, diagnosis.prepared, diagnosis.weights.contract)
    blocks += [Block("text", say[f"warning.{code}"], colour=BAD) for code in warnings(found, shares)]
    if shares:
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        blocks += [
            Block("heading", say["report.regions"]),
            Block(
                "rows",
                rows=tuple((say[f"region.{name}"], f"{share:.0%}") for name, share in ranked if share >= 0.005),
            ),
        ]
    return blocks


def network(diagnosis: Diagnosis, say: dict[str, str]) -> list[Block]:
    """The weights' card in brief."""
    header, study = diagnosis.weights.header, diagnosis.weights.study
    scores, calibration, training = (header.get(part) or {} for part in ("scores", "calibration", "training"))
    calibrated = say["report.uncalibrated"]
    if calibration.get("scores"):
        calibrated = say["report.calibrated"].format(
            subjects=calibration.get("subjects", len(calibration["scores"])), cohort=calibration.get("cohort", "")
        )
    blocks = [
        Block("heading", say["report.network"]),
        Block(
            "rows",
            rows=(
                (
                    say["report.trained"],
                    say["report.learned"].format(**training["counts"])
                    if "counts" in training
                    else str(training.get("data", "–")),
                ),
                (say["report.calibration"], calibrated),
            ),
        ),
    ]
    rows = tuple(
        (say[f"metric.{name}"], interval(metric, say))
        for name, metric in (scores.get("metrics") or {}).items()
        if f"metric.{name}" in say and metric["value"] is not None
    )
    if rows:
        told = {key: scores.get(key, "–") for key in ("cohort", "subjects")}
        blocks += [Block("text", say["report.scores"].format(**told)), Block("rows", rows=rows)]
    else:
        blocks.append(Block("text", say["report.noscores"], colour=DOUBT))
    return [*blocks, Block("heading", say["report.limits"]), Block("text", say.get(f"use.{study.key}", study.use))]


def interval(metric: dict[str, Any], say: dict[str, str]) -> str:
    numbers = {key: "–" if metric.get(key) is None else f"{metric[key]:.2f}" for key in ("value", "low", "high")}
    return say["report.score"].format(**numbers)


def provenance(diagnosis: Diagnosis, say: dict[str, str]) -> list[Block]:
    record, facts = diagnosis.record(), diagnosis.scan.facts
    sizes = " × ".join(map(str, facts.get("shape", ())))
    spacing = " × ".join(f"{mm:g}" for mm in facts.get("spacing", ()))
    scan = [str(facts.get("format", "")), sizes, f"{spacing} mm" if spacing else "", facts.get("orientation", "")]
    return [
        Block("heading", say["report.provenance"]),
        Block(
            "rows",
            rows=(
                (say["report.study"], record["study"]),
                (say["report.scan"], ", ".join(part for part in scan if part)),
                (say["report.weights"], f"{record['weights']['name']}  sha256 {record['weights']['sha256'][:16]}"),
                (say["report.contract"], diagnosis.weights.contract.hash()),
                (say["report.seconds"], f"{sum(record['seconds'].values()):.2f} s"),
                (
                    say["report.versions"],
                    ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
                ),
            ),
        ),
    ]


def data(diagnosis: Diagnosis, found: Map | None, language: str, made: datetime) -> dict[str, Any]:
    """The report as JSON-ready data: the record, and what the map says in numbers."""
    described = None
    if found is not None:
        shares = regions(found, diagnosis.prepared, diagnosis.weights.contract)
        described = {
            "method": found.method,
            "code": found.code,
            "score": found.score,
            "absorbed": found.absorbed,
            "regions": shares,
            "warnings": warnings(found, shares),
        }
    return {
        **diagnosis.record(),
        "map": described,
        "contract": diagnosis.weights.contract.hash(),
        "language": language,
        "made": made.isoformat(timespec="seconds"),
    }
