"""A cohort on one machine: a plain loop over `Diagnoser`, `cohort.py`, two shards, Ray with one and two actors.

    python -m benchmarks.bench_cohort [--scan FILE] [--scans N] [--rounds N] [--only NAME ...] [--json]

Each contender is a process of its own that judges the same number of copies of one scan, the first few to warm up;
they are taken in turn (A B A B). Seconds are those between the first and the last row; busy cores are the
processor's time of the process and all it started, divided by them; memory is the sum of the peaks of all. On a
machine that has other work, "wanted" tells how many cores would have been busy: it counts the time that threads
waited for one, too. `measured` are the same with measures. By default the network is untrained, which costs as
much as a trained one; weights that judge what is outlined are only measured.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

import model
from benchmarks.bench_diagnose import untrained
from benchmarks.side_by_side import ROOT, finish, table
from cohorts.inputs import Cohort
from cohorts.judge import Plan, Wanted
from cohorts.pool import in_threads, threads_for
from cohorts.ray_cluster import in_actors
from cohorts.table.merge import shard_name
from cohorts.table.results import Results
from diagnosis.diagnoser import NONE, Diagnoser

WARM = 6  # scans before the clock starts


def usage(started: psutil.Process) -> tuple[float, float, float]:
    """Of a process and all that it started: seconds of processor, seconds of waiting for one, peak MB."""
    spent = waited = peak = 0.0
    for process in [started, *started.children(recursive=True)]:
        try:
            times, place = process.cpu_times(), Path(f"/proc/{process.pid}")
            status = (place / "status").read_text(encoding="ascii", errors="replace")
            stats = [(task / "schedstat").read_text().split() for task in (place / "task").iterdir()]
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
        spent += times.user + times.system
        waited += sum(int(one[1]) for one in stats) / 1e9
        peak += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return spent, waited, peak


class Clock:
    """Starts when the warm-up is over, and stops at the last scan, while all are still alive."""

    def __init__(self, total: int) -> None:
        self.me, self.count, self.total = psutil.Process(), 0, total
        self.start = self.spent = self.waited = 0.0
        self.final: dict[str, float] | None = None

    def tick(self) -> None:
        self.count += 1
        if self.count == WARM:
            self.spent, self.waited, _ = usage(self.me)
            self.start = time.perf_counter()
        if self.count == self.total:
            self.final = self.told()

    def told(self) -> dict[str, float]:
        seconds, (spent, waited, peak) = time.perf_counter() - self.start, usage(self.me)
        figures = {"scans": self.count - WARM, "seconds": seconds, "peak_mb": peak}
        return figures | {"cpu": spent - self.spent, "waited": waited - self.waited}


# --- the contenders, each in a process of its own ----------------------------------------------------------------


def loop(folder: Path, plan: Plan, clock: Clock) -> None:
    """As anybody would write it, on all cores that torch takes."""
    diagnoser = Diagnoser(plan.weights, plan.device, plan.precision, plan.segmenter)
    for item in Cohort(folder):
        diagnoser(item.path)
        clock.tick()


def pooled(folder: Path, plan: Plan, clock: Clock, shard: tuple[int, int] = (1, 1), threads: int = 0) -> None:
    judge = plan.open()
    work = iter(Cohort(folder, shard=shard))
    answers = in_threads(judge, work, threads or threads_for(judge.diagnoser.weights.device, plan.batch))
    written(folder, judge.columns(), judge.made, answers, clock, shard)


def shard(number: int) -> Callable[[Path, Plan, Clock], None]:
    return lambda folder, plan, clock: pooled(folder, plan, clock, (number, 2), 2)


def on_ray(actors: int) -> Callable[[Path, Plan, Clock], None]:
    def contender(folder: Path, plan: Plan, clock: Clock) -> None:
        judge = plan.open()
        work = ((item, None) for item in Cohort(folder))
        answers = (record for _, record in in_actors(plan, judge.refused, work, "", actors))
        written(folder, judge.columns(), judge.made, answers, clock)

    return contender


def written(folder: Path, columns, made, answers: Iterator, clock: Clock, shard: tuple[int, int] = (1, 1)) -> None:
    with tempfile.TemporaryDirectory() as place:
        results = Results(shard_name(Path(place) / "answers.csv", shard), columns)
        results.begin(made)
        for record in answers:
            if "error" in record:
                raise SystemExit(record["error"]["message"])
            results.append(record)
            clock.tick()
        results.finish()


SHARDS = {"1/2": (1, 2), "2/2": (2, 2)}
RUNS: dict[str, Callable[[Path, Plan, Clock], None]] = {
    "loop": loop,
    "cohort": pooled,
    "1/2": shard(1),
    "2/2": shard(2),
    "ray-1": on_ray(1),
    "ray-2": on_ray(2),
}
# what stands in the table → the processes that run together for it
CONTENDERS = {
    "plain loop": ("loop",),
    "cohort.py": ("cohort",),
    "two shards": ("1/2", "2/2"),
    "Ray, 1 actor": ("ray-1",),
    "Ray, 2 actors": ("ray-2",),
}


def alone(options: argparse.Namespace) -> None:
    """One contender in this process: its figures as the last line."""
    if options.threads:
        torch.set_num_threads(options.threads)
    plan = Plan(options.weights, Wanted(judge_anyway=True), options.segmenter, options.device, batch=options.batch)
    clock = Clock(Cohort(options.folder, shard=SHARDS.get(options.child, (1, 1))).count())
    RUNS[options.child](options.folder, plan, clock)
    print(json.dumps(clock.final))


def measured(options: argparse.Namespace, name: str, folder: Path, segmenter: str) -> dict[str, float]:
    """The figures of one contender, in fresh processes."""
    command = [sys.executable, "-m", f"benchmarks.{Path(__file__).stem}", "--folder", folder]
    command += ["--weights", options.weights, "--segmenter", segmenter, "--device", options.device]
    command += ["--batch", options.batch, "--threads", options.threads, "--child"]
    started = [
        subprocess.Popen(list(map(str, [*command, run])), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for run in CONTENDERS[name]
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name} failed")
    parts = [json.loads(text.splitlines()[-1]) for text in said]
    rate = sum(part["scans"] / part["seconds"] for part in parts)
    return {
        "rate": rate,
        "cpu_a_scan": sum(part["cpu"] for part in parts) / sum(part["scans"] for part in parts),
        "busy": sum(part["cpu"] / part["seconds"] for part in parts),
        "wanted": sum((part["cpu"] + part["waited"]) / part["seconds"] for part in parts),
        "peak_mb": sum(part["peak_mb"] for part in parts),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scan", type=Path, default=ROOT / "demodata" / "demo.nii.gz", help="which (default: the example)"
    )
    parser.add_argument("--weights", type=Path, help="a weights file beside its segmenter (default: untrained)")
    parser.add_argument("--scans", type=int, default=60, help="how many each judges (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="these contenders alone")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="scans that a GPU takes at once (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of torch in the plain loop (default: its choice)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--segmenter", default=NONE, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.child:
        alone(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scans"
        folder.mkdir()
        given = options.weights
        options.weights = (given or untrained(Path(name))).resolve()
        ending = "".join(options.scan.suffixes[-2:])
        for number in range(options.scans + WARM):
            (folder / f"{number}{ending}").symlink_to(options.scan.resolve())
        segmenter_file = (given.parent if given else model.WEIGHTS) / model.SEGMENTER
        segmenters = {} if model.read_header(options.weights).contract.outlined else {"": NONE}
        if segmenter_file.is_file():
            segmenters[", measured"] = str(segmenter_file.resolve())
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for contender in options.only or CONTENDERS:
                for more, segmenter in segmenters.items():
                    figures = measured(options, contender, folder, segmenter)
                    rounds.setdefault(contender + more, []).append(figures)
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in rounds.items()
    }
    cores = len(psutil.Process().cpu_affinity())
    first = {more: medians.get(f"plain loop{more}") for more in segmenters}
    rows = []
    for name, row in medians.items():
        plain = first[", measured" if name.endswith(", measured") else ""]
        rows.append(
            [
                name,
                f"{row['rate']:.2f}",
                f"{row['rate'] / plain['rate']:.2f} ×" if plain else None,
                f"{row['cpu_a_scan']:.3f} s",
                f"{row['busy']:.2f} of {cores}",
                f"{row['wanted']:.2f}",
                f"{row['peak_mb']:.0f} MB",
            ]
        )
    head = ["a cohort", "scans a second", "against the loop", "processor a scan", "cores busy", "wanted", "peak"]
    finish({"contenders": medians, "cores": cores}, table(head, rows), options.json)


if __name__ == "__main__":
    main()
