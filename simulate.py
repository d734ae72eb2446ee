"""The simulated cohorts: heads and pictures of known truth; no patients.

    python simulate.py --subjects 500 --out cohort --seed 1 --test 0.2     a training cohort of heads
    python simulate.py --study brain-tumour --subjects 200 --out cohort    one of a picture study
    python simulate.py demo                                                the examples of demodata/

Heads are bent and coloured out of the ICBM 152 anatomy; `simulation/pictures` draws the pictures.

Atrophy is a displacement: cerebrospinal fluid grows and the tissue beside it is pressed together. Everything a
hospital varies (contrast, coil, noise, field of view, voxel size, axis order, number type, skull or none) is
drawn on top. `draw` decides a head from its seed alone, `render` makes its voxels, `head` does both.
"""

import argparse
import csv
import io
import itertools
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from isal import igzip

from scans.files import write_bytes
from scans.progress import progress
from simulation.anatomy import AnatomyError
from simulation.phantom import Recipe, render
from simulation.pictures import cohort as pictures
from simulation.pictures.table import SIMULATORS
from simulation.recipes import CLASSES, by_severity, draw

DEMOS = {"demo": ("AD", 990001), "demo-cn": ("CN", 990002)}  # cohorts keep to seeds below 1000
# The example picture of each picture study, a clear case: class, seed, which of the subject's pictures
PICTURE_DEMOS = {
    "dementia-slices": ("ModerateDemented", 990003, 5),
    "brain-tumour": ("yes", 990038, 2),
    "covid-ct": ("nCoV", 990005, 1),
    "chest-nodule": ("nodule", 990009, 0),
}
DEMO_FOLDER = Path(__file__).parent / "demodata"


def head(seed: int | tuple[int, ...], severity: float | None = None, label: str | None = None,
         **changes) -> tuple[nib.Nifti1Image, dict[str, object]]:  # fmt: skip
    """One head and its truth. `changes` are fields of Recipe, set after the draw: noise=0, stripped="mask" …"""
    recipe = draw(seed if isinstance(seed, tuple) else (seed,), label, severity)
    recipe = replace(recipe, **changes)
    return render(recipe), recipe.truth()


# --- a cohort on disk --------------------------------------------------------------------------------------


def write(image: nib.Nifti1Image, path: Path, level: int = 1) -> None:
    """Compressed, and there only when complete. The header's scale is kept, the voxels go as they are."""
    slope = image.header["scl_slope"]
    header = image.header.copy()
    if np.isfinite(slope) and slope not in (0, 1):
        header["scl_slope"], header["scl_inter"] = slope, 0
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw = header.binaryblock + b"\0\0\0\0" + np.asarray(image.dataobj).tobytes(order="F")
    write_bytes(path, igzip.compress(raw, compresslevel=level, mtime=0))


def cohort(subjects: int, seed: int, test: float) -> Iterator[tuple[str, Recipe]]:
    """File name and recipe of each subject; subject k of a seed is the same one in every cohort."""
    codes = by_severity()
    for k in range(subjects):
        label, turn = codes[k % len(codes)], k // len(codes)
        held_out = math.floor((turn + 1) * test) > math.floor(turn * test)  # spread evenly, whatever N
        folder = f"test/{label}" if held_out else label
        yield f"{folder}/sub-s{seed:04d}n{k:05d}_T1w.nii.gz", draw((seed, k), label)


def _make(path: Path, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    write(render(recipe), path)


ABOUT = (
    "Heads of simulated atrophy on the ICBM 152 anatomy, no scans of people, made by "
    "`python simulate.py --subjects {} --seed {} --test {} --out cohort`.\n"
)


def make(out: Path, subjects: int, seed: int, test: float, workers: int) -> None:
    """Write the cohort and its truth; files that are there already are kept."""
    plan = list(cohort(subjects, seed, test))
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"file": name, "subject": Path(name).name.split("_")[0]} | recipe.truth() for name, recipe in plan]
    lines = io.StringIO(newline="")
    table = csv.DictWriter(lines, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    write_bytes(out / "truth.csv", lines.getvalue().encode())
    (out / "about.txt").write_text(ABOUT.format(subjects, seed, test), encoding="utf-8")
    missing = [(out / name, recipe) for name, recipe in plan if not (out / name).exists()]
    bar = progress((), "simulating", len(plan), "head", len(plan) - len(missing))
    with bar:
        if workers <= 1:
            for path, recipe in missing:
                _make(path, recipe)
                bar.update()
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            tasks = [pool.submit(_make, path, recipe) for path, recipe in missing]
            try:
                for task in as_completed(tasks):
                    task.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def main(argv: list[str] | None = None) -> None:
    def share(text: str) -> float:
        if not 0 <= float(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to below 1")
        return float(text)

    def count(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a count of 1 or more")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["demo"], help="write the examples of demodata/ instead")
    studies = ["alzheimers", *SIMULATORS]
    parser.add_argument("--study", choices=studies, default=studies[0], help=f"default: {studies[0]}")
    parser.add_argument("--subjects", type=count, help="how many people, the classes in turn")
    parser.add_argument("--out", type=Path, help="folder for <CLASS>/, test/<CLASS>/ and truth.csv")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default: 0)")
    parser.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--test", type=share, default=0.2, help="share held out under test/ (default: 0.2)")
    given = parser.parse_args(argv)
    if given.what == "demo":
        out = given.out or DEMO_FOLDER
        for name, (label, seed) in DEMOS.items():
            recipe = demo(label, seed)
            write(render(recipe), out / f"{name}.nii.gz", level=3)
            print(f"{out / name}.nii.gz: {recipe.truth()}")
        for study, (label, seed, which) in PICTURE_DEMOS.items():
            picture, truth = next(itertools.islice(SIMULATORS[study]((seed,), label), which, None))
            pictures.save(picture, out / f"{study}.jpg")
            print(f"{out / study}.jpg: {truth}")
        return
    if given.subjects is None or given.out is None:
        parser.error("--subjects and --out are needed, for example: --subjects 100 --out cohort")
    if given.study in SIMULATORS:
        pictures.make(given.study, given.out, given.subjects, given.seed, given.test, given.workers)
        return
    make(given.out, given.subjects, given.seed, given.test, given.workers)


def demo(label: str, seed: int) -> Recipe:
    """A whole head at 1 mm, as a good scanner would send it, from the middle of its class."""
    return replace(
        draw((seed,), label, CLASSES[label]), stripped="", spacing=(1.0, 1.0, 1.0), orientation="RAS",
        oblique=(0.0, 0.0, 0.0), low=(-92.0, -112.0, -122.0), high=(92.0, 124.0, 98.0), dtype="uint8", white=150.0,
        slope=1.0, noise=0.008, gamma=1.0, bias=0.06, tones=(0.2, 0.66, 1.0), edge=0.6, sharpen=1.2,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except AnatomyError as error:
        sys.exit(f"simulate.py: {error}")
