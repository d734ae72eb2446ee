"""The command of the siege: each trial, what it did, how often each answer came, and whether that is right.

The exit status is 1 where one is not.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.siege import TRIALS, besieged
from benchmarks.siege.client import Trial


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.siege", description="Besiege the server over loopback.")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="trials whose name holds this word")
    options = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, besieged(Path(folder)) as server:
        process = psutil.Process(server.process.pid)
        print(f"{os.cpu_count()} cores; {process.memory_info().rss >> 20} MB at the start", flush=True)
        for name, trial in TRIALS.items():
            if options.only not in name:
                continue
            began = time.monotonic()
            try:
                found = trial(server, options.scale)
            except AssertionError as error:
                found = Trial(wrong=[str(error)])
            told = ", ".join(f"{key}: {count}" for key, count in sorted(found.seen.items()))
            print(
                f"{'WRONG' if found.wrong else 'held '}  {name} ({time.monotonic() - began:.0f} s): {told}",
                flush=True,
            )
            for words in sorted(set(found.wrong))[:5]:
                print(f"       {words}", flush=True)
            bad += bool(found.wrong)
            if server.process.poll() is None:
                held = f"{process.memory_info().rss >> 20} MB, {process.num_fds()} descriptors"
                log = f"{process.num_threads()} threads, {server.log.stat().st_size >> 10} kB of log"
                print(f"       {held}, {log}", flush=True)
    print(f"{bad} of the trials went wrong" if bad else "every trial held")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
