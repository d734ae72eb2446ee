"""Demonstration weights for the picture studies: simulated, trained, scored and put into weights/ by one command.

    python demos.py                    all of them, in turn; an interrupted command goes on where it stopped
    python demos.py brain-tumour       one of them

The networks and settings below are those that answered best of what two cores learn in some minutes. No patient is
among the data, nothing is downloaded, and every card says so.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import model
import studies
from learning import run as training
from learning.settings import Given
from reports.wording import Texts
from scoring.calibration import example
from simulation.anatomy import AnatomyError
from simulation.pictures import cohort

ROOT = Path(__file__).parent
TITLE = "demonstration weights, learned from simulated pictures; not trained on patients"
SEED = 1  # of the simulated people
HELD_OUT = 0.2  # of them
SAME = 1e-2  # how far probabilities may move when the numbers are stored in 16 bits


class DemoError(Exception):
    """A demonstration cannot be made; the text says why and what to do."""


@dataclass(frozen=True)
class Demo:
    """How many people to simulate, and what a training's command line would say."""

    subjects: int
    network: str
    training: Given = field(default_factory=dict)


QUICK: Given = {"optimiser": "adamw", "schedule": "one-cycle", "decay": 0.01, "clip": 1.0, "patience": 0,
                "augment": "full", "freeze": False}  # fmt: skip
SMALL: Given = QUICK | {"lr": 2e-3, "batch": 24}

DEMOS: dict[str, Demo] = {
    "dementia-slices": Demo(
        200, "SliceCNN", QUICK | {"epochs": 12, "lr": 5e-4, "batch": 32, "severity_weight": 2.0}
    ),
    "brain-tumour": Demo(600, "SmallCNN", SMALL | {"epochs": 20, "shape": [96, 96]}),
    "covid-ct": Demo(240, "SmallCNN", SMALL | {"epochs": 20, "shape": [128, 128]}),
    "chest-nodule": Demo(400, "SmallCNN", SMALL | {"epochs": 15, "shape": [224, 224]}),
}


def make(study: str, demo: Demo, work: Path, weights: Path, workers: int) -> Path:
    """The weights file of one study: made, or there already."""
    there = weights / f"{study}.{demo.network}.safetensors"
    if there.is_file():
        print(f"{study}: {there} is there; take it away to make it anew")
        return there
    data, out = work / study / "pictures", work / study / "run"
    cohort.make(study, data, demo.subjects, SEED, HELD_OUT, workers)
    given: Given = {"study": study, "data": str(data), "network": demo.network, "title": TITLE, "out": str(out)}
    given |= {"example": str(ROOT / "demodata" / f"{study}.jpg"), "cache": str(work / study / "prepared")}
    given |= {"workers": workers - 1, **demo.training}
    if (out / "last.pt").is_file():
        given = {"resume": str(out)}
    status = training.train(given)
    if status:
        raise SystemExit(status)
    (found,) = out.glob("*.safetensors")
    return halved(found, there, ROOT / "demodata" / f"{study}.jpg")


def halved(source: Path, target: Path, picture: Path) -> Path:
    """A weights file with its large tensors in 16 bits, which must answer the same."""
    whole = model.load(source, "cpu")
    state = {
        name: value.half() if value.ndim > 1 and value.is_floating_point() else value
        for name, value in whole.network.state_dict().items()
    }
    whole.network.load_state_dict(state, assign=True)
    part = target.with_name(f"new-{target.name}")
    try:
        model.save(part, whole.network, whole.header, whole.extras)
        said = example(model.load(part, "cpu"), picture)
        before = whole.header.example["probabilities"]
        moved = max(abs(said["probabilities"][code] - before[code]) for code in before)
        if moved > SAME:
            raise DemoError(
                f"{source.name}: in 16 bits its answer moves by {moved:.3f}; copy it to {target.parent} as it is"
            )
        model.save(part, whole.network, replace(whole.header, example=said), whole.extras)
        return part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    def count(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a count of 1 or more")
        return int(text)

    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="demos.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("studies", nargs="*", metavar="STUDY", help=f"which (default: all): {', '.join(DEMOS)}")
    add("--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="where they go (default: weights/)")
    add(
        "--work",
        type=Path,
        default=Path("runs/demos"),
        metavar="DIR",
        help="pictures and runs (default: runs/demos)",
    )
    add("--workers", type=count, default=cores, help="processes that simulate (default: all cores)")
    add("--subjects", type=count, help="so many people instead of the study's own number")
    add("--epochs", type=count, help="so many rounds of training instead of the study's own")
    add("--shape", type=count, nargs=2, metavar="N", help="a coarser grid")
    add("--rounds", type=count, help="bootstrap rounds of the intervals, as train.py takes them")
    args = parser.parse_args(argv)
    unknown = [name for name in args.studies if name not in DEMOS]
    if unknown:
        parser.error(f"{unknown[0]}: no picture study; there are {', '.join(DEMOS)}")
    changes = {key: value for key in ("epochs", "shape", "rounds") if (value := getattr(args, key)) is not None}
    chosen = args.studies or list(DEMOS)
    made = []
    for number, study in enumerate(chosen, 1):
        demo = DEMOS[study]
        demo = replace(demo, subjects=args.subjects or demo.subjects, training=demo.training | changes)
        print(f"{study} ({number} of {len(chosen)}): {studies.STUDIES[study].title}", flush=True)
        began = time.monotonic()
        made.append(make(study, demo, args.work, args.weights, args.workers))
        print(f"{study}: {made[-1]}, {(time.monotonic() - began) / 60:.1f} min", flush=True)
    t = Texts("en")
    for path in made:
        header = model.read_header(path)
        print(f"{header.study.key:16} {header.network:18} {t.first_score(header)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demos.py: stopped; the same command goes on")
    except Exception as error:
        said = str(error) if isinstance(error, (AnatomyError, DemoError)) else training.sentence(error)
        if said is None:
            raise
        sys.exit(f"demos.py: {said}")
