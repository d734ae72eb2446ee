"""One scan in, one `Diagnosis` out; and the command line for a scan, a folder or a cohort.

The page, the HTTP API and the command line all ask the same `Diagnoser`, so none can answer otherwise than the
others. It reads, checks, predicts and, when asked, explains; it draws nothing and serves nothing.
"""

import argparse
import csv
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import dropout
import gate
import model
import scans
from studies import NOTICE

ROOT = Path(__file__).resolve().parent
VERSION = "1.0.0"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Everything one scan was answered with; `record` is its JSON form."""

    file: str
    weights: model.Weights
    label: str | None  # None where the scan cannot be judged
    probabilities: dict[str, float] | None
    set: list[str] | None
    level: float  # the coverage that the set was asked for
    findings: tuple[gate.Finding, ...]
    judged_anyway: bool
    seconds: dict[str, float]
    scan: scans.Scan = field(repr=False)
    prepared: scans.Prepared = field(repr=False)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)  # such as an attention over levels, by name
    intervals: dict[str, tuple[float, float]] | None = None  # of the probabilities, where passes were asked for

    @property
    def verdict(self) -> str:
        return gate.verdict(self.findings)

    @property
    def name(self) -> str | None:
        names = {label.code: label.name for label in self.weights.study.labels}
        return names.get(self.label)

    @property
    def severity(self) -> float | None:
        """Expected severity, 0 to 1, where the study's classes have an order."""
        study = self.weights.study
        if self.probabilities is None or not study.ordered:
            return None
        return sum(self.probabilities[label.code] * label.severity for label in study.labels)

    def record(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "study": self.weights.study.key,
            "weights": {"name": self.weights.name, "sha256": self.weights.sha256},
            "label": self.label,
            "name": self.name,
            "probabilities": self.probabilities,
            "intervals": self.intervals and {code: list(ends) for code, ends in self.intervals.items()},
            "set": self.set,
            "level": self.level,
            "severity": self.severity,
            "shares": self.shares,
            "gate": {"verdict": self.verdict, "reasons": [finding.text for finding in self.findings],
                     "judged_anyway": self.judged_anyway},
            "seconds": {step: round(spent, 4) for step, spent in self.seconds.items()},
            "versions": versions(),
            "notice": NOTICE,
        }


def versions() -> dict[str, str]:
    return {"scanwise": VERSION, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__}


def error_record(file: str, error: scans.ScanError) -> dict[str, Any]:
    """What takes the place of a diagnosis for a file that was refused."""
    return {"file": file, "error": {"code": error.code, "message": str(error)}}


class Diagnoser:
    """A loaded weights file, ready to judge scans from several threads at once."""

    def __init__(self, weights: str | Path, device: str = "auto", precision: str = "fp32"):
        self.weights = model.load(weights, device)
        self.forward = model.Forward(self.weights, precision)
        self._explaining = threading.Lock()  # gradients and hooks are not for two at once

    @property
    def study(self):
        return self.weights.study

    @property
    def no_passes(self) -> str | None:
        """Why `passes` cannot be asked for, in words; None where they can."""
        if self.forward.passes is not None:
            return None
        return (f"{self.weights.name}: {type(self.weights.network).__name__} has no dropout behind its "
                "convolutions, so there are no intervals to give; ask without uncertainty")

    def __call__(
        self,
        file: scans.Scan | str | Path | bytes,
        name: str | None = None,
        *,
        judge_anyway: bool = False,
        level: float = 0.9,
        passes: int = 0,
        progress: Callable[[str], None] = lambda step: None,
    ) -> Diagnosis:
        """Judge one scan. `progress` hears of each step as it begins; ScanError says why a file is refused.

        With `passes` the probabilities get intervals, from so many passes with dropout on the same convolutions.
        """
        if passes and self.no_passes:
            raise model.WeightsError(self.no_passes)
        seconds: dict[str, float] = {}

        @contextmanager
        def step(key: str) -> Iterator[None]:
            progress(key)
            start = time.perf_counter()
            yield
            seconds[key] = time.perf_counter() - start

        with step("read"):
            scan = file if isinstance(file, scans.Scan) else scans.read(file, name)
        with step("prepare"):
            prepared = scans.prepare(scan, self.weights.contract)
        with step("check"):
            findings = gate.before(scan, prepared, self.weights)
        label = probabilities = answers = intervals = None
        shares: dict[str, dict[str, float]] = {}
        if judge_anyway or gate.verdict(findings) != gate.UNFIT:
            with step("predict"):
                base = self.forward.base(prepared.tensor[None])
                logits, features = self.forward.answer(base)
                findings += gate.after(features[0], self.weights)
            if judge_anyway or gate.verdict(findings) != gate.UNFIT:
                label, probabilities, answers = self._read_out(logits, level)
                if passes:
                    with step("uncertainty"):
                        intervals = self._intervals(base, passes)
                shares = getattr(self.weights.network, "shares", lambda features: {})(features)
        shown = name or (str(file) if isinstance(file, str | Path) else "scan")
        return Diagnosis(
            file=scans.safe_name(shown), weights=self.weights, label=label, probabilities=probabilities,
            set=answers, level=level, findings=tuple(findings), judged_anyway=judge_anyway, seconds=seconds,
            scan=scan, prepared=prepared, shares=shares, intervals=intervals,
        )

    def _read_out(self, logits: torch.Tensor, level: float) -> tuple[str, dict[str, float], list[str]]:
        codes, calibration = self.study.codes, self.weights.header.get("calibration", {})
        values = self._probabilities(logits)[0]
        answers = model.prediction_set(values, codes, calibration, level)
        return codes[int(values.argmax())], dict(zip(codes, map(float, values), strict=True)), answers

    def _probabilities(self, logits: torch.Tensor) -> np.ndarray:
        return model.probabilities(logits, self.weights.header.get("calibration", {}).get("temperature", 1.0))

    def _intervals(self, base: torch.Tensor, passes: int) -> dict[str, tuple[float, float]]:
        chances = self._probabilities(self.forward.passes(base, passes))  # (passes, K)
        return dict(zip(self.study.codes, dropout.intervals(chances), strict=True))

    def explain(self, diagnosis: Diagnosis, method: str = "grad-cam", code: str | None = None,
                progress: Callable[[float], None] | None = None):
        """A heat map of what moved the answer, for the predicted class unless `code` is given."""
        import explain  # here, for whoever never asks for a map

        target = code or diagnosis.label or self.study.codes[0]
        with self._explaining:
            return explain.explain(self.weights, diagnosis.prepared, target, method, progress=progress)


def find_weights(folder: Path, study: str | None = None) -> Path:
    """The weights file to use when none was named: the first of the study's, or of the first study."""
    known = model.list_weights(folder)
    matching = [path for path in known if study is None or path.name.split(".")[0] == study]
    if not matching:
        wanted = f"for the study {study!r} " if study else ""
        raise model.WeightsError(
            f"{folder}: no weights file {wanted}here; put one in, or make one with `python train.py`"
        )
    return matching[0]


def collect(paths: list[Path]) -> list[Path]:
    """The files to judge: files as given, folders walked for what can be read, in name order."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            readable = (file for file in sorted(path.rglob("*")) if file.is_file())
            files += [file for file in readable if file.name.lower().endswith(tuple(scans.READERS))]
        else:
            files.append(path)
    return files


def table(records: list[dict[str, Any]], calibrated: bool) -> str:
    """The records for a person: one line a file, reasons below it."""
    lines = []
    width = max(len(record["file"]) for record in records)
    for record in records:
        if "error" in record:
            lines.append(f"{record['file']:<{width}}  refused: {record['error']['message']}")
            continue
        verdict = record["gate"]["verdict"]
        if record["label"] is None:
            lines.append(f"{record['file']:<{width}}  {verdict}")
        else:
            chance = f"{record['probabilities'][record['label']]:6.1%}"
            if record["intervals"]:
                chance += " ({:.1%} to {:.1%})".format(*record["intervals"][record["label"]])
            promise = f"{record['level']:.0%} coverage on the calibration cohort"
            answers = f"{' or '.join(record['set'])} ({promise if calibrated else 'no coverage: not calibrated'})"
            lines.append(
                f"{record['file']:<{width}}  {record['label']} {chance}  {record['name']}; "
                f"{answers}; {verdict}; {sum(record['seconds'].values()):.2f} s"
            )
        lines += [f"{'':<{width}}    – {reason}" for reason in record["gate"]["reasons"]]
        lines += [f"{'':<{width}}    report: {name}" for name in record.get("report", [])]
    return "\n".join(lines)


def write_csv(path: Path, records: list[dict[str, Any]], codes: list[str]) -> None:
    """One row a file; refused files have their reason in the last column."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        asked = any(record.get("intervals") for record in records)
        ends = [f"{code} {end}" for code in codes for end in ("low", "high") if asked]
        writer.writerow(["file", "label", *codes, "set", "severity", "verdict", "reasons", *ends])
        for record in records:
            if "error" in record:
                blank = [""] * (len(codes) + 3)
                writer.writerow([record["file"], *blank, "refused", record["error"]["message"]])
                continue
            chances = record["probabilities"] or {}
            severity, intervals = record["severity"], record["intervals"] or {}
            writer.writerow([
                record["file"], record["label"] or "", *(f"{chances[c]:.6f}" if chances else "" for c in codes),
                " ".join(record["set"] or []), "" if severity is None else f"{severity:.4f}",
                record["gate"]["verdict"], " ".join(record["gate"]["reasons"]),
                *(f"{end:.6f}" for code in codes if intervals for end in intervals[code]),
            ])


def file_report(diagnoser: Diagnoser, diagnosis: Diagnosis, options: argparse.Namespace) -> list[str]:
    """Write the report, with a map where there is a class to explain; the names of its files."""
    import report  # here: it brings matplotlib, and most command lines never ask

    found = diagnoser.explain(diagnosis) if diagnosis.label else None
    return [path.name for path in report.write(diagnosis, found, options.report, options.language)]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge scans with a trained network.", epilog=NOTICE)
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN", help="a file, or a folder to walk")
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="a weights file (default: the first in weights/)")
    parser.add_argument("--study", help="take the weights of this study (default: the first in weights/)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array, an object a file")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a table with a row a file")
    parser.add_argument("--level", type=float, default=0.9, help="coverage of the prediction set (%(default)s)")
    parser.add_argument("--judge-anyway", action="store_true",
                        help="for research: give a class even where the scan cannot be judged")
    parser.add_argument("--uncertainty", action="store_true",
                        help=f"give each probability an interval, from {dropout.PASSES} passes with dropout")
    parser.add_argument("--report", type=Path, metavar="DIR",
                        help="write a report of each scan with its heat map there: HTML, PDF, JSON and pictures")
    parser.add_argument("--language", choices=["en", "zh"], default="en", help="of the reports (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32",
                        help="bf16 only where the processor has it (%(default)s)")
    options = parser.parse_args(argv)
    if not 0.5 <= options.level < 1:
        parser.error(f"--level {options.level}: give a coverage from 0.5 to below 1, such as 0.9")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    try:
        weights = options.weights or find_weights(ROOT / "weights", options.study)
        diagnoser = Diagnoser(weights, options.device, options.precision)
        if options.uncertainty and diagnoser.no_passes:
            raise model.WeightsError(diagnoser.no_passes)
    except model.WeightsError as error:
        print(error, file=sys.stderr)
        return 2
    files = collect(options.scans)
    if not files:
        print(f"nothing to judge in {', '.join(map(str, options.scans))}; "
              f"readable are {', '.join(scans.READERS)}", file=sys.stderr)
        return 2
    if options.report and options.report.exists() and not options.report.is_dir():
        print(f"--report {options.report}: a file of that name is there; name a folder", file=sys.stderr)
        return 2
    records = []
    for file in tqdm(files, unit="scan", disable=len(files) < 2, leave=False):
        try:
            diagnosis = diagnoser(file, judge_anyway=options.judge_anyway, level=options.level,
                                  passes=dropout.PASSES if options.uncertainty else 0)
            written = {"report": file_report(diagnoser, diagnosis, options)} if options.report else {}
            records.append(diagnosis.record() | written)
        except scans.ScanError as error:
            records.append(error_record(scans.safe_name(file.name), error))
    if options.json:
        json.dump(records, sys.stdout, indent=2, ensure_ascii=False)
        print()
    elif options.csv:
        write_csv(options.csv, records, diagnoser.study.codes)
    else:
        calibrated = bool(diagnoser.weights.header.get("calibration", {}).get("scores"))
        print(table(records, calibrated))
        print(f"\n{diagnoser.weights.header.get('title', diagnoser.weights.name)}\n{NOTICE}")
    return 0 if all(record.get("label") for record in records) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
