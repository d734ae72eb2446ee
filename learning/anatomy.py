"""What a cohort's brains measure at each severity, for the header of weights that learned from it.

    python -m learning.anatomy WEIGHTS --data cohort/ [--limit N]

Training writes it by itself where the contract asks for the segmenter; the command does it for any weights of an
ordered study that have a segmenter beside them.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

import model
from data.cases import Case, find
from data.tables import DataError
from diagnosis.agreement import FEWEST, cohort_table
from diagnosis.anatomy.segment import SegmenterWeights, segment
from diagnosis.diagnoser import BESIDE, measured, open_segmenter
from scans.prepare import prepare
from scans.processes import read
from scans.scan import ScanError
from scoring.card import card
from studies import HEAD, Study

TRUTH = "truth.csv"  # of a simulated cohort: what each head truly lost


def anatomy(
    cases: Sequence[Case],
    study: Study,
    segmenter: SegmenterWeights,
    folder: Path,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The header's `anatomy` of these cases; empty for a study without an order, or where they are too few."""
    if not study.ordered or len(cases) < FEWEST:
        return {}
    rows = list(_measured(cases, severities(cases, study, folder), segmenter, progress))
    return cohort_table(rows, segmenter.sha256, f"“{folder.name}”") if len(rows) >= FEWEST else {}


def severities(cases: Sequence[Case], study: Study, folder: Path) -> list[float]:
    """The true severity of each case where the folder's truth.csv tells it, else that of its label."""
    known = {}
    if (folder / TRUTH).is_file():
        with (folder / TRUTH).open(encoding="utf-8", newline="") as file:
            known = {(folder / row["file"]).resolve(): float(row["severity"]) for row in csv.DictReader(file)}
    by_label = {label.code: float(label.severity or 0) for label in study.labels}
    return [known.get(case.file.resolve(), by_label[case.label]) for case in cases]


def _measured(
    cases: Sequence[Case], known: list[float], segmenter: SegmenterWeights, progress: Callable[[], object]
) -> Iterator[tuple[float, dict[str, float]]]:
    """Severity and measures of each case; what cannot be read or measured is named and left out."""
    for case, severity in zip(cases, known, strict=True):
        progress()
        try:
            values, _ = measured(segment(segmenter, prepare(read(case.file), HEAD)))
        except (ScanError, ValueError) as error:
            print(f"left out: {case.file.name}: {error}", file=sys.stderr)
            continue
        if values is None:
            print(f"left out: {case.file.name}: what was outlined is no head", file=sys.stderr)
            continue
        yield severity, {name: value.value for name, value in values.items()}


def add(path: Path, table: dict[str, Any]) -> None:
    """Write the table into the header of a weights file, in place of the one that was there, and on its card."""
    weights = model.load(path, "cpu")
    header = replace(weights.header, anatomy=table)
    model.save(path, weights.network, replace(header, card=card(header)), weights.extras)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path, help="the weights file, which is written anew")
    parser.add_argument("--data", type=Path, required=True, help="labelled scans, as train.py takes them")
    parser.add_argument("--limit", type=int, metavar="N", help="measure at most so many, spread over all")
    options = parser.parse_args(argv)
    try:
        study = model.read_header(options.weights).study
        segmenter = open_segmenter(BESIDE, options.weights.parent, "auto")
        if segmenter is None:
            raise model.WeightsError(f"{options.weights.name}: no {model.SEGMENTER} beside it; put one there")
        cases = find(options.data, study)
        cases = cases[:: max(1, -(-len(cases) // options.limit))] if options.limit else cases
        bar = tqdm(total=len(cases), unit="scan", disable=None)
        table = anatomy(cases, study, segmenter, options.data, bar.update)
        bar.close()
    except (model.WeightsError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    if not table:
        print(
            f"{options.data}: {len(cases)} scans of {study.key}; an ordered study and {FEWEST} measured scans are "
            "needed",
            file=sys.stderr,
        )
        return 2
    add(options.weights, table)
    print(f"{options.weights.name}: anatomy of {table['cases']} scans by severity written into its header")
    return 0


if __name__ == "__main__":
    sys.exit(main())
