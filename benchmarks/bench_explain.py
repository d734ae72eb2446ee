"""What a map costs, how far the methods agree, whether they outlive shuffled weights, and where they look.

    python -m benchmarks.bench_explain [--weights FILE] [--scan FILE] [--rounds N] [--simulated N] [--json]

Without weights in `weights/` untrained ones are used, without a scan a simulated head. Times are those between an
answer and its map, laid on the head as it lies, taken in one process, in turn (A B C A B C) with one eager forward
pass; peak memory is that of a process of its own each, which judges the scan first.
`--simulated N` asks, on N simulated heads of severe atrophy that no network learned from, how much of the map of
the last class lies where ventricles and temporal horns grew, against regions of that very shape elsewhere in the
brain, and how far the methods agree there. Where they grew is known: the same head is drawn without that growth.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy import ndimage

import model
import simulate
from benchmarks.side_by_side import own_peak_mb, peak_mb
from diagnosis.diagnoser import Diagnoser, Diagnosis
from diagnosis.head_geometry import brain
from diagnosis.maps import explain
from diagnosis.maps.regions import OUTSIDE, regions
from networks.header import Header
from scans.prepare import Prepared
from simulation import phantom
from studies import STUDIES

ROOT = Path(__file__).resolve().parent.parent

GROWN = ("ventricles", "horns")  # of the simulated head, where the map should lie
DARKER = 0.25  # of white matter's brightness: tissue that became fluid
MOVES = 200  # other places in the brain that the region is moved to


def weights_file(given: Path | None, folder: Path) -> Path:
    study = STUDIES["alzheimers"]
    known = [path for path in model.list_weights(ROOT / "weights") if path.name.startswith(study.key)]
    if given or known:
        return given or known[0]
    torch.manual_seed(0)
    network = model.NETWORKS[study.network](len(study.labels), **study.arguments)
    return model.save(
        folder / "untrained.safetensors",
        network,
        Header(study, study.network, study.arguments, "untrained"),
    )


def simulated(folder: Path, seed: int, severity: float) -> Path:
    path = folder / f"{seed}.nii"
    nibabel.save(simulate.head(seed, severity=severity)[0], path)
    return path


def judged(diagnoser: Diagnoser, file: Path) -> Diagnosis:
    return diagnoser(file, judge_anyway=True)


def times(diagnoser: Diagnoser, diagnosis: Diagnosis, code: str, rounds: int) -> dict[str, float]:
    """Median seconds of an eager forward and of each method, taken in turn."""
    weights = diagnoser.weights
    spent: dict[str, list[float]] = {"forward, eager": [], **{method: [] for method in explain.METHODS}}
    for _ in range(rounds):
        for name, taken in spent.items():
            start = time.perf_counter()
            if name in explain.METHODS:
                diagnoser.explain(diagnosis, name, code)
            else:
                with torch.inference_mode():
                    weights.network(diagnosis.seen.tensor[None].to(weights.device))
            taken.append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in spent.items()}


def peak(weights: Path, scan: Path, method: str) -> float:
    """Peak memory in MB of a process that makes one map."""
    return peak_mb(__file__, "--alone", method, "--weights", str(weights), "--scan", str(scan))


def grown(folder: Path, seed: int, severity: float) -> tuple[Path, np.ndarray]:
    """A simulated head, and where in its voxels ventricles and horns grew."""
    recipe = simulate.draw((seed,), severity=severity)
    amounts = recipe.amounts | dict.fromkeys(GROWN, 0.0)
    image, without = phantom.render(recipe), phantom.render(replace(recipe, amounts=amounts))
    path = folder / f"{seed}.nii"
    nibabel.save(image, path)
    severe, plain = (np.asarray(one.dataobj, dtype=np.float32) for one in (image, without))
    return path, plain - severe > DARKER * np.percentile(plain, 98)


def on_grid(truth: np.ndarray, prepared: Prepared) -> np.ndarray:
    """A mask of the scan's voxels on the study's grid."""
    shape = prepared.tensor.shape[1:]
    return ndimage.affine_transform(truth.astype(np.float32), prepared.to_scan, output_shape=shape, order=1) > 0.5


def density(made: explain.Map, weights: model.Weights, targets: np.ndarray, seed: int = 0) -> tuple[float, ...]:
    """The map's positive part in the targets, against its mean in the same shape moved elsewhere in the brain; the
    share of those other places that the targets surpass; and the share of the whole map that lies in them."""
    _, inside = brain(weights.contract)
    positive = np.clip(made.values, 0, None)
    index, draw, others = np.argwhere(targets & inside), np.random.default_rng(seed), []
    here = positive[tuple(index.T)].mean()
    reach = np.array([70, 80, 60]) / weights.contract.spacing
    while len(others) < MOVES:
        moved = index + np.round(draw.uniform(-reach, reach)).astype(int)
        moved = moved[((moved >= 0) & (moved < inside.shape)).all(1)]
        moved = moved[inside[tuple(moved.T)] & ~targets[tuple(moved.T)]]
        if len(moved) > 0.5 * len(index):
            others.append(positive[tuple(moved.T)].mean())
    share = here * len(index) / max(float(positive.sum(dtype=np.float64)), 1e-12)
    return float(here / max(np.mean(others), 1e-12)), float(np.mean(here > np.array(others))), float(share)


def agreements(maps: dict[str, explain.Map], prepared: Prepared) -> dict[str, float]:
    """Of each two of the maps."""
    return {
        f"{a} / {b}": explain.agreement(maps[a], maps[b], prepared.foreground)
        for a, b in itertools.combinations(maps, 2)
    }


def on_simulated(diagnoser: Diagnoser, code: str, count: int, folder: Path) -> dict:
    """The medians over some simulated heads, by method, and the agreement of each two methods on them."""
    weights = diagnoser.weights
    rows: dict[str, list[tuple[float, ...]]] = {method: [] for method in explain.METHODS}
    agreed: dict[str, list[float]] = {}
    for seed in range(7000, 7000 + count):
        path, truth = grown(folder, seed, 0.95)
        prepared = judged(diagnoser, path).seen
        targets = on_grid(truth, prepared)
        maps = {method: explain.explain(weights, prepared, code, method) for method in rows}
        for method, made in maps.items():
            rows[method].append(density(made, weights, targets))
        for pair, value in agreements(maps, prepared).items():
            agreed.setdefault(pair, []).append(value)
    keys = ("ratio", "surpassed", "share")
    return {
        "heads": count,
        "agreement": {pair: statistics.median(values) for pair, values in agreed.items()},
        "methods": {
            method: dict(zip(keys, map(statistics.median, zip(*values, strict=True)), strict=True))
            for method, values in rows.items()
        },
    }


def measure(options: argparse.Namespace, folder: Path) -> dict:
    path = weights_file(options.weights, folder)
    diagnoser = Diagnoser(path, options.device)
    weights = diagnoser.weights
    code = weights.study.by_severity[-1]
    scan = options.scan or simulated(folder, 1, 0.9)
    diagnosis = judged(diagnoser, scan)
    prepared = diagnosis.seen
    spent = times(diagnoser, diagnosis, code, options.rounds)
    maps = {method: explain.explain(weights, prepared, code, method) for method in explain.METHODS}
    methods = list(maps)
    found = {
        "weights": weights.header.title,
        "seconds": spent,
        "against_forward": {name: spent[name] / spent["forward, eager"] for name in methods},
        "peak_mb": {method: peak(path, scan, method) for method in methods},
        "absorbed": maps["relevance"].absorbed,
        "agreement": agreements(maps, prepared),
        "shuffled": {
            method: explain.randomised(weights, prepared, maps[method])
            for method in methods
            if method != "occlusion"
        },
        "outside": {method: regions(maps[method], prepared, weights.contract).get(OUTSIDE) for method in methods},
    }
    found["simulated"] = on_simulated(diagnoser, code, options.simulated, folder) if options.simulated else None
    return found


def show(found: dict) -> None:
    print(f"weights: {found['weights']}\n\n{'':18}{'median':>10}{'× forward':>12}{'peak':>12}{'outside':>10}")
    for name, seconds in found["seconds"].items():
        row = f"{name:18}{seconds:8.2f} s"
        if name in found["against_forward"]:
            row += f"{found['against_forward'][name]:12.2f}{found['peak_mb'][name]:9.0f} MB"
            row += f"{found['outside'][name] or 0:10.0%}"
        print(row)
    print(f"\nrelevance kept by biases: {found['absorbed']:.1%}")
    for pair, value in found["agreement"].items():
        print(f"rank correlation, {pair}: {value:.2f}")
    for method, value in found["shuffled"].items():
        print(f"rank correlation with shuffled last layers, {method}: {value:.2f} (flagged from {explain.SAME})")
    if not found["simulated"]:
        return
    print(f"\non {found['simulated']['heads']} simulated heads, where ventricles and temporal horns grew:")
    for method, value in found["simulated"]["methods"].items():
        print(
            f"  {method}: {value['share']:.0%} of what speaks for the class, {value['ratio']:.2f} times as much "
            f"as in as large a region elsewhere in the brain, more than in {value['surpassed']:.0%} of such"
        )
    for pair, value in found["simulated"]["agreement"].items():
        print(f"  rank correlation, {pair}: {value:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the study's in weights/")
    parser.add_argument("--scan", type=Path, metavar="FILE", help="default: a simulated head")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (%(default)s)")
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="simulated heads to look at (none)")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one object with the figures")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        diagnoser = Diagnoser(options.weights, options.device)
        code = diagnoser.study.by_severity[-1]
        diagnoser.explain(judged(diagnoser, options.scan), options.alone, code)
        print(own_peak_mb())
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
