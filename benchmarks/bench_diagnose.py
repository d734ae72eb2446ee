"""From a scan's file to a diagnosis with its pictures: ours against the published way.

    python -m benchmarks.bench_diagnose [--scan FILE] [--weights FILE | --untrained] [--rounds N] [--no-memory]

The published way, written anew: float64 voxels by nibabel, stretched to the grid where they do not fit it, the
checkpoint loaded for every scan, the modules as written, pictures by pyplot. Both are warm and timed in turn
(A B A B) in one process; peak memory is that of a process of its own for one diagnosis. Ours draws the page of its
report, with the same planes and bars and more. No heat map. Below it, what intervals from passes with dropout add
to one forward pass, and what reading in a process that may die adds to reading.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import nn

import model
from benchmarks.side_by_side import finish, in_turn, own_peak_mb, peak_mb, table
from networks.header import Header
from scans import processes
from scans.read import read
from studies import PUBLISHED, STUDIES

ROOT = Path(__file__).resolve().parent.parent

STUDY = STUDIES["alzheimers"]
OURS, OLD = "ours", "published"


def weights_file(folder: Path) -> Path:
    """The study's weights, or untrained ones where there are none: the time is the same."""
    known = [path for path in model.list_weights(ROOT / "weights") if path.name.startswith(STUDY.key)]
    return known[0] if known else untrained(folder)


def untrained(folder: Path) -> Path:
    """Weights that look at the whole head, whether it is measured or not."""
    return model.save(
        folder / f"{STUDY.key}.ClassificationModel3D.safetensors",
        model.ClassificationModel3D(),
        Header(STUDY, "ClassificationModel3D", title="untrained"),
    )


# what the pickled module names
PICKLED = [
    (model.ClassificationModel3D, "model.ClassificationModel3D"),
    *(nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.Linear, nn.ReLU, nn.Dropout, set),
]


def checkpoint(folder: Path) -> Path:
    """A pickled module, as the published one is."""
    path = folder / "published.pth"
    torch.save(model.ClassificationModel3D(), path)
    return path


def published(file: Path, saved: Path) -> tuple[np.ndarray, list[bytes]]:
    """Probabilities and pictures, step by step as the published system does it."""
    from matplotlib import pyplot
    from scipy import ndimage

    voxels = nibabel.load(file).get_fdata()  # float64
    if voxels.shape != PUBLISHED.shape:
        voxels = ndimage.zoom(voxels, np.divide(PUBLISHED.shape, voxels.shape), order=1)
    x = torch.from_numpy(voxels[: PUBLISHED.planes]).float()[None, None]  # (1, 1, 160, 256, 256)
    with torch.serialization.safe_globals(PICKLED):
        network = torch.load(saved, weights_only=True)
    with torch.no_grad():
        values = network.eval()(x).softmax(1)[0].numpy()
    pictures = []
    for draw in (draw_slices, draw_bars):
        figure = draw(pyplot, voxels, values)
        file_like = io.BytesIO()
        figure.savefig(file_like, format="png")
        pyplot.close(figure)
        pictures.append(file_like.getvalue())
    return values, pictures


def draw_slices(pyplot, voxels: np.ndarray, _: np.ndarray):
    figure, axes = pyplot.subplots(1, 3, figsize=(9.0, 3.3), dpi=110)
    for axis, panel in enumerate(axes):
        panel.imshow(voxels.take(voxels.shape[axis] // 2, axis).T, cmap="gray", origin="lower")
        panel.set_axis_off()
    return figure


def draw_bars(pyplot, _: np.ndarray, values: np.ndarray):
    figure, axes = pyplot.subplots(figsize=(6.4, 2.2), dpi=110)
    axes.barh(STUDY.codes, values)
    for row, value in enumerate(values):
        axes.text(value, row, f"{value:.1%}", va="center")
    return figure


class Ours:
    def __init__(self, weights: Path):
        from diagnosis.diagnoser import Diagnoser  # here, so that the other's memory is its own
        from networks.memory import keep_memory

        keep_memory()  # as diagnose.py does
        self.diagnoser, self.steps = Diagnoser(weights, "cpu"), []

    def judge(self, file: Path):
        diagnosis = self.diagnoser(file, judge_anyway=True)
        self.steps.append(diagnosis.seconds)
        return diagnosis

    def __call__(self, file: Path) -> list[bytes]:
        from reports.html import html

        return [html(self.judge(file)).encode()]  # the report's page, planes and bars in it


def uncertainty(ours: Ours, scan: Path, rounds: int, clock) -> dict[str, float]:
    """Median seconds of one forward pass, alone and with the passes with dropout."""
    from networks.dropout import PASSES

    forward = ours.diagnoser.forward
    x = ours.diagnoser(scan, judge_anyway=True).seen.tensor[None]

    def with_passes() -> None:
        base = forward.base(x)
        forward.answer(base)
        forward.passes(base, PASSES)

    return in_turn({"one forward": lambda: forward(x), f"with {PASSES} passes": with_passes}, rounds, clock)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scan", type=Path, default=ROOT / "demodata" / "demo.nii.gz", help="which (default: the example)"
    )
    parser.add_argument("--weights", type=Path, help="a weights file (default: the study's, else untrained)")
    parser.add_argument(
        "--untrained", action="store_true", help="an untrained network of the whole head, and nothing measured"
    )
    parser.add_argument("--rounds", type=int, default=9, help="how often each is timed (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (%(default)s)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time the processor's work, not the clock on the wall"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory of each")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--only", choices=[OURS, OLD], help=argparse.SUPPRESS)  # print its peak memory
    parser.add_argument("--saved", type=Path, help=argparse.SUPPRESS)  # the published checkpoint
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.only:
        if options.only == OURS:
            Ours(options.weights)(options.scan)
        else:
            published(options.scan, options.saved)
        print(own_peak_mb())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = options.scan
        weights = untrained(folder) if options.untrained else options.weights or weights_file(folder)
        saved, ours = checkpoint(folder), Ours(weights)
        calls = {
            OLD: lambda: published(scan, saved),
            OURS: lambda: ours(scan),
            "ours, no pictures": lambda: ours.judge(scan),
        }
        clock = time.process_time if options.cpu_time else time.perf_counter
        seconds = in_turn(calls, options.rounds, clock)
        repeated = uncertainty(ours, scan, options.rounds, clock)
        reading = in_turn(
            {"in this process": lambda: read(scan), "in a reader": lambda: processes.read(scan)},
            options.rounds,
            time.perf_counter,
        )
        memory = {}
        if not options.no_memory:
            given = ("--scan", str(scan), "--weights", str(weights), "--saved", str(saved))
            memory = {key: peak_mb(__file__, "--only", key, *given) for key in (OURS, OLD)}
    steps = {step: float(np.median([row[step] for row in ours.steps])) for step in ours.steps[0]}
    numbers = {
        "vs_published": seconds[OLD] / seconds[OURS],
        "peak_mb": memory.get(OURS),
        "published_peak_mb": memory.get(OLD),
        "seconds": seconds,
        "steps": steps,
        "uncertainty": repeated,
        "reading": reading,
        "threads": options.threads,
    }
    rows = [
        [key, f"{spent:.3f} s", f"{seconds[OLD] / spent:.2f}×", f"{memory[key]:.0f} MB" if key in memory else None]
        for key, spent in seconds.items()
    ]
    text = (
        table(["one scan to a diagnosis", "median", "speed", "peak"], rows)
        + "\n\n"
        + table(
            ["ours, step by step", "median, wall"], [[step, f"{spent:.3f} s"] for step, spent in steps.items()]
        )
    )
    first = next(iter(repeated.values()))
    text += "\n\n" + table(
        ["intervals", "median", "of one forward"],
        [[name, f"{spent:.3f} s", f"{spent / first:.2f}×"] for name, spent in repeated.items()],
    )
    text += "\n\n" + table(["reading", "median"], [[where, f"{spent:.3f} s"] for where, spent in reading.items()])
    finish(numbers, text, options.json)


if __name__ == "__main__":
    main()
