"""What the benchmarks share: calls timed in turn, peak memory of a process of its own, and plain tables."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each call, taken A B C A B C in one process, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def own_peak_mb() -> float:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory from before exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def peak_mb(script: str, *arguments: str) -> float:
    """Peak memory that a fresh process of the script says it held; it must print nothing else last."""
    command = [sys.executable, "-m", f"benchmarks.{Path(script).stem}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns wide enough for their longest cell, the first to the left, the others to the right."""
    cells = [list(head), *([("–" if cell is None else str(cell)) for cell in row] for row in rows)]
    width = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in width), *lines[1:]])


def finish(figures: dict, text: str, as_json: bool) -> None:
    """One JSON object, or the tables, on standard output."""
    if as_json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        print(text)
