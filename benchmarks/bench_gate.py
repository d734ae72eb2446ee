"""What the gate says of heads and of what is none, whether that is what is asked of it, and what it costs.

    python -m benchmarks.bench_gate DIR [--cohort DIR --heads N] [--weights FILE] [--rounds N] [--json]

DIR may hold `odd/`, `t1/`, `ixi/t1/`, `dicom/` and folders of pictures; what is not there is named and left out.
From the first head of `t1/` that fills a head's field are made: wrong headers, half a head, 40 slices. `--cohort`
adds held-out simulated heads, those in its `test/`. The time is that of the gate alone, warm.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from benchmarks.side_by_side import finish, table
from diagnosis import gate
from diagnosis.diagnoser import Diagnoser, find_weights
from scans.prepare import prepare
from scans.processes import read
from scans.read import READERS
from scans.scan import ScanError
from tests.heads import head

ROOT = Path(__file__).resolve().parent.parent

REFUSED = "refused"
ASKED = {"fit": {gate.FIT}, "not fit": {gate.DOUBTFUL, gate.UNFIT, REFUSED}, "not judged": {gate.UNFIT, REFUSED}}
NOT_JUDGED = ("CT_", "ct", "Iguana", "torchio", "rtplan", "enh")  # beginnings or parts of names of no T1 head
THICK = 5.0  # mm: what has thicker slices is not asked to be fit
PICTURES = ("chest-nodule", "covid-ct")  # where a picture of a chest may lie


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    asked: str  # a key of ASKED
    file: Path


def found(folder: Path) -> list[Path]:
    endings = tuple(READERS)
    return sorted(path for path in folder.glob("*") if path.is_file() and path.name.lower().endswith(endings))


def thick(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz")) and max(nibabel.load(path).header.get_zooms()[:3]) > THICK


def kept(folder: Path) -> tuple[list[Case], list[str]]:
    """The cases that lie in a folder, and the parts of it that are not there."""
    cases, absent = [], []
    for group in ("odd", "t1", "ixi/t1", "dicom"):
        files = found(folder / group)
        absent += [] if files else [group]
        for path in files:
            no_head = any(part in path.name for part in NOT_JUDGED)
            asked = "not judged" if no_head else "not fit" if group == "odd" or thick(path) else "fit"
            cases.append(Case(group.split("/")[0], path.name, asked, path))
    return cases, absent


# --- what is made of one head -----------------------------------------------------------------------------


def made(folder: Path, target: Path) -> tuple[list[Case], list[str]]:
    whole = next((path for path in found(folder / "t1") if not thick(path) and "brain.nii" not in path.name), None)
    if whole is None:
        voxels, affine = head(1.2)
        whole, name = target / "phantom.nii", "the tests' phantom head"
        nibabel.save(nibabel.Nifti1Image(voxels, affine), whole)
    else:
        name = whole.name
    image = nibabel.as_closest_canonical(nibabel.load(whole))
    voxels, affine = np.squeeze(np.asarray(image.dataobj, dtype=np.float32)), image.affine
    cases, absent = [], []
    for made_of, asked, (values, place) in altered(voxels, affine):
        path = target / f"{made_of.replace(' ', '-')}.nii"
        nibabel.save(nibabel.Nifti1Image(values, place), path)
        cases.append(Case("made", made_of, asked, path))
    picture = next(
        (
            path
            for part in PICTURES
            for path in sorted((folder / part).rglob("*.*"))
            if path.suffix.lower() in (".png", ".jpg", ".jpeg")
        ),
        None,
    )
    if picture is None:
        absent.append(f"a picture of a chest ({', '.join(PICTURES)})")
    else:
        flat = np.asarray(Image.open(picture).convert("L"), dtype=np.float32).T[:, ::-1]
        for how, values in (("one slice", flat[..., None]), ("200 times", np.repeat(flat[..., None], 200, 2))):
            path = target / f"chest-{len(how)}.nii"
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            cases.append(Case("made", f"chest picture, {how}", "not fit", path))
    return cases, [*absent, f"(made of {name})"]


def altered(voxels: np.ndarray, affine: np.ndarray) -> Iterator[tuple[str, str, tuple[np.ndarray, np.ndarray]]]:
    """What is made of a head in RAS: its name, what is asked, voxels and affine."""
    size = np.array(voxels.shape)
    random = np.random.default_rng(0)
    grid = np.diag([1.2, 1.2, 1.2, 1.0])
    at = np.indices((166, 166, 166)) - 82.5
    radius = np.linalg.norm(at, axis=0) * 1.2
    middle = int(np.average(np.arange(size[2]), weights=voxels.sum((0, 1), dtype=np.float64)))
    yield "the head itself", "fit", (voxels, affine)
    yield "upside-down header", "not fit", (voxels[:, :, ::-1], affine)
    yield "back-to-front header", "not fit", (voxels[:, ::-1], affine)
    yield "turned by a half", "not fit", (voxels[:, ::-1, ::-1], affine)
    yield "on its side", "not fit", (np.swapaxes(voxels, 0, 2), affine)
    yield "nose upwards", "not fit", (np.swapaxes(voxels, 1, 2), affine)
    yield "half a head, left", "not fit", (voxels[: size[0] // 2], affine)
    yield "half a head, back", "not fit", (voxels[:, : size[1] // 2], affine)
    emptied = voxels.copy()
    emptied[:, :, : size[2] // 2] = 0
    yield "lower half emptied", "not fit", (emptied, affine)
    for name, first in (("40 slices, middle", middle - 20), ("40 slices, top", size[2] - 60)):
        yield name, "not fit", (voxels[:, :, first : first + 40], affine)
    yield "voxels a third as large", "not judged", (voxels, affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1]))
    yield "dark where bright", "not fit", ((voxels.max() - voxels) * (voxels > 0.1 * voxels.mean()), affine)
    strong = random.normal(0, 0.5 * voxels[voxels > voxels.mean()].mean(), voxels.shape)
    yield "half as much noise as signal", "not fit", (np.abs(voxels + strong).astype(np.float32), affine)
    yield "random noise", "not judged", (random.normal(100, 20, at.shape[1:]).astype(np.float32), grid)
    yield (
        "noise in a ball",
        "not judged",
        ((np.abs(random.normal(100, 40, at.shape[1:])) * (radius < 85)).astype(np.float32), grid),
    )
    yield "a constant", "not judged", (np.full(at.shape[1:], 7, np.float32), grid)
    yield "a phantom sphere", "not judged", ((500.0 * (radius < 85)).astype(np.float32), grid)
    shells = 300.0 * (radius < 90) - 200 * (radius < 84) + 100 * (radius < 78) + 60 * (radius < 50)
    yield "a sphere with shells", "not judged", (shells.astype(np.float32), grid)
    cylinder = 400.0 * (np.hypot(at[0], at[1]) * 1.2 < 90)
    yield "a phantom cylinder", "not judged", (cylinder.astype(np.float32), grid)


# --- asking -----------------------------------------------------------------------------------------------


def ask(diagnoser: Diagnoser, case: Case) -> dict:
    try:
        diagnosis = diagnoser(case.file, case.file.name)
        verdict, reasons = diagnosis.verdict, [finding.text for finding in diagnosis.findings]
        codes = [finding.code for finding in diagnosis.findings]
    except ScanError as error:
        verdict, reasons, codes = REFUSED, [str(error)], [error.code]
    return {
        "group": case.group,
        "name": case.name,
        "asked": case.asked,
        "verdict": verdict,
        "codes": codes,
        "reasons": reasons,
        "holds": verdict in ASKED[case.asked],
    }


def cohort(diagnoser: Diagnoser, folder: Path, most: int) -> dict:
    """The share of held-out heads that are fit, of at most so many, evenly picked."""
    files = sorted((folder / "test").rglob("*.nii*"))
    picked = [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)]
    answers = [ask(diagnoser, Case("cohort", path.name, "fit", path)) for path in picked]
    misses = [answer for answer in answers if not answer["holds"]]
    return {"heads": len(answers), "fit": len(answers) - len(misses), "misses": misses}


def cost(diagnoser: Diagnoser, file: Path, rounds: int) -> float:
    """Median milliseconds of the gate, before and after the network, after one to warm up."""
    weights = diagnoser.weights
    scan = read(file)
    prepared = prepare(scan, weights.contract)
    _, features = diagnoser.forward(diagnoser(scan, judge_anyway=True).seen.tensor[None])

    def once() -> float:
        start = time.perf_counter()
        gate.before(scan, prepared, weights)
        gate.after(features[0], weights)
        return 1000 * (time.perf_counter() - start)

    once()
    return statistics.median(once() for _ in range(rounds))


def measure(options: argparse.Namespace, temporary: Path, said: Callable[[str], None]) -> dict:
    weights = options.weights or find_weights(ROOT / "weights", "alzheimers")
    diagnoser = Diagnoser(weights, "cpu")
    cases, absent = kept(options.folder)
    more, notes = made(options.folder, temporary)
    rows = []
    for case in [*cases, *more]:
        rows.append(ask(diagnoser, case))
        said(f"{case.group}: {case.name}")
    counts = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        counts[group] = {
            "cases": len(mine),
            "fit": sum(row["verdict"] == gate.FIT for row in mine),
            "hold": sum(row["holds"] for row in mine),
        }
    whole = next(case for case in more if case.asked == "fit")
    return {
        "weights": diagnoser.weights.name,
        "absent": absent + notes,
        "rows": rows,
        "counts": counts,
        "ms": cost(diagnoser, whole.file, options.rounds),
        "threads": torch.get_num_threads(),
        "cohort": cohort(diagnoser, options.cohort, options.heads) if options.cohort else None,
    }


def text(figures: dict) -> str:
    rows = [
        [
            f"{row['group']}: {row['name']}",
            row["verdict"],
            row["asked"],
            "yes" if row["holds"] else "NO",
            ", ".join(row["codes"]),
        ]
        for row in figures["rows"]
    ]
    parts = [table(["", "verdict", "asked", "holds", "reasons"], rows)]
    for row in figures["rows"]:
        if not row["holds"]:
            parts.append(
                f"{row['group']}: {row['name']} is {row['verdict']}, asked is {row['asked']}\n  "
                + "\n  ".join(row["reasons"])
            )
    counts = [[group, count["cases"], count["fit"], count["hold"]] for group, count in figures["counts"].items()]
    parts.append(table(["", "cases", "fit", "as asked"], counts))
    held_out = figures["cohort"]
    if held_out:
        parts.append(f"held-out simulated heads: {held_out['fit']} of {held_out['heads']} fit (asked: 95 %)")
        parts += [f"  {miss['name']}: {', '.join(miss['codes'])}" for miss in held_out["misses"]]
    if figures["absent"]:
        parts.append(f"left out, since it is not there: {', '.join(figures['absent'])}")
    parts.append(f"the gate takes {figures['ms']:.0f} ms on {figures['threads']} threads (asked: 100 ms)")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--cohort", type=Path, metavar="DIR", help="a simulated cohort with test/")
    parser.add_argument("--heads", type=int, default=100, metavar="N", help="at most so many of it (%(default)s)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the study's in weights/")
    parser.add_argument("--rounds", type=int, default=15, help="how often the gate is timed (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one object with the figures")
    options = parser.parse_args()

    def said(what: str) -> None:
        print(f"\r{what:<70.70}", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder), said if sys.stderr.isatty() else lambda what: None)
    finish(figures, text(figures), options.json)


if __name__ == "__main__":
    main()
