"""Ten thousand small scans, and `cohort.py` killed on the way: is every row there once, and memory flat?

    python -m benchmarks.soak_cohort [--scans 10000] [--kills 3] [--suffix .csv]

The command is killed with SIGKILL when its table has grown by an equal part, at no moment that it could choose,
and started again each time. Afterwards every scan must have one row, none may be torn, and within each run the
memory of the command and its readers may lie at most 10 % above what it was once warm. Exit status 1 otherwise.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks.side_by_side import ROOT, table
from tests import heads, small_scans

ALLOWED = 1.10
WARM = 300  # scans of a run after which memory is taken for what it is
LOOK = 0.25  # seconds between two looks
FOLDER = 100  # scans of a folder


def made(folder: Path, count: int) -> set[str]:
    """So many small scans, each its own; their paths below the folder."""
    random_voxels, files = np.random.default_rng(5), set()
    for number in range(count):
        name = f"{number // FOLDER:03}/{number:05}.nii.gz"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        voxels = random_voxels.integers(1, 60, (12, 12, 12)).astype(np.int16)
        heads.save(folder / name, voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
        files.add(name)
    return files


def rows(path: Path) -> list[str]:
    """The file that each row is of; whatever is torn raises."""
    if path.suffix == ".jsonl":
        return [json.loads(line)["file"] for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines, strict=True)
        width = len(next(reader))
        found = list(reader)
    assert all(len(row) == width for row in found), "a torn row"
    return [row[0] for row in found]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def memory(started: psutil.Process) -> float:
    """MB of the command and all that it started."""
    total = 0
    for process in [started, *started.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / (1 << 20)


class Run:
    """The command once: from its start until it ends, or is killed."""

    def __init__(self, command: list[str], out: Path, enough: Callable[[int], bool]):
        self.samples: list[float] = []  # of memory, once warm
        self.began, before, self.killed = time.monotonic(), lines_of(out), False
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(LOOK)
            there = lines_of(out)
            if there - before > WARM:
                self.samples.append(memory(watched))
            if enough(there):
                process.kill()
                self.killed = True
                break
        self.said = process.communicate()[0]
        if not self.killed:
            del self.samples[-2:]  # of its end
        self.status, self.rows = process.returncode, lines_of(out) - before
        self.seconds = time.monotonic() - self.began

    @property
    def warm(self) -> float:
        """The median of the first tenth of what was seen."""
        return statistics.median(self.samples[: max(1, len(self.samples) // 10)])

    @property
    def late(self) -> float:
        """The median of the last tenth."""
        return statistics.median(self.samples[-max(1, len(self.samples) // 10) :])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scans", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="how often the command is killed (%(default)s)")
    parser.add_argument("--suffix", choices=[".csv", ".jsonl"], default=".csv", help="of the table (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (%(default)s)")
    options = parser.parse_args(argv)
    luck, runs = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "scans", Path(name) / f"answers{options.suffix}"
        files, weights = made(folder, options.scans), small_scans.weights(Path(name))
        command = [sys.executable, "cohort.py", folder, "--out", out, "--weights", weights, "--device", "cpu"]
        for number in range(options.kills + 1):
            share = (number + luck.uniform(0.8, 1.2)) / (options.kills + 1) if number else luck.uniform(0.2, 0.3)
            end = options.scans * share if number < options.kills else float("inf")
            runs.append(Run(list(map(str, command)), out, lambda there, end=end: there > end))
        count = Counter(rows(out))
    told = [
        [
            "killed" if run.killed else f"ended with {run.status}",
            f"{run.rows:,}",
            f"{run.seconds:.0f} s",
            f"{run.warm:.0f} MB" if run.samples else None,
            f"{run.late:.0f} MB" if run.samples else None,
            f"{max(run.samples):.0f} MB" if run.samples else None,
        ]
        for run in runs
    ]
    print(f"{os.cpu_count()} cores, {options.scans:,} scans of 12×12×12 voxels, rows as {options.suffix}")
    print(table(["run", "rows", "took", "memory once warm", "at the end", "peak"], told))
    print(runs[-1].said.strip())
    missing, more = files - set(count), [file for file, times in count.items() if times > 1 or file not in files]
    print(f"{len(count):,} scans have a row, {len(missing):,} have none, {len(more):,} have more than one")
    grown = [run for run in runs if run.samples and max(run.samples) > ALLOWED * run.warm]
    wrong = [f"{len(missing):,} rows are missing"] if missing else []
    wrong += [f"{len(more):,} rows too many, such as {more[0]}"] if more else []
    wrong += [f"memory rose from {run.warm:.0f} to {max(run.samples):.0f} MB" for run in grown]
    wrong += [f"the last run ended with {runs[-1].status}"] if runs[-1].status else []
    wrong += [f"{run.status}: a run ended by itself" for run in runs[:-1] if not run.killed]
    print("; ".join(wrong) or f"every row is there once, memory stayed within {ALLOWED - 1:.0%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
