"""Damaged files for every reader, codec and the weights loader: is each read or refused, in time and in memory?

    python -m benchmarks.fuzz [--files N] [--seed N] [--keep DIR] [--only KIND ...] [--json]

Healthy small files of every kind are damaged at random, the same for the same seed: bits turned, lengths made
absurd, parts cut, doubled, moved, exchanged with another file's; packed ones inside their packing too. Allowed is
a `Scan` or a `ScanError` (for weights `Weights` or a `WeightsError`) within 10 s and 1.5 GB. A reader process that
ended over a file is counted apart: the file was refused in words, and nobody else noticed. `--keep` keeps those.
"""

import argparse
import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scans import processes
from scans.scan import Scan, ScanError
from tests.hostile.seeds import SEEDS
from tests.hostile.seeds import seed as healthy_file

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEMORY = 10.0, 1536 << 20
BROKEN = ("reader-died", "too-slow", "too-much-memory")  # contained, and worth a look
WEIGHTS_SHARE = 0.1
INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    31,
    32,
    64,
    127,
    128,
    255,
    256,
    512,
    1000,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
)


def mutate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """One file damaged in one to four ways."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
        if len(changed) < 8:
            break
        reach = len(changed) if draw.random() < 0.4 else min(len(changed), 700)  # headers lie in front
        at = draw.randrange(reach - 4)
        way = draw.randrange(9)
        if way == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif way == 1:
            changed[at] = draw.randrange(256)
        elif way == 2:
            size, order = draw.choice("BHI"), draw.choice("<>")
            number = draw.choice(INTERESTING) & (256 ** struct.calcsize(order + size) - 1)
            struct.pack_into(order + size, changed, at, number)
        elif way == 3:
            struct.pack_into(
                draw.choice("<>") + "f",
                changed,
                at,
                draw.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 0.5, 1e9)),
            )
        elif way == 4:
            del changed[at : at + draw.randrange(1, 64)]
        elif way == 5:
            part = changed[at : at + draw.randrange(1, 200)]
            changed[at:at] = part * draw.choice((1, 1, 2, 50))
        elif way == 6:
            del changed[draw.randrange(len(changed)) :]
        elif way == 7:
            start = draw.randrange(max(1, len(other) - 4))
            part = other[start : start + draw.randrange(1, 200)]
            changed[at : at + len(part)] = part
        else:
            changed[at : at + draw.randrange(1, 300)] = bytes([draw.choice((0, 255, 128, 65))]) * draw.randrange(
                1, 300
            )
    return bytes(changed)


def inside(data: bytes, other: bytes, name: str, draw: random.Random) -> bytes:
    """The same within a packing, which stays whole, so that the damage reaches the reader behind it."""
    if name.endswith((".nii.gz", ".mgz")):
        return gzip.compress(mutate(gzip.decompress(data), other, draw), 1, mtime=0)
    if name.endswith(".zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            hurt = draw.sample(old.namelist(), draw.choice((1, 1, 2, len(old.namelist()))))
            for member in old.namelist():
                content = old.read(member)
                changed = mutate(content, other, draw) if member in hurt else content
                new.writestr(zipfile.ZipInfo(member), changed, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()
    at = data.find(b"1.2.840.10008.1.2.1.99")
    if at > 0:  # deflated syntax
        start = 144 + struct.unpack_from("<I", data, 140)[0]
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        changed = mutate(zlib.decompress(data[start:], -15), other, draw)
        return data[:start] + packer.compress(changed) + packer.flush()
    at = data.find(b"\xfe\xff\x00\xe0", data.find(b"\xe0\x7f\x10\x00"))
    if name.endswith(".dcm") and at > 0:  # compressed pixels alone, for whoever decodes them
        return data[:at] + mutate(data[at:], other[-len(data) + at :], draw)
    return mutate(data, other, draw)


@dataclass
class Found:
    """What one kind of file came to."""

    files: int = 0
    outcomes: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    bad: list[str] = field(default_factory=list)  # what is not allowed


def outcome(data: bytes, name: str, prepare: Callable[[Scan], None] | None) -> tuple[str, float, str]:
    """How a file ended, after how long, and what is wrong with that."""
    start = time.perf_counter()
    try:
        scan = processes.read(data, name, seconds=SECONDS)
        if prepare is not None:
            prepare(scan)
        ended, wrong = "read", ""
    except ScanError as error:
        ended, wrong = error.code, "" if str(error).startswith(name) or ended == "unjudgeable" else f"says {error}"
    except Exception as error:
        ended, wrong = "uncaught", f"{type(error).__name__}: {error}"
    took = time.perf_counter() - start
    if took > SECONDS + 1:
        wrong = wrong or f"took {took:.1f} s"
    return ended, took, wrong


class Peak(threading.Thread):
    """The most memory that any process below this one takes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.stop = 0, threading.Event()

    def run(self) -> None:
        own = psutil.Process()
        while not self.stop.wait(0.05):
            for child in own.children(recursive=True):
                try:
                    self.most = max(self.most, child.memory_info().rss)
                except psutil.Error:  # ended meanwhile
                    continue


def small_prepare() -> Callable[[Scan], None]:
    """Preparing on a small grid of the main study, or of a picture's: finite numbers, or a refusal."""
    from dataclasses import replace

    import torch

    from scans.prepare import prepare
    from studies import STUDIES

    head = replace(STUDIES["alzheimers"].contract, shape=(20, 32, 32), spacing=(10.0, 8.0, 8.0))
    flat = STUDIES["chest-nodule"].contract
    torch.set_num_threads(1)

    def run(scan: Scan) -> None:
        tensor = prepare(scan, head if scan.kind == "volume" else flat).tensor
        if not torch.isfinite(tensor).all():
            raise ArithmeticError("numbers that are not finite, after preparing")

    return run


def fuzz_readers(count: int, seed: int, only: list[str], keep: Path | None, prepared: bool) -> dict[str, Found]:
    kinds = [kind for kind in SEEDS if not only or any(word.lower() in kind.lower() for word in only)]
    healthy = {kind: healthy_file(kind) for kind in kinds}
    found = {kind: Found() for kind in kinds}
    prepare, lock = small_prepare() if prepared else None, threading.Lock()

    def one(number: int) -> None:
        kind = kinds[number % len(kinds)]
        draw, name = random.Random(f"{seed}/{number}"), SEEDS[kind][0]
        other = healthy[draw.choice(kinds)]
        way = inside if draw.random() < 0.5 else lambda data, other, name, draw: mutate(data, other, draw)
        data = way(healthy[kind], other, name, draw)
        ended, took, wrong = outcome(data, name, prepare)
        with lock:
            entry = found[kind]
            entry.files += 1
            entry.outcomes[ended] += 1
            entry.slowest = max(entry.slowest, took)
            if wrong:
                entry.bad.append(f"{number}: {wrong}")
        if keep is not None and (wrong or ended in BROKEN):
            (keep / f"{seed}-{number}-{ended}-{name}").write_bytes(data)

    with ThreadPoolExecutor(processes.POOL.size) as pool:
        for _ in pool.map(one, range(count)):
            pass
    return found


def weights_worker(count: int, seed: int, folder: Path) -> None:
    """In a process of its own: mutated weights files, the counts as JSON on the last line."""
    import torch

    import model
    from networks.header import Header
    from studies import STUDIES

    torch.set_num_threads(1)
    study = STUDIES["dementia-slices"]
    arguments = {"shape": [12, 12]}
    network = model.NETWORKS["SliceCNN"](len(study.labels), **arguments)
    header = Header(study, "SliceCNN", arguments, "fuzz")
    path = folder / f"{study.key}.SliceCNN.safetensors"
    model.save(path, network, header)
    whole = path.read_bytes()
    pickled = folder / "old.pth"
    torch.save(network, pickled)
    seeds = {
        path.name: whole[: 8 + struct.unpack_from("<Q", whole)[0]] + whole[-4000:],
        "old.pth": pickled.read_bytes(),
    }
    seeds[path.name] = whole
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    found = Found()

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    for number in range(count):
        draw = random.Random(f"{seed}/weights/{number}")
        name = path.name if draw.random() < 0.7 else "old.pth"
        target = folder / name
        target.write_bytes(mutate_weights(seeds[name], draw))
        start, wrong = time.perf_counter(), ""
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            model.load(target, "cpu")
            ended = "loaded"
        except model.WeightsError:
            ended = "refused"
        except TimeoutError:
            ended, wrong = "too-slow", f"more than {SECONDS:g} s"
        except BaseException as error:
            ended, wrong = "uncaught", f"{type(error).__name__}: {str(error)[:200]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        found.files += 1
        found.outcomes[ended] += 1
        found.slowest = max(found.slowest, time.perf_counter() - start)
        if wrong:
            found.bad.append(f"{number} {name}: {wrong}")
    print(
        json.dumps({"files": found.files, "outcomes": found.outcomes, "slowest": found.slowest, "bad": found.bad})
    )


def mutate_weights(data: bytes, draw: random.Random) -> bytes:
    """Half of them with a header that is JSON still, some value of it exchanged."""
    if data[:1] != b"P" and draw.random() < 0.5:
        size = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + size])
        odd = draw.choice(
            (None, True, -1, 0, 1e308, "", "x" * 1000, [], {}, [1] * 100, {"a": {}}, float("nan"), 7)
        )
        inner = {
            key: json.loads(value) if value[:1] in "{[" else value
            for key, value in header.get("__metadata__", {}).items()
        }
        _exchange(draw.choice((header, inner)), odd, draw)
        if "__metadata__" in header and isinstance(header["__metadata__"], dict):
            header["__metadata__"] = {
                key: value if isinstance(value, str) else json.dumps(value) for key, value in inner.items()
            }
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]
    return mutate(data, data, draw)


def _exchange(tree: object, odd: object, draw: random.Random) -> None:
    """Some leaf or branch of a JSON document becomes something else, or goes."""
    while isinstance(tree, dict | list) and tree:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = draw.choice(keys)
        if draw.random() < 0.35 or not isinstance(tree[key], dict | list) or not tree[key]:
            if draw.random() < 0.3:
                del tree[key]
            else:
                tree[key] = odd
            return
        tree = tree[key]


def fuzz_weights(count: int, seed: int) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--weights-worker", folder]
        command += ["--files", str(count), "--seed", str(seed)]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=threads, check=False)
    if done.returncode:
        return Found(
            count, Counter(died=1), 0.0, [f"the process ended with {done.returncode}: {done.stderr[-500:]}"]
        )
    told = json.loads(done.stdout.splitlines()[-1])
    return Found(told["files"], Counter(told["outcomes"]), told["slowest"], told["bad"])


def run(
    count: int, seed: int, only: list[str], keep: Path | None = None, weights: bool = True, prepared: bool = True
) -> tuple[dict[str, Found], int]:
    """What came of each kind, and the most memory that a process took."""
    peak = Peak()
    peak.start()
    share = int(count * WEIGHTS_SHARE) if weights and not only else 0
    found = fuzz_readers(count - share, seed, only, keep, prepared)
    if share:
        found["weights"] = fuzz_weights(share, seed)
    peak.stop.set()
    peak.join()
    return found, peak.most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000, help="mutated files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep files that a reader ended over")
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="kinds whose name holds this")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--weights-worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weights_worker:
        weights_worker(options.files, options.seed, options.weights_worker)
        return 0
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    found, memory = run(options.files, options.seed, options.only, options.keep)
    bad = [f"{kind} {each}" for kind, entry in found.items() for each in entry.bad]
    total = sum((entry.outcomes for entry in found.values()), Counter())
    record = {
        "files": sum(entry.files for entry in found.values()),
        "seconds": round(time.perf_counter() - start, 1),
        "outcomes": dict(total.most_common()),
        "slowest_s": round(max(e.slowest for e in found.values()), 2),
        "peak_mb": memory >> 20,
        "not_allowed": bad,
    }
    if options.json:
        print(json.dumps(record, indent=1))
    else:
        for kind, entry in found.items():
            print(
                f"{kind:<20} {entry.files:6,}  slowest {entry.slowest:5.2f} s  "
                + ", ".join(f"{count} {code}" for code, count in entry.outcomes.most_common())
            )
        print(
            f"{record['files']:,} files in {record['seconds']} s, seed {options.seed}: "
            + ", ".join(f"{count:,} {code}" for code, count in total.most_common())
        )
        print(
            f"slowest {record['slowest_s']} s, most memory of a process {record['peak_mb']:,} MB; not allowed: "
            f"{len(bad)}"
        )
        print(*bad[:50], sep="\n")
    return 1 if bad or memory > MEMORY else 0


if __name__ == "__main__":
    sys.exit(main())
