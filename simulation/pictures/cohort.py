"""A cohort of simulated pictures on disk: a folder a class, `test/` beside, `truth.csv` and `about.txt`.

What is there already is kept, so an interrupted command goes on where it stopped.
"""

import csv
import io
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scans.files import write_bytes, write_whole
from scans.progress import progress
from simulation.pictures.table import SIMULATORS, Truth
from studies import STUDIES

SAVED = 25  # subjects between two writings of `truth.csv`, by which a killed command goes on
QUALITY = 92  # of a JPEG; public sets are saved about so
Rows = list[dict[str, object]]

ABOUT = (
    "Simulated pictures, no scans of people, made by "
    "`python simulate.py --study {} --subjects {} --seed {} --test {} --out cohort`.\n"
)


def cohort(study: str, subjects: int, seed: int, test: float) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Folder with the subject's name, class and seed of each; subject k of a seed is the same one everywhere."""
    codes = STUDIES[study].by_severity
    for k in range(subjects):
        label, turn = codes[k % len(codes)], k // len(codes)
        held_out = math.floor((turn + 1) * test) > math.floor(turn * test)  # spread evenly, whatever N
        folder = f"test/{label}" if held_out else label
        yield f"{folder}/sub-s{seed:04d}n{k:05d}", label, (seed, k)


def save(picture: np.ndarray, path: Path) -> None:
    write_whole(path, lambda stream: Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY))


def draw(study: str, out: Path, name: str, label: str, seed: tuple[int, ...]) -> Rows:
    """One subject's pictures, written; a row of truth for each."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    truth: Truth
    for number, (picture, truth) in enumerate(SIMULATORS[study](seed, label)):
        file = f"{name}_{number:02d}.jpg"
        save(picture, out / file)
        rows.append({"file": file, "subject": Path(name).name} | truth)
    return rows


def kept(out: Path) -> dict[str, Rows]:
    """The rows of subjects that are there with all of their pictures, by folder and name."""
    table = out / "truth.csv"
    found: dict[str, Rows] = {}
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                found.setdefault(row["file"].rpartition("_")[0], []).append(dict(row))
    return {name: rows for name, rows in found.items() if all((out / str(row["file"])).is_file() for row in rows)}


def write_truth(out: Path, rows: Rows) -> None:
    lines = io.StringIO(newline="")
    table = csv.DictWriter(lines, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    write_bytes(out / "truth.csv", lines.getvalue().encode())


def make(study: str, out: Path, subjects: int, seed: int, test: float, workers: int) -> None:
    """Write the cohort and its truth."""
    plan = list(cohort(study, subjects, seed, test))
    out.mkdir(parents=True, exist_ok=True)
    (out / "about.txt").write_text(ABOUT.format(study, subjects, seed, test), encoding="utf-8")
    there = kept(out)
    done = {name: there[name] for name, _, _ in plan if name in there}
    missing = [task for task in plan if task[0] not in done]

    def finished(name: str, rows: Rows) -> None:
        done[name] = rows
        bar.update()
        if len(done) % SAVED == 0:
            tell()

    def tell() -> None:
        if done:
            write_truth(out, [row for name, _, _ in plan if name in done for row in done[name]])

    try:
        with progress((), f"simulating {study}", len(plan), "subject", len(done)) as bar:
            if workers <= 1:
                for task in missing:
                    finished(task[0], draw(study, out, *task))
                return
            with ProcessPoolExecutor(min(workers, len(missing) or 1), mp_context=get_context("spawn")) as pool:
                names = {pool.submit(draw, study, out, *task): task[0] for task in missing}
                try:
                    for drawn in as_completed(names):
                        finished(names[drawn], drawn.result())
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    finally:
        tell()
