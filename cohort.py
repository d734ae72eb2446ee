"""The command line for a cohort: thousands of scans into one table, gone on with wherever it was stopped."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import model
from cohorts import pool
from cohorts.bids import Derivatives, group
from cohorts.inputs import BIDS_MARKS, Cohort, InputError, shard_of
from cohorts.judge import Plan, Wanted
from cohorts.pool import BATCH
from cohorts.progress import Progress
from cohorts.ray_cluster import in_actors
from cohorts.table.forms import FORMS
from cohorts.table.merge import merge, shard_name
from cohorts.table.results import Results
from diagnosis import options as judging
from diagnosis.diagnoser import find_weights
from model import read_header
from reports.wording import languages
from scans import processes
from studies import NOTICE

ROOT = Path(__file__).resolve().parent
HERE = Path("OUT")  # a BIDS App's own folder
Answer = tuple[str, dict[str, Any] | None]  # a scan, and its record where it has none yet
SHOWN = 10  # refused files that are told at the end; all stand in the table


def shard(text: str) -> tuple[int, int]:
    try:
        return shard_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Judge a cohort: a row for each scan, gone on with wherever it was stopped.",
        usage="cohort.py SCANS --out RESULTS [options]\n       cohort.py BIDS OUT participant|group [options]\n"
        "       cohort.py merge SHARD [SHARD ...] --out RESULTS",
        epilog=f"The exit status is 0 when every scan has its row, refused ones too. {NOTICE}",
    )
    made.add_argument(
        "scans",
        metavar="SCANS",
        help="a folder, a BIDS dataset, a CSV with a column file, or an address such as s3://…",
    )
    made.add_argument(
        "derivatives", nargs="?", type=Path, metavar="OUT", help="as a BIDS App: the folder to write"
    )
    made.add_argument("analysis", nargs="?", choices=["participant", "group"], help="as a BIDS App: the level")
    made.add_argument("--out", type=Path, metavar="RESULTS", help=f"the table to write: {', '.join(FORMS)}")
    made.add_argument(
        "--participant-label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="of a BIDS dataset these participants alone",
    )
    judging.add_weights(made)
    judging.add_segmenter(made)
    judging.add_judging(made)
    made.add_argument(
        "--report", nargs="?", const=HERE, type=Path, metavar="DIR", help="write a report of each scan there"
    )
    made.add_argument(
        "--labels",
        nargs="?",
        const=HERE,
        type=Path,
        metavar="DIR",
        help="write what was outlined in each scan there",
    )
    made.add_argument(
        "--maps",
        nargs="?",
        const=HERE,
        type=Path,
        metavar="DIR",
        help="write a heat map of each scan there, as NIfTI",
    )
    made.add_argument("--language", choices=list(languages()), default="en", help="of the reports (%(default)s)")
    made.add_argument("--retry", action="store_true", help="try refused files again")
    made.add_argument("--anew", action="store_true", help="begin anew, whatever the table holds")
    made.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="judge the I-th of N parts alone")
    judging.add_device(made)
    made.add_argument(
        "--threads", type=int, default=0, metavar="N", help="scans in hand at once (default: by the machine)"
    )
    made.add_argument("--batch", type=int, default=BATCH, help="scans that a GPU takes at once (%(default)s)")
    made.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="judge on a Ray cluster (default: one on this machine)",
    )
    made.add_argument(
        "--actors", type=int, default=0, metavar="N", help="with --ray (default: one for each GPU, or else core)"
    )
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    known = parser()
    options = known.parse_args(argv)
    judging.check_judging(known, options)
    if options.threads < 0 or options.batch < 1 or options.actors < 0:
        known.error("--threads, --batch and --actors: give a number from 1 on")
    app = options.derivatives is not None
    if app == (options.out is not None) or app != (options.analysis is not None):
        known.error("give --out RESULTS, or, as a BIDS App, the folder OUT and participant or group")
    if app and options.shard != (1, 1):
        known.error("--shard: a BIDS App is shared out by --participant-label")
    for name in ("report", "labels", "maps"):
        folder = getattr(options, name)
        if folder == HERE and not app:
            known.error(f"--{name}: name a folder")
        if folder and folder.exists() and not folder.is_dir():
            known.error(f"--{name} {folder}: a file of that name is there; name a folder")
        if folder and app:
            setattr(options, name, options.derivatives)
    return options


def gathered(options: argparse.Namespace) -> Cohort:
    """The scans that are meant."""
    remote = "://" in options.scans
    outputs = (options.report, options.labels, options.maps, options.derivatives)
    labels = frozenset(label.removeprefix("sub-") for label in options.participant_label)
    return Cohort(
        options.scans if remote else Path(options.scans),
        tuple(folder for folder in outputs if folder),
        options.shard,
        labels,
        read_header(options.weights).study.contract.kind == "volume",
    )


def run(options: argparse.Namespace) -> int:
    """Judge what has no row yet."""
    if options.analysis == "group":
        print(f"{options.derivatives}: {group(options.derivatives):,} rows in phenotype/scanwise.tsv")
        return 0
    options.weights = options.weights or find_weights(ROOT / "weights", options.study)
    processes.warm()  # it starts while the scans are counted
    cohort = gathered(options)
    if options.derivatives and not cohort.is_bids:
        raise InputError(f"{options.scans}: no BIDS dataset; it has no {' or '.join(BIDS_MARKS)}")
    total = cohort.count()
    if not total and options.shard == (1, 1):
        raise InputError(f"{options.scans}: nothing to judge in it; a folder of scans, or a CSV, is wanted")
    wanted = Wanted(
        options.level,
        options.judge_anyway,
        options.uncertainty,
        cohort.is_bids,
        options.report,
        options.labels,
        options.maps,
        options.language,
        derivatives=options.derivatives is not None,
    )
    plan = Plan(
        options.weights.resolve(), wanted, options.segmenter, options.device, options.precision, options.batch
    )
    judge = (plan if options.ray is None else replace(plan, device="cpu", precision="auto")).open()
    results: Results | Derivatives
    if options.derivatives:
        results = Derivatives(options.derivatives, cohort.participants)
    else:
        results = Results(shard_name(options.out, options.shard), judge.columns(), whole=options.shard != (1, 1))
    results.begin(judge.made, options.retry, options.anew)
    known = results.kept
    answers: Iterator[Answer]
    if options.ray is None:
        threads = options.threads or pool.threads_for(judge.diagnoser.weights.device, options.batch)
        answers = pool.in_threads(
            lambda item: (item.file, judge(item, known.get(item.file))), iter(cohort), threads
        )
    else:
        work = ((item, known.get(item.file)) for item in cohort)
        answers = in_actors(plan, judge.refused, work, options.ray, options.actors)
    print(written(answers, results, total))
    return 0


def written(answers: Iterator[Answer], results: Results | Derivatives, total: int) -> str:
    """Put every answer in its place as it comes; what came of it, in words."""
    progress = Progress(total)
    refused: list[str] = []
    try:
        for file, record in answers:
            if record is None:
                results.keep(file)
                progress.kept()
                continue
            results.append(record)
            progress.count("error" in record)
            if "error" in record and len(refused) < SHOWN:
                refused.append(f"  {file}: {record['error']['message']}")
        results.finish()
    finally:
        progress.close()
        results.close()
    return summary(progress, results, refused)


def summary(progress: Progress, results: Results | Derivatives, refused: list[str]) -> str:
    """What came of it, in words."""
    said = [f"{results.path}: {progress.judged:,} scans judged, {progress.done - progress.judged:,} were there"]
    if results.kept:
        said.append(f"{len(results.kept):,} answers are of files that this run was not given")
    told = results.refused + progress.refused
    if told:
        said.append(f"{told:,} refused, each with its reason; `--retry` tries them again")
    return "\n".join([*said, *refused, *(["  …"] if progress.refused > len(refused) else [])])


def merge_shards(argv: Sequence[str]) -> int:
    made = argparse.ArgumentParser(prog="cohort.py merge", description="Put the tables of all shards into one.")
    made.add_argument("shards", nargs="+", type=Path, metavar="SHARD", help="the tables that --shard wrote")
    made.add_argument("--out", type=Path, metavar="RESULTS", required=True, help="the table to write")
    options = made.parse_args(argv)
    print(f"{options.out}: {merge(options.shards, options.out):,} rows")
    return 0


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    before = signal.signal(signal.SIGTERM, interrupted)  # how a queue of jobs ends one
    try:
        return merge_shards(argv[1:]) if argv[:1] == ["merge"] else run(parse(argv))
    except (InputError, model.WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'a file'}: {error.strerror}; the same command goes on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
