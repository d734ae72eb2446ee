"""What the bundled Alzheimer's weights make of real heads they never saw: printed, not asserted.

    python -m benchmarks.bench_real_heads DIR [--weights FILE] [--limit N] [--json]

DIR holds `t1/` (whole heads) and `labels/` (same names; above 0 is brain, VENTRICLES are the ventricles).
Printed are the Spearman correlation of expected severity with the ventricle fraction, its partial correlation with
the hippocampal fraction, the ventricles known (--simulated N: on N simulated heads too), how much of a heat
map lies outside the labelled brain, what taking the skull away changes, and what moving, turning, resampling and
brightening the same head change.
"""

import argparse
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output
from scipy import ndimage
from scipy.stats import rankdata, spearmanr

import diagnose
from diagnosis.diagnoser import Diagnoser, Diagnosis, find_weights
from scans.prepare import restore
from simulation.phantom import STRUCTURES, render, structures
from simulation.recipes import draw

VENTRICLES = (4, 11, 49, 50, 51, 52)
HIPPOCAMPI = (47, 48)
MAPS = ("relevance", "grad-cam")
COHORT = 7100  # seed of the simulated heads, which no weights learned from


def partial(severity: list[float], hippocampi: list[float], ventricles: list[float]) -> float:
    """Spearman's correlation of severity and hippocampi, what the ventricles tell of either taken away."""
    a, b, known = (rankdata(each) for each in (severity, hippocampi, ventricles))
    rest = [each - np.polyval(np.polyfit(known, each, 1), known) for each in (a, b)]
    return float(np.corrcoef(*rest)[0, 1])


def on_simulated(diagnoser: Diagnoser, count: int) -> float:
    """That correlation over heads whose structures the simulator knows."""
    rows = []
    for number in range(count):
        recipe = draw((COHORT, number))
        shown = structures(recipe)
        size = lambda *names: np.isin(shown, [STRUCTURES.index(name) for name in names]).sum()  # noqa: B023, E731
        brain = (shown > STRUCTURES.index("fluid")).sum()
        judged = diagnoser(render(recipe).to_bytes(), "head.nii", judge_anyway=True)
        if judged.severity is not None:
            ventricles = size("lateral", "inferior_horn", "third", "fourth")
            rows.append((judged.severity, size("hippocampus") / brain, ventricles / brain))
    return partial(*map(list, zip(*rows, strict=True)))


def outside(diagnoser: Diagnoser, diagnosis: Diagnosis, labels: np.ndarray) -> dict[str, float]:
    """The share of each map, whatever its sign, outside the labels and the clefts between them."""
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(labels > 0, iterations=3))
    shares = {}
    for method in MAPS:
        values = np.abs(diagnoser.explain(diagnosis, method).values)
        there = restore(values, diagnosis.prepared, diagnosis.scan)
        shares[f"{method} outside"] = float(there[~inside].sum() / max(there.sum(), 1e-12))
    return shares


def like(image: nib.Nifti1Image, voxels: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    """A NIfTI file of these voxels in memory."""
    affine = image.affine if affine is None else affine
    return nib.Nifti1Image(voxels, affine).to_bytes()


def altered(image: nib.Nifti1Image) -> dict[str, bytes]:
    """The same head, stored in other ways that must not matter."""
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    moved = image.affine.copy()
    moved[:3, 3] += (12.0, -20.0, 15.0)
    shifted = np.roll(np.pad(voxels, 12, mode="edge"), (5, -4, 3), (0, 1, 2))
    turned = nib.as_closest_canonical(image).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("LIA"))
    )
    coarse = resample_to_output(nib.Nifti1Image(voxels, image.affine), (2.0, 2.0, 2.0), order=1)
    mirrored = nib.as_closest_canonical(image)
    return {
        "moved": like(image, shifted, moved),
        "mirrored": like(mirrored, np.asarray(mirrored.dataobj)[::-1].copy(), mirrored.affine),
        "re-oriented": turned.to_bytes(),
        "at 2 mm": coarse.to_bytes(),
        "brightened": like(image, voxels * 3 + 200),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=int, help="only the first N heads")
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="N simulated heads too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    weights = options.weights or find_weights(diagnose.ROOT / "weights", "alzheimers")
    diagnoser = Diagnoser(weights)

    def severity(file: bytes) -> float:
        found = diagnoser(file, "head.nii", judge_anyway=True).severity
        return float("nan") if found is None else found

    rows = []
    for path in sorted((options.folder / "t1").glob("*.nii.gz"))[: options.limit]:
        image = nib.load(path)
        labels = np.asarray(nib.load(options.folder / "labels" / path.name).dataobj)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        diagnosis = diagnoser(path, judge_anyway=True)
        if diagnosis.severity is None:
            print(f"{path.name}: no class: {'; '.join(finding.text for finding in diagnosis.findings)}")
            continue
        row = {
            "head": path.name,
            "ventricles": np.isin(labels, VENTRICLES).sum() / (labels > 0).sum(),
            "hippocampi": np.isin(labels, HIPPOCAMPI).sum() / (labels > 0).sum(),
            "severity": diagnosis.severity,
            "verdict": diagnosis.verdict,
            "outside": outside(diagnoser, diagnosis, labels),
            "stripped": severity(like(image, voxels * (labels > 0))),
            "changed": {key: severity(file) - diagnosis.severity for key, file in altered(image).items()},
        }
        rows.append(row)
        if not options.json:
            shown = [f"{key} {share:.1%}" for key, share in row["outside"].items()]
            shown += [f"{key} {change:+.3f}" for key, change in row["changed"].items()]
            print(
                f"{path.name:<28} ventricles {row['ventricles']:6.2%}  severity {diagnosis.severity:.3f}  "
                f"stripped {row['stripped']:.3f}  {'  '.join(shown)}  {diagnosis.verdict}"
            )
    fractions = [row["ventricles"] for row in rows]
    figures = {
        "heads": len(rows),
        "fit": sum(row["verdict"] == "fit" for row in rows),
        "spearman": float(spearmanr(fractions, [row["severity"] for row in rows])[0]),
        "spearman_stripped": float(
            spearmanr(fractions, [row["stripped"] for row in rows], nan_policy="omit").statistic
        ),
        "no_class": sum(bool(np.isnan([row["stripped"], *row["changed"].values()]).any()) for row in rows),
        "stripped_max": float(np.nanmax([abs(row["stripped"] - row["severity"]) for row in rows])),
        "changed_max": {
            key: float(np.nanmax([abs(row["changed"][key]) for row in rows])) for key in rows[0]["changed"]
        },
        "outside": {
            key: (float(np.median(shares)), max(shares))
            for key in rows[0]["outside"]
            for shares in [[row["outside"][key] for row in rows]]
        },
    }
    severities = [row["severity"] for row in rows]
    figures["partial"] = partial(severities, [row["hippocampi"] for row in rows], fractions)
    figures["partial_simulated"] = on_simulated(diagnoser, options.simulated) if options.simulated else None
    if options.json:
        print(json.dumps(figures))
        return 0
    print(
        f"\n{figures['heads']} heads, {figures['fit']} fit to judge; Spearman of expected severity with the "
        f"ventricle fraction {figures['spearman']:.2f} (skull-stripped {figures['spearman_stripped']:.2f})"
    )
    print(f"partial correlation with the hippocampal fraction, the ventricles known: {figures['partial']:.2f}")
    if options.simulated:
        print(f"the same on {options.simulated} simulated heads: {figures['partial_simulated']:.2f}")
    for key, (median, most) in figures["outside"].items():
        print(f"{key} the brain: {median:.1%} in the median, {most:.1%} at most")
    if figures["no_class"]:
        print(f"{figures['no_class']} heads get no class when stripped or changed; what follows leaves them out")
    print(
        f"largest change when stripped {figures['stripped_max']:.3f}; "
        + ", ".join(f"{key} {value:.3f}" for key, value in figures["changed_max"].items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
