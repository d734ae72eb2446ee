"""Many people at once: how much of one worker's compute a busy server gives, how fast, and to the right one.

    python -m benchmarks.bench_load [--people 1 8 32 128] [--seconds 60] [--json]

Each person is a page: a websocket that speaks as the page's script does, sends a scan, waits for its result, takes
the JSON, begins anew, and tries again five seconds after the page said that it is busy. To every four people comes
a program that posts scans to the API and waits as long as a 503 says. Each file has a name of its own; several
scans go round, and an answer must be of the right name with the probabilities that its scan has alone. The limit
is what one worker can give: a loop over `Diagnoser` with nobody else about, before and after each level, in a
process of its own. The server has as many workers as by default; /healthz is asked from another process. Memory is
that of the server and its readers. Loopback only; exit status 1 where an answer was wrong or a bar is not reached.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

import model
from benchmarks.bench_diagnose import weights_file
from benchmarks.side_by_side import ROOT, finish, table
from diagnosis.diagnoser import Diagnoser
from tests.asking import ANALYSIS, form
from tests.heads import save
from tests.support import Server, running

ALONE = 18  # scans from which the limit is taken
WARM = 0.2  # of a level's time, which is not counted
AGAIN = 5.0  # seconds until somebody tries again who was told to do so "in a few seconds"
BETWEEN = 0.1  # seconds between two looks at /healthz
PATIENCE = 600.0  # seconds for one answer
NEAR = 1e-5  # what the same scan's probabilities may differ by
BAR_SHARE, BAR_HEALTH, BAR_PEOPLE = 0.9, 0.05, 32
BOUND_MB = 2048  # on two cores, as docs/operator.md says


def scans(folder: Path) -> list[Path]:
    """The example heads, as they are, mirrored, and with more noise: the network answers each differently."""
    made, random = [], np.random.default_rng(0)
    for example in sorted((ROOT / "demodata").glob("*.nii.gz")):
        image = nibabel.load(example)
        voxels = np.asarray(image.dataobj).astype(np.float32)
        noise = random.normal(0, 0.01 * voxels.std(), voxels.shape) * (voxels > 0)
        for changed in (voxels, voxels[::-1], voxels + noise):
            file = folder / f"{len(made)}.nii.gz"
            made.append(save(file, changed.clip(0).astype(np.int16), image.affine))
    return made


def alone(weights: Path, folder: Path) -> dict[str, Any]:
    """What one worker can do: scans a second, and what each scan's answer is."""
    judge, files = Diagnoser(weights), sorted(folder.glob("*.nii.gz"))
    answers = [judge(file).probabilities for file in files]
    start = time.perf_counter()
    for number in range(ALONE):
        judge(files[number % len(files)])
    return {"rate": ALONE / (time.perf_counter() - start), "answers": answers}


def looks(url: str, seconds: float) -> list[float]:
    """Seconds that /healthz took, asked again and again."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        with urllib.request.urlopen(url + "/healthz", timeout=60) as answer:
            answer.read()
        found.append(time.perf_counter() - start)
        time.sleep(BETWEEN)
    return found


@dataclass
class Level:
    """What is counted while so many people are there."""

    server: Server
    bodies: list[bytes]
    expected: list[dict[str, float]]
    begin: float
    end: float
    page: list[float] = field(default_factory=list)  # seconds from the press to the result
    api: list[float] = field(default_factory=list)
    busy: int = 0  # answers of 503, and pages that said so
    away: int = 0  # pages that could not be opened
    wrong: list[str] = field(default_factory=list)
    done: int = 0  # answers within the time that counts

    def answered(self, record: dict[str, Any], name: str, scan: int, seconds: float, where: list[float]) -> None:
        given, wanted = record.get("probabilities") or {}, self.expected[scan]
        if record.get("file") != name:
            self.wrong.append(f"{name} got the answer of {record.get('file')}")
        elif given.keys() != wanted.keys() or any(abs(given[code] - wanted[code]) > NEAR for code in wanted):
            self.wrong.append(f"{name} got {given}, which is not what its scan gives: {wanted}")
        if self.begin <= time.monotonic() <= self.end:
            self.done += 1
            where.append(seconds)

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


class Person:
    """One page, as its script would have it."""

    def __init__(self, level: Level, number: int, client: AsyncHTTPClient):
        self.level, self.number, self.client = level, number, client
        self.turn, self.token, self.result = 0, "", ""

    @property
    def name(self) -> str:
        return f"person-{self.number}-{self.turn}.nii.gz"

    @property
    def address(self) -> dict[str, str]:
        """Told as a proxy tells it, for an address of its own is bounded in pages."""
        return {"X-Forwarded-For": f"198.51.100.{self.number % 254 + 1}"}

    @property
    def scan(self) -> int:
        return (self.number + self.turn) % len(self.level.bodies)

    async def visit(self) -> None:
        url = self.level.server.url
        while not self.level.over:
            wanted = HTTPRequest(
                url.replace("http", "ws") + "/?app=index&session=NEW",
                headers={"Origin": url} | self.address,
                connect_timeout=60,
            )
            try:
                line = await websocket_connect(wanted)
            except HTTPClientError as error:
                if error.code != 503:
                    raise
                self.level.away += 1
                await asyncio.sleep(5)
                continue
            try:
                await self.live(line)
            finally:
                line.close()
                if self.token:
                    await self.client.fetch(f"{url}/bye/{self.token}", method="POST", body=b"", raise_error=False)

    async def live(self, line) -> None:
        """Answer what the server asks of the page, until the time is over."""
        began, view = 0.0, ""
        while not self.level.over:
            message = await asyncio.wait_for(line.read_message(), PATIENCE)
            if message is None:
                return
            told = json.loads(message)
            spec = told.get("spec") or {}
            if told["command"] == "output":
                found = re.search(r"/results/([\w-]+)/report\.json", str(spec.get("content", "")))
                self.result = found[1] if found else self.result
            if told["command"] != "run_script":
                continue
            if not spec.get("eval"):
                view = spec["args"].get("name", view) if "scanwise.shown" in spec["code"] else view
                continue
            if "hello" in spec["code"]:
                self.token, value = spec["args"]["token"], "en"
            elif view == "start":
                self.turn, began = self.turn + 1, time.monotonic()
                value = {"kind": "uploaded", "value": {"files": [{"id": await self.sent()}]}}
            elif view == "busy":
                self.level.busy += 1
                await asyncio.sleep(AGAIN)
                value = {"kind": "again", "value": None}
            else:
                seconds = time.monotonic() - began
                self.level.answered(await self.record(), self.name, self.scan, seconds, self.level.page)
                value = {"kind": "new", "value": None}
            await line.write_message(json.dumps({"event": "js_yield", "task_id": told["task_id"], "data": value}))

    async def sent(self) -> str:
        answer = await self.client.fetch(
            f"{self.level.server.url}/uploads/{self.token}",
            method="PUT",
            headers={"X-File-Name": self.name} | self.address,
            body=self.level.bodies[self.scan],
            request_timeout=PATIENCE,
        )
        return json.loads(answer.body)["id"]

    async def record(self) -> dict[str, Any]:
        path = f"{self.level.server.url}/results/{self.result}/report.json"
        answer = await self.client.fetch(path, request_timeout=PATIENCE, raise_error=False)
        return json.loads(answer.body)


async def program(level: Level, number: int, client: AsyncHTTPClient) -> None:
    """Somebody's script that posts scan after scan."""
    turn = 0
    while not level.over:
        turn += 1
        name, scan = f"program-{number}-{turn}.nii.gz", (number + turn) % len(level.bodies)
        body, kind = form((name, level.bodies[scan]))
        began = time.monotonic()
        while True:
            answer = await client.fetch(
                level.server.url + ANALYSIS,
                method="POST",
                headers={"Content-Type": kind},
                body=body,
                request_timeout=PATIENCE,
                raise_error=False,
            )
            if answer.code != 503:
                break
            level.busy += 1
            await asyncio.sleep(float(answer.headers.get("Retry-After", AGAIN)))
            if level.over:
                return
        (record,) = json.loads(answer.body)
        level.answered(record, name, scan, time.monotonic() - began, level.api)


async def crowd(level: Level, people: int) -> float:
    """All of them until the time is over; the peak of memory in MB."""
    AsyncHTTPClient.configure(None, max_clients=4 * people + 16)
    client, peak = AsyncHTTPClient(force_instance=True), 0.0
    programs = people // 4
    visits = [Person(level, number, client).visit() for number in range(people)]
    everybody = asyncio.gather(*visits, *(program(level, number, client) for number in range(programs)))
    server = psutil.Process(level.server.process.pid)
    while not everybody.done():
        await asyncio.wait([everybody], timeout=0.5)
        peak = max(peak, memory(server))
    await everybody
    client.close()
    return peak


def memory(server: psutil.Process) -> float:
    total = server.memory_info().rss
    for child in server.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / (1 << 20)


def child(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.bench_load", *map(str, words)]


def limit(weights: Path, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        child("--weights", weights, "--alone", folder), cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(server: Server, files: list[Path], expected: list, people: int, seconds: float) -> dict[str, Any]:
    """The figures of one level."""
    now = time.monotonic()
    bodies = [file.read_bytes() for file in files]
    level = Level(server, bodies, expected, now + WARM * seconds, now + (1 + WARM) * seconds)
    command = child("--looks", server.url, "--seconds", (1 + WARM) * seconds)
    looking = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = asyncio.run(crowd(level, people))
    health = sorted(json.loads(looking.communicate()[0]))
    return {
        "people": people,
        "rate": level.done / seconds,
        "page": quantiles(level.page),
        "api": quantiles(level.api),
        "busy": level.busy,
        "away": level.away,
        "health": quantiles(health)[1],
        "peak_mb": peak,
        "wrong": level.wrong,
    }


def closest(answers: list[dict[str, float]]) -> float:
    """By how much the two answers differ that are most alike."""
    return min(max(abs(one[code] - other[code]) for code in one) for one, other in combinations(answers, 2))


def quantiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile; NaN where there is nothing."""
    return tuple(np.percentile(seconds, [50, 95]).tolist()) if seconds else (float("nan"), float("nan"))


def shown(pair: tuple[float, float]) -> str | None:
    return None if np.isnan(pair[0]) else f"{pair[0]:.1f} / {pair[1]:.1f} s"


def faults(levels: list[dict[str, Any]]) -> list[str]:
    """What is below its bar, in words."""
    found = []
    for row in levels:
        who = f"{row['people']} people"
        found += [f"{who}: {words}" for words in row["wrong"][:3]]
        if row["peak_mb"] > BOUND_MB:
            found.append(f"{who}: {row['peak_mb']:.0f} MB, more than {BOUND_MB}")
        if row["people"] == BAR_PEOPLE and row["share"] < BAR_SHARE:
            found.append(f"{who}: {row['share']:.0%} of the limit, less than {BAR_SHARE:.0%}")
        if row["people"] == BAR_PEOPLE and row["health"] > BAR_HEALTH:
            found.append(f"{who}: /healthz {1000 * row['health']:.0f} ms, more than {1000 * BAR_HEALTH:.0f}")
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=[1, 8, 32, 128], help="levels (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of each level (%(default)s)")
    parser.add_argument("--weights", type=Path, help="a weights file (default: the study's, else untrained)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--looks", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.alone:
        print(json.dumps(alone(options.weights, options.alone)))
        return 0
    if options.looks:
        print(json.dumps(looks(options.looks, options.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder, served = Path(name) / "scans", Path(name) / "weights"
        for made in (folder, served):
            made.mkdir()
        weights = (options.weights or weights_file(Path(name))).resolve()
        for file in (
            weights,
            weights.parent / model.SEGMENTER,
        ):  # this study's alone, measured where it is by default
            if file.is_file():
                (served / file.name).symlink_to(file)
        files, levels = scans(folder), []
        limits = [limit(served / weights.name, folder)]
        expected = limits[0]["answers"]
        if any(answer is None for answer in expected) or closest(expected) < 4 * NEAR:
            raise SystemExit("some scans are not judged, or alike: whose answer it is could not be told")
        with running(Path(name) / "server", "--weights", served, "--proxy-from", "127.0.0.1") as server:
            for people in options.people:
                row = measured(server, files, expected, people, options.seconds)
                limits.append(limit(served / weights.name, folder))
                row["limit"] = statistics.mean(one["rate"] for one in limits[-2:])
                levels.append(row | {"share": row["rate"] / row["limit"]})
    head = ["people", "scans a second", "of the limit", "page p50 / p95", "API p50 / p95", "busy", "turned away"]
    rows = [
        [
            str(row["people"]),
            f"{row['rate']:.2f}",
            f"{row['share']:.0%} of {row['limit']:.2f}",
            shown(row["page"]),
            shown(row["api"]),
            str(row["busy"]),
            str(row["away"]),
            f"{1000 * row['health']:.0f} ms",
            f"{row['peak_mb']:.0f} MB",
        ]
        for row in levels
    ]
    wrong = faults(levels)
    finish({"levels": levels, "wrong": wrong}, table([*head, "/healthz p95", "memory"], rows), options.json)
    print("; ".join(wrong) or "every answer was right, and the bars are reached")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
