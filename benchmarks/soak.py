"""Half an hour of mixed load with faults on the way: does the server stay as it was?

    python -m benchmarks.soak [--minutes 30] [--seed 1]

People send scans, ask for reports, open pages and leave, hang up, guess passwords; meanwhile reader processes are
killed and the uploads folder vanishes. Afterwards memory must lie within 5 % of what it was once warm, no file,
thread or descriptor may be left over, and the log must not have been flooded. Loopback only; exit status 1
otherwise.
"""

import argparse
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.siege import besieged
from benchmarks.siege.client import (
    ANALYSIS,
    FORM,
    KEY,
    PART,
    TIMEOUT,
    abort,
    ask,
    head,
    health,
    heard,
    line,
    post,
    quiet,
)
from benchmarks.siege.pages import upgrade
from tests.support import Server

WARM = 0.2  # of the time, after which memory is taken for what it is
ALLOWED = 1.05
LOG = 256 << 10  # bytes of log a minute
PEOPLE = 3
FAULTS = 45  # seconds between two of them


class Soak:
    """One run: what people do, what breaks, and what is counted."""

    def __init__(self, server: Server, seconds: float, seed: int):
        self.server, self.end = server, time.monotonic() + seconds
        self.scan = (server.uploads.parent / "head.nii.gz").read_bytes()
        self.luck = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()

    def count(self, what: str) -> None:
        with self.lock:
            self.seen[what] += 1

    # --- what people do ----------------------------------------------------------------------------------

    def scan_sent(self, source: str) -> str:
        return post(self.server, PART + self.scan + b"\r\n--x--\r\n", source=source)[0]

    def report_asked(self, source: str) -> str:
        kind = self.luck.choice((b"text/html", b"application/pdf"))
        return post(self.server, PART + self.scan + b"\r\n--x--\r\n", b"Accept: " + kind + b"\r\n", source=source)[
            0
        ]

    def broken_scan(self, source: str) -> str:
        data = bytearray(self.scan)
        for _ in range(20):
            data[self.luck.randrange(len(data))] = self.luck.randrange(256)
        return post(self.server, PART + bytes(data) + b"\r\n--x--\r\n", source=source)[0]

    def hung_up(self, source: str) -> str:
        for _ in range(20):
            length = f"Content-Length: {len(self.scan) + 1000}\r\n".encode()
            abort(self.server, head(self.server, f"POST {ANALYSIS}", KEY, FORM, length) + PART)
        return "20"

    def page_left(self, source: str) -> str:
        with contextlib.ExitStack() as lines:
            return upgrade(self.server, source, lines)[1]

    def guessed(self, source: str) -> str:
        guess = b"Authorization: Bearer guess\r\n"
        return ask(self.server, head(self.server, "GET /studies", guess), f"127.0.40.{self.luck.randint(1, 9)}")[0]

    def looked(self, source: str) -> str:
        path = self.luck.choice(("/", "/healthz", "/studies", "/metrics", "/web/page.js", "/nothing"))
        return ask(self.server, head(self.server, f"GET {path}", KEY), source)[0]

    def silent(self, source: str) -> str:
        with line(self.server, source, 10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            return heard(connection)[0]

    def person(self, number: int) -> None:
        doings: list[tuple[Callable[[str], str], int]] = [
            (self.scan_sent, 6), (self.report_asked, 2), (self.broken_scan, 4), (self.hung_up, 2),
            (self.page_left, 4), (self.guessed, 1), (self.looked, 6), (self.silent, 1),
        ]  # fmt: skip
        while time.monotonic() < self.end:
            doing = self.luck.choices([one for one, _ in doings], [share for _, share in doings])[0]
            try:
                status = doing(f"127.0.30.{1 + number}")
            except OSError as error:
                status = type(error).__name__
            self.count(f"{doing.__name__.replace('_', ' ')}: {status}")

    # --- what breaks -------------------------------------------------------------------------------------

    def break_something(self) -> None:
        process = psutil.Process(self.server.process.pid)
        children = process.children(recursive=True)
        if children and self.luck.random() < 0.6:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.luck.choice(children).kill()
            self.count("fault: a reader killed")
        else:
            shutil.rmtree(self.server.uploads, ignore_errors=True)
            self.count("fault: the folder gone")

    # --- what is counted ---------------------------------------------------------------------------------

    def memory(self) -> float:
        """MB of the server itself; its readers come and go."""
        return self.server.memory / (1 << 20)

    def state(self) -> dict[str, int]:
        process = psutil.Process(self.server.process.pid)
        return {"threads": process.num_threads(), "descriptors": process.num_fds()}


def settled(soak: Soak) -> dict[str, int]:
    """The counts once nothing is under way: the least of several looks."""
    looks = []
    for _ in range(15):
        quiet(soak.server)
        looks.append(soak.state())
        time.sleep(1)
    return {key: min(look[key] for look in looks) for key in looks[0]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Keep the server busy, break things, and see what is left.")
    parser.add_argument("--minutes", type=float, default=30, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when (%(default)s)")
    options = parser.parse_args(argv)
    seconds, wrong = 60 * options.minutes, []
    with tempfile.TemporaryDirectory() as folder, besieged(Path(folder)) as server:
        soak = Soak(server, seconds, options.seed)
        for _ in range(3):
            soak.scan_sent("127.0.30.1")
        before, began = settled(soak), time.monotonic()
        soak.end = began + seconds
        people = [threading.Thread(target=soak.person, args=(number,)) for number in range(PEOPLE)]
        for person in people:
            person.start()
        samples, broken, shown = [], began, began
        while time.monotonic() < soak.end and server.process.poll() is None:
            time.sleep(2)
            now = time.monotonic()
            samples.append(((now - began) / seconds, soak.memory()))
            if now - broken > FAULTS:
                broken = now
                soak.break_something()
            if now - shown > 60:
                shown = now
                print(f"{(now - began) / 60:.0f} min: {samples[-1][1]:.0f} MB, {soak.state()}", flush=True)
        for person in people:
            person.join()
        if server.process.poll() is not None:
            print("the server died")
            return 1
        time.sleep(2 * TIMEOUT + 2)
        after, told = settled(soak), health(server, 30)
        log = server.log.stat().st_size / options.minutes
        early = statistics.median(mb for share, mb in samples if WARM <= share < 2 * WARM)
        late = statistics.median(mb for share, mb in samples if share >= 1 - WARM)
        traces = server.log.read_text().count("Traceback")
        for what, count in sorted(soak.seen.items()):
            print(f"  {count:6d}  {what}")
        print(f"memory {early:.0f} MB once warm, {late:.0f} MB at the end ({100 * (late / early - 1):+.1f} %)")
        print(f"before {before}, after {after}")
        print(f"{len(server.files())} files left, {log / 1024:.0f} kB of log a minute, {traces} tracebacks")
        wrong += [f"memory grew by {100 * (late / early - 1):.1f} %"] if late > ALLOWED * early else []
        wrong += [f"{key} {before[key]} → {after[key]}" for key in before if after[key] > before[key] + 4]
        wrong += ["files are left"] if server.files() else []
        wrong += ["the log was flooded"] if log > LOG else []
        wrong += [f"{traces} tracebacks in the log"] if traces else []
        wrong += [f"trouble: {told['trouble']}"] if told["trouble"] else []
    print("; ".join(wrong) or "it stayed as it was")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
