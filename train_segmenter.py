"""Train the segmenter: from label maps and simulated heads to one weights file, no person's scan among them.

    python train_segmenter.py --labelmaps FOLDER --hold-out 4 --simulated 24 --steps 4500
    python train_segmenter.py --simulated 40 --steps 4500 --out template.safetensors      the template alone
    python train_segmenter.py --labelmaps FOLDER --hold-out 4 --simulated 24 --calibrate  scores and doubts anew
    python train_segmenter.py --init FILE --labelmaps FOLDER --steps 900 --rate 5e-4      a known one, taught more

It stops and goes on: the state lies beside the weights file and stays there. More --steps than before
lengthen a finished run. `benchmarks/bench_segmentation.py` measures the result on labelled heads.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import model
from diagnosis.anatomy import segment
from learning import segmentation
from learning.segmentation import Settings
from networks.segmenter import CLASSES, Segmenter
from scans.progress import progress
from simulation import labelled
from simulation.anatomy import AnatomyError
from simulation.labelled import LabelledHead
from simulation.recipes import draw
from studies import NOTICE

HELD_OUT_HEADS = 4  # simulated ones, where no map is held out
DRAWS = 3  # of each held-out head, for scores and calibration
COHORT = 5000  # seed of the simulated heads: cohorts for the class weights keep below 1000


def main(argv: Sequence[str] | None = None) -> None:
    given = parsed(argv)
    command = shlex.join(["python", "train_segmenter.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        run(given, command)
    except (ValueError, model.WeightsError, AnatomyError) as error:
        raise SystemExit(f"train_segmenter.py: {error}") from error


def run(given: argparse.Namespace, command: str) -> None:
    """Train, score and write, or score and write again."""
    if given.add_mean:
        add_mean(given.out)
        return
    device = model.pick_device(given.device)
    begin = segment.load(given.init, device) if given.init else None
    files = labelled.find_maps(given.labelmaps) if given.labelmaps else []
    if files and len(files) <= given.hold_out:
        raise ValueError(
            f"--hold-out {given.hold_out} leaves none of the {len(files)} maps of {given.labelmaps} "
            "to learn from; hold out fewer"
        )
    files, kept_back = files[: len(files) - given.hold_out], files[len(files) - given.hold_out :]
    drawn = range(given.simulated + (0 if kept_back else HELD_OUT_HEADS))
    held_out = heads(kept_back, drawn[given.simulated :])
    torch.set_num_threads(given.threads)
    if given.calibrate:
        weights = segment.load(given.out, device)
        finish(given.out, weights.network, weights.header["training"], held_out)
        return
    maps, simulated = heads(files, ()), heads((), drawn[: given.simulated])
    settings = Settings(steps=given.steps, seed=given.seed, rate=given.rate, drawn_share=given.drawn_share)
    state = given.out.with_suffix(".state")
    say = lambda text: print(text, flush=True)  # noqa: E731
    check = lambda network: f"held out: {segmentation.scores_of(segmentation.on_held_out(network, held_out))}"  # noqa: E731
    network, history = segmentation.train(
        maps, simulated, settings, state, device, say=say, check=check, begin=begin
    )
    finish(given.out, network, provenance(given, command, len(maps + kept_back), history, settings), held_out)


def heads(files: Sequence[Path], drawn: Sequence[int]) -> list[LabelledHead]:
    """The heads of these label maps and the simulated ones of these numbers."""
    maps = [labelled.read_map(path) for path in progress(files, "maps", unit="map")]
    simulated = [
        labelled.simulated(f"simulated-{k}", draw((COHORT, k)))
        for k in progress(drawn, "simulated heads", unit="head")
    ]
    return maps + simulated


def finish(out: Path, network: Segmenter, training: dict[str, Any], held_out: Sequence[LabelledHead]) -> None:
    """Score and calibrate the network on held-out heads, and write its file."""
    rows = segmentation.on_held_out(network, held_out, draws=DRAWS)
    scores, calibration = segmentation.scores_of(rows), segmentation.calibration_of(rows)
    header: dict[str, Any] = {
        "title": "measured anatomy: the segmenter of brain structures",
        "calibration": calibration,
        "training": training,
        "scores": {"heads": [head.name for head in held_out], "classes": scores},
    }
    header["card"] = card(header)
    path = segmentation.write(out, network, header)
    add_mean(path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(header["card"], flush=True)


def add_mean(path: Path) -> None:
    """The mean head, on which brains are laid, into a file."""
    if not segmentation.add_mean(path):
        print(
            f"{path.name}: outlines no brain in the ICBM 152 template, so it brings no mean head", file=sys.stderr
        )


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        if int(text) < 0:
            raise argparse.ArgumentTypeError(f"{text} is not a count of 0 or more")
        return int(text)

    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a count of 1 or more")
        return int(text)

    def share(text: str) -> float:
        if not 0 <= float(text) <= 1:
            raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
        return float(text)

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labelmaps", type=Path, help="folder of 1 mm label maps numbered as FreeSurfer does")
    parser.add_argument("--about", default="", help="what the maps are and their licence, in words for the card")
    parser.add_argument(
        "--hold-out", type=count, default=4, help="maps, the last by name, only scored on (default: 4)"
    )
    parser.add_argument("--simulated", type=count, default=24, help="heads of the simulator (default: 24)")
    parser.add_argument("--steps", type=positive, default=Settings.steps, help=f"default: {Settings.steps}")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights of a segmenter to begin with")
    parser.add_argument("--rate", type=share, default=Settings.rate, help=f"of learning, default: {Settings.rate}")
    parser.add_argument(
        "--drawn-share",
        type=share,
        default=Settings.drawn_share,
        help=f"of the samples from label maps, the others from simulated heads (default: {Settings.drawn_share})",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="train nothing: score and calibrate the file at --out anew on the heads that were held out of it",
    )
    parser.add_argument(
        "--add-mean",
        action="store_true",
        help="train nothing: add the mean head, on which brains are laid, to the file at --out",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument(
        "--out", type=Path, default=Path("weights") / model.SEGMENTER, help="default: weights/" + model.SEGMENTER
    )
    given = parser.parse_args(argv)
    if not given.add_mean and not given.labelmaps and not given.simulated:
        parser.error("nothing to learn from: give --labelmaps FOLDER, --simulated N, or both")
    return given


def provenance(given: argparse.Namespace, command: str, maps: int, history: dict, settings: Settings) -> dict:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    sources = [f"{given.simulated} simulated heads on the ICBM 152 anatomy"] if given.simulated else []
    if maps:
        about = f" ({given.about})" if given.about else ""
        sources.append(f"{maps} label maps{about}, the last {given.hold_out} by name held out")
    return {
        "data": " and ".join(sources),
        "command": command,
        "seed": given.seed,
        "settings": asdict(settings),
        "history": history["history"],
        "commit": commit.stdout.strip() or None,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
    }


def card(header: dict) -> str:
    training, scores = header["training"], header["scores"]
    rows = "\n".join(
        f"| {name} | {scores['classes'][name]['dice']:.2f} | {scores['classes'][name]['ratio']:.2f} "
        f"| {header['calibration'][name]['factor']:.3f} | {header['calibration'][name]['doubt']:.2f} |"
        for name in CLASSES[1:]
    )
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return f"""# {header["title"]}

**{NOTICE}**

## What it learned from

{training["data"]}. No person's scan: brightness was drawn by label, or rendered by the simulator.

## Held-out heads

Brightness drawn as on T1 scans: {", ".join(scores["heads"])}. Volumes are sums of probabilities; the factor brings
their median to the true volumes. Nine of ten of those lie within the doubt × volume^⅔ (of each side, in ml).

| class | Dice | volume ÷ true volume | factor | doubt |
| --- | --- | --- | --- | --- |
{rows}

## Limits

Adult heads, best on T1. Tumours, bleeds, lesions, operated heads and children were never seen. Volumes of other
tools differ by up to a third: never compare with their norms.

## How to make it again

```
{training["command"]}
```

Seed {training["seed"]}; {versions}; commit {training["commit"] or "unknown"}; {training["date"]}.
"""


if __name__ == "__main__":
    main()
