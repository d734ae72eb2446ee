"""The command line for a cohort: thousands of scans into one table, gone on with wherever it was stopped."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

import model
from cohorts import pool
from cohorts.forms import FORMS
from cohorts.inputs import Cohort, InputError, shard_of
from cohorts.judge import Judge, Wanted
from cohorts.merge import merge, shard_name
from cohorts.progress import Progress
from cohorts.results import Results
from cohorts.rows import Columns
from diagnosis.diagnoser import BESIDE, NONE, Diagnoser, find_weights
from diagnosis.measures import MEASURES
from networks import dropout
from networks.forward import PRECISIONS
from reports.wording import languages
from scans import processes
from studies import NOTICE

ROOT = Path(__file__).resolve().parent
SHOWN = 10  # refused files that are told at the end; all stand in the table


def shard(text: str) -> tuple[int, int]:
    try:
        return shard_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Judge a cohort: a row for each scan, gone on with wherever it was stopped.",
        usage="cohort.py SCANS --out RESULTS [options]\n       cohort.py merge SHARD [SHARD ...] --out RESULTS",
        epilog=f"The exit status is 0 when every scan has its row, refused ones too. {NOTICE}",
    )
    made.add_argument(
        "scans", type=Path, metavar="SCANS", help="a folder, a BIDS dataset, or a CSV with a column file"
    )
    made.add_argument(
        "--out", type=Path, metavar="RESULTS", required=True, help=f"the table to write: {', '.join(FORMS)}"
    )
    made.add_argument("--weights", type=Path, metavar="FILE", help="the network (default: the first in weights/)")
    made.add_argument("--study", help="take the weights of this study (default: the first in weights/)")
    made.add_argument(
        "--segmenter",
        default=BESIDE,
        metavar="FILE",
        help=f"what measures the brain: a weights file, or {NONE} (default: {model.SEGMENTER} beside the weights)",
    )
    made.add_argument("--level", type=float, default=0.9, help="coverage of the prediction set (%(default)s)")
    made.add_argument(
        "--judge-anyway",
        action="store_true",
        help="for research: give a class where the gate says no, too",
    )
    made.add_argument(
        "--uncertainty",
        action="store_true",
        help=f"give each probability an interval, from {dropout.PASSES} passes with dropout",
    )
    made.add_argument("--report", type=Path, metavar="DIR", help="write a report of each scan there")
    made.add_argument("--labels", type=Path, metavar="DIR", help="write what was outlined in each scan there")
    made.add_argument("--maps", type=Path, metavar="DIR", help="write a heat map of each scan there, as NIfTI")
    made.add_argument("--language", choices=list(languages()), default="en", help="of the reports (%(default)s)")
    made.add_argument("--retry", action="store_true", help="try refused files again")
    made.add_argument("--anew", action="store_true", help="begin anew, whatever the table holds")
    made.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="judge the I-th of N parts alone")
    made.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    made.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the network (%(default)s)")
    made.add_argument(
        "--threads", type=int, default=0, metavar="N", help="scans in hand at once (default: by cores)"
    )
    made.add_argument("--batch", type=int, default=pool.BATCH, help="scans that a GPU takes at once (%(default)s)")
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    known = parser()
    options = known.parse_args(argv)
    if not 0.5 <= options.level < 1:
        known.error(f"--level {options.level}: give a coverage from 0.5 to below 1, such as 0.9")
    if options.threads < 0 or options.batch < 1:
        known.error("--threads and --batch: give a number from 1 on")
    for name in ("report", "labels", "maps"):
        folder = getattr(options, name)
        if folder and folder.exists() and not folder.is_dir():
            known.error(f"--{name} {folder}: a file of that name is there; name a folder")
    return options


def load(options: argparse.Namespace) -> Diagnoser:
    """The diagnoser, its network ready for many scans at once."""
    torch.set_num_threads(1)  # a core for each scan
    weights = options.weights or find_weights(ROOT / "weights", options.study)
    diagnoser = Diagnoser(weights, options.device, options.precision, options.segmenter)
    if options.uncertainty and diagnoser.why_no_uncertainty:
        raise model.WeightsError(diagnoser.why_no_uncertainty)
    if options.labels and diagnoser.segmenter is None:
        raise model.WeightsError(f"--labels {options.labels}: nothing outlines scans here; name a --segmenter")
    if diagnoser.weights.device.type == "cuda":
        diagnoser.forward = pool.Batched(diagnoser.forward, options.batch)
    return diagnoser


def run(options: argparse.Namespace) -> int:
    """Judge what has no row yet; the number of scans that were refused in this run."""
    processes.warm()  # it starts while the weights are loaded
    outputs = [folder for folder in (options.report, options.labels, options.maps) if folder]
    cohort = Cohort(options.scans, tuple(outputs), options.shard)
    total = cohort.count()
    if not total and options.shard == (1, 1):
        raise InputError(f"{options.scans}: nothing to judge in it; a folder of scans, or a CSV, is wanted")
    diagnoser = load(options)
    wanted = Wanted(
        options.level,
        options.judge_anyway,
        options.uncertainty,
        cohort.is_bids,
        options.report,
        options.labels,
        options.maps,
        options.language,
    )
    judge = Judge(diagnoser, wanted)
    columns = Columns(
        diagnoser.study.codes,
        options.uncertainty,
        tuple(MEASURES) if diagnoser.segmenter else (),
        cohort.is_bids,
        provenance=True,
    )
    results = Results(shard_name(options.out, options.shard), columns, whole=options.shard != (1, 1))
    results.begin(judge.made, options.retry, options.anew)
    progress = Progress(total)
    refused: list[str] = []
    try:
        known = results.kept
        threads = options.threads or pool.threads_for(diagnoser.weights.device, options.batch)
        for file, record in pool.in_threads(
            lambda item: (item.file, judge(item, known.get(item.file))), iter(cohort), threads
        ):
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
    print(summary(progress, results, refused))
    return 0


def summary(progress: Progress, results: Results, refused: list[str]) -> str:
    """What came of it, in words."""
    said = [f"{results.path}: {progress.judged:,} scans judged, {progress.done - progress.judged:,} were there"]
    if results.kept:
        said.append(f"{len(results.kept):,} rows are of files that this run was not given")
    told = results.refused + progress.refused
    if told:
        said.append(f"{told:,} refused, told in the column `reasons`; `--retry` tries them again")
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
