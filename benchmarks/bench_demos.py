"""What demonstration weights make of the people held out of their simulation, and of real pictures: printed.

    python -m benchmarks.bench_demos DIR [--weights DIR] [--limit N] [--json]

DIR holds a folder a study, named after it and laid out as for `train.py`. Of identical pictures one is kept. The
real pictures are scored as they are, also those that the gate refuses; how many it calls fit is printed beside.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import model
from data.cache import Cache
from data.cases import find
from data.leaks import deduplicate, fingerprints, leaks
from diagnosis.diagnoser import Diagnoser
from scoring.predictions import predict, readable
from scoring.scores import scores
from studies import Study

SHOWN = ("accuracy", "balanced_accuracy", "roc_auc", "severity_correlation")
JUDGED = 300  # pictures, at most, that the gate is asked about


def on_real(path: Path, study: Study, folder: Path, limit: int, rounds: int, workers: int) -> dict[str, Any]:
    """Scores on a folder of real pictures, over its people where it names them."""
    cases = find(folder, study)
    cases = deduplicate(cases, leaks(cases, fingerprints(cases)), refuse=False)
    cases = cases[:: max(1, math.ceil(len(cases) / limit))]
    weights = model.load(path, "cpu")
    with tempfile.TemporaryDirectory() as place:
        cache = Cache(Path(place), weights.contract, 10**10)
        predictions = predict(weights, readable(cases, cache, workers), cache, 16, workers)
    judge = Diagnoser(path, "cpu")
    asked = cases[:: max(1, len(cases) // JUDGED)]
    fit = sum(judge(case.file, judge_anyway=True).verdict == "fit" for case in asked)
    return scores(predictions, weights.header, rounds) | {"fit": f"{fit} of {len(asked)}"}


def told(measured: dict[str, Any]) -> str:
    """The scores in a line."""
    parts = []
    for name in SHOWN:
        score = measured["metrics"].get(name)
        if score and score["value"] is not None:
            spread = f" ({score['low']:.2f}–{score['high']:.2f})" if score["low"] is not None else ""
            parts.append(f"{name} {score['value']:.2f}{spread}")
    fit = f", fit {measured['fit']}" if "fit" in measured else ""
    return f"{', '.join(parts)}; {measured['cases']} pictures of {measured['subjects']}{fit}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--weights", type=Path, default=Path("weights"), metavar="DIR")
    parser.add_argument("--limit", type=int, default=2000, help="real pictures of a study, every so many-th")
    parser.add_argument("--rounds", type=int, default=1000, help="bootstrap rounds of the intervals")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="all scores")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for path in model.list_weights(args.weights):
        header = model.read_header(path)
        study = header.study
        if header.contract.kind != "image":
            continue
        rows = {"simulated": header.scores}
        if (args.data / study.key).is_dir():
            rows["real"] = on_real(path, study, args.data / study.key, args.limit, args.rounds, args.workers)
        found[path.name] = rows
        if not args.json:
            for kind, measured in rows.items():
                if measured:
                    print(f"{study.key:16} {kind:10} {told(measured)}", flush=True)
    if args.json:
        print(json.dumps(found, indent=1))
    if not found:
        print(f"{args.weights}: no weights of a picture study; `make demos` makes some", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
