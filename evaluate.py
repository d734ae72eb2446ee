"""The command line that scores a weights file on labelled scans of people it never saw."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import model
from data.cache import Cache
from data.cases import Case, find
from data.splits import learned_from, read_split
from data.tables import GROUPS, DataError
from diagnosis.anatomy import structures
from diagnosis.diagnoser import check_segmenter
from networks.header import Header
from scans.files import write_bytes
from scans.scan import ScanError
from scoring import comparison, groups
from scoring.card import group_lines
from scoring.predictions import Predictions, predict, readable
from scoring.results import write
from scoring.scores import scores
from studies import to_json


def cases_to_score(cases: list[Case], part: str | None, header: Header) -> list[Case]:
    """The cases to score: the test part where there is one; never subjects that were learned from, unasked."""
    if part is None:
        part = "test" if any(case.split == "test" for case in cases) else "all"
    cases = [case for case in cases if part in ("all", case.split)]
    if not cases:
        raise DataError(f"no case in part {part}; give --part all, or a --split file that has it")
    if part in ("train", "val"):
        return cases
    known = sorted(learned_from(header, {case.subject for case in cases}))
    if known:
        more = f" and {len(known) - 10} more" if len(known) > 10 else ""
        raise DataError(
            f"{len(known)} of {len({case.subject for case in cases})} subjects were learned from: "
            f"{', '.join(known[:10])}{more}. Score others, such as the test part of the split.csv "
            "that train.py wrote (--split FILE), or ask for --part train or val: the card will say so"
        )
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Score a weights file on labelled scans of people it never saw."
    )
    add = parser.add_argument
    add("weights", type=Path, metavar="WEIGHTS")
    add("--data", type=Path, required=True, metavar="DIR", help="as for train.py")
    add("--split", type=Path, metavar="FILE", help="a CSV that says which case is in which part")
    add("--part", choices=("test", "val", "train", "all"), help="what to score (default test, else all)")
    add("--out", type=Path, metavar="FOLDER", help="where to write (default runs/evaluate-TIME)")
    add("--against", type=Path, metavar="WEIGHTS", help="compare with these on the same people: what is chance?")
    add("--by", metavar="A,B", help=f"score groups apart: {', '.join(GROUPS)}, as the data's table tells them")
    add("--allow-network", action="append", default=[], metavar="MODULE:CLASS", help="start this code for a file")
    add("--subject-regex", help="finds the subject in a file's path")
    add("--label-column", help="of participants.tsv")
    add("--cache", type=Path, default=Path(".cache/prepared"), metavar="DIR", help="prepared scans")
    add("--cache-limit", type=float, default=64.0, metavar="GB")
    add("--device", default="auto")
    add("--batch", type=int, default=4)
    add("--workers", type=int, default=2)
    add("--rounds", type=int, default=1000, help="bootstrap rounds of the intervals")
    add("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    try:
        for name in args.allow_network:
            model.allow_network(name)
        out = evaluate(args)
    except (DataError, ScanError, model.WeightsError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


def evaluate(args: argparse.Namespace) -> Path:
    weights = model.load(args.weights, args.device)
    study, root = weights.study, args.data if args.data.is_dir() else args.data.parent
    cases = (
        read_split(args.split, root, study)
        if args.split
        else find(args.data, study, args.subject_regex, args.label_column)
    )
    cases = cases_to_score(cases, args.part, weights.header)
    other = model.load(args.against, args.device) if args.against else None
    if other:
        cases_to_score(cases, args.part or "all", other.header)
    predictions = answers(weights, args.weights, cases, args)
    measured = scores(predictions, weights.header, args.rounds, args.seed)
    if args.by:
        measured["groups"] = groups.by(predictions, weights.header, args.by.split(","), args.rounds, args.seed)
    part = f", part “{args.part}”" if args.part else ""
    seen = " (learned from: this is no score on new people)" if args.part in ("train", "val") else ""
    measured = {
        "cohort": f"“{args.data.resolve().name}”{part}{seen}",
        "weights": weights.name,
        "sha256": weights.sha256,
        **measured,
    }
    out = args.out or Path(f"runs/evaluate-{time.strftime('%Y%m%d-%H%M%S')}")
    write(out, replace(weights.header, scores=measured), predictions, root)
    for name, score in measured["metrics"].items():
        if score["value"] is not None:
            spread = f"  ({score['low']:.3f} to {score['high']:.3f})" if score["low"] is not None else ""
            print(f"{name:28} {score['value']:.3f}{spread}")
    if args.by:
        print(*group_lines(measured["groups"]), sep="\n")
    if other:
        of_other = answers(other, args.against, cases, args)
        found = comparison.compare((predictions, weights.header), (of_other, other.header), args.rounds, args.seed)
        found |= {"one": weights.name, "other": other.name}
        write_bytes(out / "comparison.json", to_json(found, indent=1).encode())
        print(f"one is {weights.name}, the other {other.name}", *comparison.lines(found), sep="\n")
    return out


def answers(weights: model.Weights, path: Path, cases: list[Case], args: argparse.Namespace) -> Predictions:
    """What a network says of the cases, each prepared as its own weights file says."""
    to_input = structures.input_of(weights.contract, path.parent, model.WEIGHTS)
    check_segmenter(weights, to_input.weights if to_input else None)
    cache = Cache(args.cache, weights.contract, int(args.cache_limit * 1e9), to_input)
    return predict(weights, readable(cases, cache, args.workers), cache, args.batch, args.workers)


if __name__ == "__main__":
    sys.exit(main())
