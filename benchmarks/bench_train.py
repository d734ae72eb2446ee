"""One training step and one cached epoch of the 3-D network against the published loop, interleaved in one run.

The published loop reads every NIfTI anew, takes one volume a step, and runs the modules as written. Ours is
`train.py`'s own loop. `python -m benchmarks.bench_train --help` for the sizes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor, nn

import datasets
import train
from learning import loop
from learning.processes import Halt
from learning.run import open_run
from studies import STUDIES

STUDY = STUDIES["alzheimers"]
TARGETS = {"step": 1.3, "epoch, no augmentation": 1.5, "epoch, full augmentation": 1.5}


def published(classes: int) -> nn.Module:
    """The published layers as written, in torch's default layout."""
    blocks = []
    for inside, outside, pool in ((1, 8, 2), (8, 16, 3), (16, 32, 2), (32, 64, 3)):
        blocks += [nn.Conv3d(inside, outside, 3), nn.BatchNorm3d(outside), nn.ReLU(), nn.MaxPool3d(pool)]
    dense = [nn.Dropout(0.4), nn.Linear(4800, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, classes)]
    return nn.Sequential(*blocks, nn.Flatten(), *dense)


class Published:
    """The published loop: one volume, forward, backward, Adam."""

    def __init__(self, device: torch.device) -> None:
        self.network, self.device = published(len(STUDY.labels)).to(device), device
        self.optimiser, self.loss = torch.optim.Adam(self.network.parameters(), 1e-4), nn.CrossEntropyLoss()

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimiser.zero_grad()
        self.loss(self.network(x.to(self.device)), y.to(self.device)).backward()
        self.optimiser.step()

    def epoch(self, files: list[tuple[Path, int]]) -> None:
        for file, label in files:
            values = nibabel.load(file).get_fdata().astype(np.float32)
            self.step(torch.from_numpy(values)[None, None], torch.tensor([label]))


def cohort(folder: Path, cases: int) -> list[tuple[Path, int]]:
    """Blobs in noise, at the published size: what they show does not matter here."""
    random = np.random.default_rng(0)
    grid = np.stack(
        np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in STUDY.contract.shape], indexing="ij")
    )
    head = (np.square(grid / 0.8).sum(0) < 1) * np.float32(800)
    files = []
    for i in range(cases):
        code = STUDY.codes[i % len(STUDY.codes)]
        file = folder / code / f"sub-{i:03}.nii"
        file.parent.mkdir(parents=True, exist_ok=True)
        values = head * random.uniform(0.8, 1.2) + random.normal(0, 20, head.shape).astype(np.float32)
        image = nibabel.Nifti1Image(values.clip(0).astype(np.int16), np.diag([*STUDY.contract.spacing, 1.0]))
        nibabel.save(image, file)
        files.append((file, i % len(STUDY.codes)))
    return files


def trainer(folder: Path, out: Path, batch: int, augment: str, device: str) -> loop.Trainer:
    """A run of train.py, its cache filled, ready for its first epoch."""
    argv = [
        "--study",
        STUDY.key,
        "--data",
        str(folder),
        "--out",
        str(out),
        "--batch",
        str(batch),
        "--val",
        "0.01",
        "--test",
        "0",
        "--epochs",
        "1000",
        "--augment",
        augment,
        "--cache",
        str(folder.parent / "cache"),
        "--device",
        device,
        "--workers",
        "1",
    ]
    run, _ = open_run(train.parse(argv))
    run.cases = [case for case in run.cases if case.split == "train"]
    return run


def ours(run: loop.Trainer, batch: int, epoch: int) -> float:
    """One epoch of train.py's own loop over the training cases."""
    cases = loop.cases_of(run.cases, "train")
    scans = datasets.Scans(cases, run.study, run.cache, run.settings.augment, 0)
    scans.set_epoch(epoch)
    plan = loop.epoch_order(range(len(cases)), 0, epoch, batch)
    loader = loop.batches(scans, plan, batch, run.settings.workers)
    loss = loop.loss_of(run.study, cases, run.settings, run.device)
    return run.epoch(run.state.network, loader, len(plan) // batch, 10**6, loss, Halt())


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=8, help="volumes in an epoch")
    parser.add_argument("--batch", type=int, default=4, help="of ours; the published loop takes one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    seconds: dict[str, dict[str, list[float]]] = {name: {"published": [], "ours": []} for name in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        files = cohort(Path(folder) / "data", args.cases + len(STUDY.codes))
        runs = {
            name: trainer(Path(folder) / "data", Path(folder) / name, args.batch, name, args.device)
            for name in ("none", "full")
        }
        device = runs["none"].device
        learned = {case.file.resolve() for case in loop.cases_of(runs["none"].cases, "train")}
        files = [(file, label) for file, label in files if file.resolve() in learned]
        published, loss = Published(device), loop.loss_of(STUDY, runs["none"].cases, runs["none"].settings, device)
        x = torch.randn(args.batch, 1, *STUDY.contract.shape)
        y = torch.arange(args.batch) % len(STUDY.labels)
        work = {
            "step": (
                lambda: [published.step(x[i : i + 1], y[i : i + 1]) for i in range(args.batch)],
                lambda: runs["none"].epoch(runs["none"].state.network, iter([(x, y)]), 1, 10**6, loss, Halt()),
                args.batch,
            ),
            "epoch, no augmentation": (
                lambda: published.epoch(files),
                lambda: ours(runs["none"], args.batch, 0),
                len(files),
            ),
            "epoch, full augmentation": (
                lambda: published.epoch(files),
                lambda: ours(runs["full"], args.batch, 0),
                len(files),
            ),
        }
        for turn in range(args.rounds + 1):
            for name, (theirs, mine, volumes) in work.items():
                pair = timed(theirs, device) / volumes, timed(mine, device) / volumes
                if turn:  # the first round warms up
                    seconds[name]["published"].append(pair[0])
                    seconds[name]["ours"].append(pair[1])
    found = {}
    for name, pair in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(pair["published"], pair["ours"], strict=True)]
        found[name] = {
            **{who: statistics.median(times) for who, times in pair.items()},
            "ratio": statistics.median(ratios),
            "target": TARGETS[name],
        }
    print(
        f"{device}, {torch.get_num_threads()} threads, {len(files)} volumes of {STUDY.contract.shape}, batch "
        f"{args.batch} against 1, median of {args.rounds} rounds\n"
    )
    print("| seconds a volume | published | ours | times faster | target |\n| --- | --- | --- | --- | --- |")
    for name, row in found.items():
        print(f"| {name} | {row['published']:.3f} | {row['ours']:.3f} | {row['ratio']:.2f} | {row['target']} |")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
