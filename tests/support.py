"""What several tests and benchmarks need: a small head with a mark, untrained weights, the server as a process."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

import model
from diagnosis.anatomy.segment import Segmentation
from networks.header import Header
from networks.segmenter import CLASSES, to_cubes
from studies import HEAD, STUDIES
from tests import heads

ROOT = Path(__file__).resolve().parent.parent
MARK, RADIUS = (-40, 40, 15), 14  # mm right, front, up of the head's middle: the left frontal lobe


def phantom(step: float = 3.0, mark: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A head in RAS and its affine, with a bright mark in its left frontal lobe."""
    voxels, affine = heads.head(step)
    if mark:
        at = np.moveaxis(np.indices(voxels.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]  # (x, y, z, 3) mm
        voxels = np.where(np.linalg.norm(at - MARK, axis=-1) < RADIUS, 400, voxels)
    return voxels.astype(np.int16), affine


def segmentation_of(
    classes: np.ndarray, plane: tuple[float, ...] = (71.5, 0.0, 0.0), shares: torch.Tensor | None = None
) -> Segmentation:
    """What a network that is sure of these classes would answer, or one with these shares."""
    cubes = to_cubes(torch.from_numpy(classes)[None]).flatten(0, 3).long()  # (cubes, 8)
    kept = cubes.any(1).nonzero()[:, 0]
    sure = torch.nn.functional.one_hot(cubes[kept], len(CLASSES)).permute(1, 2, 0).to(torch.uint8) * 255
    shares = sure.contiguous() if shares is None else shares
    return Segmentation(classes, kept, shares, np.array(plane), HEAD.spacing, {}, "0" * 64)


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray, axes: str = "RAS") -> Path:
    """A NIfTI file whose stored axes run as `axes` says, such as "LIA"; the head in the world stays the same."""
    return heads.save(path, *heads.reorder(voxels, affine, tuple(axes)), sform_code=1, qform_code=1)


def untrained(folder: Path) -> Path:
    """The folder, with one weights file of the main study in it: untrained, the same at every run."""
    folder.mkdir(parents=True, exist_ok=True)
    study = STUDIES["alzheimers"]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = model.NETWORKS[study.network](len(study.labels), **study.arguments)
    header = Header(study, study.network, study.arguments, "untrained, for tests")
    model.save(folder / f"{study.key}.{study.network}.safetensors", network, header)
    return folder


def until(condition: Callable[[], object], seconds: float = 180.0, what: str = "it") -> object:
    """Wait until the condition holds and give its value."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        pause.wait(0.02)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@dataclass(frozen=True)
class Server:
    """The app as its own process, as `make run` starts it."""

    process: subprocess.Popen
    port: int
    uploads: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def files(self) -> list[str]:
        """What lies in the uploads folder but for its lock."""
        return [path.name for path in self.uploads.iterdir() if not path.name.startswith(".")]

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE).group(1))


@contextlib.contextmanager
def running(folder: Path, *arguments: str | Path) -> Iterator[Server]:
    """The server with the given arguments until the block ends; it must then stop by itself and leave nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    log, uploads = folder / "log.txt", folder / "uploads"
    command = [sys.executable, ROOT / "app.py", "--port", "0", "--uploads", uploads, *arguments]
    with listening(command, log, r"ready: http://\S+:(\d+)/", PYTHONWARNINGS="default") as (process, port):
        yield Server(process, port, uploads, log)
    assert list(uploads.iterdir()) == []


@contextlib.contextmanager
def listening(
    command: list[object], log: Path, said: str, **environment: str
) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process and the port that it says it listens on; it must end by SIGTERM with no fault in its log.

    It works in the folder of its log, to which it adds.
    """
    with log.open("a") as out:
        before = log.stat().st_size
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env=os.environ | environment,
        )
        try:

            def ready() -> re.Match | None:
                assert process.poll() is None, log.read_text()
                return re.search(said, log.read_text()[before:])

            port = int(until(ready, 300, "a process to listen").group(1))
            yield process, port
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system lends to whoever calls out meanwhile."""
    held: list[socket.socket] = []
    while len(held) < count:
        with contextlib.suppress(OSError):
            held.append(socket.create_server(("127.0.0.1", 10_000 + secrets.randbelow(20_000))))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def turn(degrees: float, axis: int) -> np.ndarray:
    """An affine that turns about an axis of the grid."""
    a = np.radians(degrees)
    matrix = np.eye(4)
    i, j = (n for n in range(3) if n != axis)
    matrix[i, i] = matrix[j, j] = np.cos(a)
    matrix[i, j], matrix[j, i] = -np.sin(a), np.sin(a)
    return matrix
