"""The segmenter against labelled heads: overlap, volumes, steadiness, time and memory.

    python -m benchmarks.bench_segmentation DIR [--weights FILE] [--limit N] [--quick] [--pairs N] [--json FILE]

DIR holds `t1/` and, under the same names, `labels/`: region labels numbered as DLMUSE does, of which every one
above 0 is brain or ventricle. DLMUSE's brain takes the narrow sulci in; "brain that is no fluid" leaves out what
a mixture of three tissues, fitted to its brightness, takes for fluid. Bare brains are the same heads where a
label lies, gaps between labels filled; heads are turned to another axis order, moved by 7 × 5 × 9 mm and made
three times as bright. --pairs N: N simulated heads, whose hippocampi lost something already, scanned twice,
lying otherwise, once without a change and once with hippocampi that lost 5 % more.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage
from sklearn.mixture import GaussianMixture

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import model  # noqa: E402
from benchmarks.side_by_side import own_peak_mb  # noqa: E402
from diagnosis.anatomy import measures  # noqa: E402
from diagnosis.anatomy import segment as segmenting  # noqa: E402
from scans.prepare import prepare  # noqa: E402
from scans.processes import read  # noqa: E402
from scans.scan import Scan  # noqa: E402
from simulation import phantom  # noqa: E402
from simulation.recipes import draw  # noqa: E402
from studies import HEAD  # noqa: E402

BRAIN = (2, 41, 3, 42, 17, 53, 8, 47, 16)
NO_FLUID = "brain that is no fluid"
# DLMUSE's labels of each structure, and FreeSurfer's of the same, as the label map of a scan has them.
STRUCTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "ventricles": ((4, 11, 49, 50, 51, 52), (4, 43, 5, 44, 14, 15), "ventricles"),
    "lateral ventricles": ((51, 52), (4, 43), "lateral_ventricles"),
    "inferior horns": ((49, 50), (5, 44), "inferior_horns"),
    "third ventricle": ((4,), (14,), "third"),
    "hippocampi": ((47, 48), (17, 53), "hippocampi"),
    "left hippocampus": ((48,), (17,), "hippocampus_left"),
    "right hippocampus": ((47,), (53,), "hippocampus_right"),
    "cerebellum": ((38, 39, 40, 41, 71, 72, 73), (8, 47), "cerebellum"),
    "brain": ((), BRAIN, "brain"),
    NO_FLUID: ((), BRAIN, "brain"),
}
WITHOUT = (4, 11, 46, 49, 50, 51, 52)  # labels above 0 that are fluid, not brain
HIPPOCAMPUS = phantom.STRUCTURES.index("hippocampus")
LOSS, COHORT = 0.05, 7200  # of the hippocampi in a pair; seed of the heads, which no weights learned from
SHRUNKEN, MOST_LOST = 0.1, 0.4  # mm that they lost before, at least; more, at most, until 5 % are gone
STEADY = ("ventricles", "hippocampi", "inferior_horns", "brain", "intracranial")


def wanted(labels: np.ndarray, numbers: tuple[int, ...]) -> np.ndarray:
    return np.isin(labels, numbers) if numbers else (labels > 0) & ~np.isin(labels, WITHOUT)


def fluid(voxels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What the darkest of three Gaussians, those of fluid, grey and white in the labelled brain, explains best."""
    brain = voxels[wanted(labels, ())]
    begun = [np.median(voxels[wanted(labels, (51, 52))]), *np.quantile(brain, (0.35, 0.85))]
    tissues = GaussianMixture(3, means_init=np.reshape(begun, (3, 1)), random_state=0).fit(brain[::7, None])
    return tissues.predict(voxels.reshape(-1, 1)).reshape(voxels.shape) == tissues.means_.argmin()


def turned(scan: Scan, order: str = "LIA") -> Scan:
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(order))
    affine = scan.affine @ inv_ornt_aff(turn, scan.voxels.shape)
    voxels = np.ascontiguousarray(nib.orientations.apply_orientation(scan.voxels, turn))
    return replace(scan, voxels=voxels, affine=affine)


def moved(scan: Scan) -> Scan:
    shift = np.eye(4)
    shift[:3, 3] = (7, 5, 9)
    return replace(scan, affine=shift @ scan.affine)


def bare(scan: Scan, labels: np.ndarray) -> Scan:
    kept = ndimage.binary_fill_holes(ndimage.binary_closing(labels > 0, iterations=2) | (labels > 0))
    return replace(scan, voxels=scan.voxels * kept)


def pairs_of(count: int, measured: Callable[[Scan], dict[str, measures.Value]]) -> tuple[list[float], list[float]]:
    """What simulated hippocampi seem to have lost, %: where nothing changed, and where 5 % was lost."""
    still, lost = [], []
    for recipe in itertools.islice(shrunken_heads(), count):
        less, true = less_by(LOSS, recipe)
        angles, offset = (
            np.add(each, by) for each, by in ((recipe.angles, (2, -1, 1)), (recipe.offset, (1.3, -0.8, 0.6)))
        )
        lying = {"angles": tuple(angles), "offset": tuple(offset), "bias": 1.1 * recipe.bias}
        first, second, third = (
            measured(read(phantom.render(each).to_bytes(), "head.nii"))["hippocampi"].value
            for each in (recipe, replace(recipe, **lying), replace(less, **lying))
        )
        still.append(100 * (1 - second / first))
        lost.append(100 * (1 - third / first))
        print(
            f"pair {len(lost)}: no change {still[-1]:+.2f} %, {100 * true:.1f} % lost seen as {lost[-1]:+.2f} %",
            flush=True,
        )
    return still, lost


def shrunken_heads() -> Iterator[phantom.Recipe]:
    """Heads of 1 mm whose hippocampi lost something already, so that more of the same fluid is what is added."""
    for number in itertools.count():
        recipe = replace(draw((COHORT, number)), stripped="", spacing=(1.0, 1.0, 1.0), deform=0.8)
        if recipe.amounts.get("hippocampi", 0.0) > SHRUNKEN:
            yield recipe


def less_by(share: float, recipe: phantom.Recipe) -> tuple[phantom.Recipe, float]:
    """The head with a share of its hippocampi lost, and which share that became, as halving comes to it."""
    size = lambda mm: float((phantom.structures(losing(recipe, mm)) == HIPPOCAMPUS).sum())  # noqa: E731
    whole, least, most = size(0.0), 0.0, MOST_LOST
    for _ in range(6):
        mm = (least + most) / 2
        least, most = (mm, most) if 1 - size(mm) / whole < share else (least, mm)
    return losing(recipe, most), 1 - size(most) / whole


def losing(recipe: phantom.Recipe, mm: float) -> phantom.Recipe:
    return replace(recipe, amounts=recipe.amounts | {"hippocampi": recipe.amounts.get("hippocampi", 0.0) + mm})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="holds t1/ and labels/")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / model.SEGMENTER)
    parser.add_argument("--limit", type=int, help="only the first so many heads")
    parser.add_argument("--quick", action="store_true", help="overlap and volumes only")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="N simulated pairs too")
    parser.add_argument("--json", type=Path, help="write every number to this file too")
    given = parser.parse_args(argv)
    weights = segmenting.load(given.weights, "cpu")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    dice, pairs = {name: [] for name in STRUCTURES}, {name: [] for name in STRUCTURES}
    changes = {kind: {name: [] for name in STEADY} for kind in ("bare", "re-oriented", "moved", "3 × bright")}
    seconds: list[float] = []

    def measured(scan: Scan) -> dict[str, measures.Value]:
        prepared = prepare(scan, HEAD)
        begun = time.perf_counter()
        found = measures.measure(segmenting.segment(weights, prepared))
        seconds.append(time.perf_counter() - begun)
        return found

    for path in sorted((given.folder / "t1").glob("*.nii*"))[: given.limit]:
        labels = np.asarray(nib.load(given.folder / "labels" / path.name).dataobj)
        scan = read(path)

        prepared = prepare(scan, HEAD)
        found = segmenting.on_scan(segmenting.segment(weights, prepared), prepared, scan)
        values = measured(scan)
        cell = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
        for name, (theirs, ours, measure) in STRUCTURES.items():
            there, here = wanted(labels, theirs), np.isin(found, ours)
            if name == NO_FLUID:
                there &= ~fluid(scan.voxels, labels)
            dice[name].append(2 * (there & here).sum() / max(1, there.sum() + here.sum()))
            pairs[name].append((there.sum() * cell, values[measure].value))
        if given.quick:
            continue
        others = {"bare": bare(scan, labels), "re-oriented": turned(scan), "moved": moved(scan),
                  "3 × bright": replace(scan, voxels=scan.voxels.astype(np.float32) * 3)}  # fmt: skip
        for kind, other in others.items():
            there = measured(other)
            for name in STEADY:
                changes[kind][name].append(100 * (there[name].value / max(values[name].value, 1e-6) - 1))

    print(f"{len(dice['brain'])} heads, {weights.name} {weights.sha256[:12]}")
    print(f"{'':22} {'Dice':>6} {'lowest':>7} {'Pearson':>8} {'labels ml':>10} {'ours ml':>8} {'ratio':>6}")
    record = {"structures": {}, "changes_percent": {}}
    for name in STRUCTURES:
        truth, ours = np.array(pairs[name]).T
        row = {"dice": np.mean(dice[name]), "lowest": np.min(dice[name]),
               "pearson": np.corrcoef(truth, ours)[0, 1],
               "truth_ml": truth.mean(), "ours_ml": ours.mean(), "ratio": ours.mean() / truth.mean()}  # fmt: skip
        record["structures"][name] = {key: float(value) for key, value in row.items()}
        print(
            f"{name:22} {row['dice']:6.3f} {row['lowest']:7.3f} {row['pearson']:8.3f} {row['truth_ml']:10.2f} "
            f"{row['ours_ml']:8.2f} {row['ratio']:6.2f}"
        )
    if not given.quick:
        print("\nChange of a measure against the same head as it was, %: mean, and mean of the sizes")
        for kind, names in changes.items():
            both = {name: (float(np.mean(off)), float(np.abs(off).mean())) for name, off in names.items()}
            record["changes_percent"][kind] = both
            print(
                f"{kind:12}", "  ".join(f"{name} {mean:+.2f} ({size:.2f})" for name, (mean, size) in both.items())
            )
    if given.pairs:
        still, lost = pairs_of(given.pairs, measured)
        record["pairs"] = {"still": still, "lost": lost}
        print(
            f"\n{given.pairs} simulated pairs: without a change {np.mean(np.abs(still)):.2f} % on average, "
            f"{np.max(np.abs(still)):.2f} % at most; 5 % lost seen as {np.mean(lost):.2f} ± {np.std(lost):.2f} %"
        )
    record["seconds"] = float(np.median(seconds))
    record["peak_mb"] = own_peak_mb()
    print(
        f"\n{record['seconds']:.2f} s a scan (segment and measure, median, {torch.get_num_threads()} threads); "
        f"peak memory of this process {record['peak_mb']:.0f} MB"
    )
    if given.json:
        given.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
