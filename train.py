"""Trains a study's network on labelled scans and writes a weights file that carries its own scores; resumes.

How scans are found, split and prepared is in `datasets.py`, the training loop in `fit.py`, how a network is
judged in `evaluate.py`.
"""

import argparse
import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import datasets
import evaluate
import frozen
import model
import studies
import sweep
from datasets import Case, DataError
from fit import OPTIMISERS, SCHEDULES, Halt, Interrupted, Trainer, TrainError, join, part, shared, world
from scans import ScanError
from studies import Study

# What holds where neither the command line nor the study's own `training` says otherwise.
DEFAULTS: dict[str, Any] = {
    "out": None, "epochs": 20, "lr": 1e-3, "batch": 8, "accumulate": 1, "patience": 0, "workers": 2, "seed": 0,
    "schedule": "cosine", "optimiser": "adamw", "decay": 1e-2, "momentum": 0.9, "severity_weight": 0.0,
    "ends_first": 0, "dropout": None, "class_weights": False, "clip": 0.0, "augment": "full", "precision": None,
    "device": "auto", "split": None, "val": 0.15, "test": 0.2, "subject_regex": None, "label_column": None,
    "cache": None, "cache_limit": 64.0, "allow_leak": False, "network": None, "title": None, "threads": 0,
    "example": None, "rounds": 1000, "init": None, "freeze": False, "shape": None,
    "start": None, "start_optional": False, "deduplicate": False,
}  # fmt: skip
BRAIN = (0.5, 0.475, 0.54)  # of the full grid: what a smaller one is cut about
ABOUT = 2000  # letters of the data's about.txt that a weights file keeps
MOVABLE = {"data", "device", "workers", "threads", "cache", "cache_limit", "title", "example", "rounds"}
PATHS = {"data", "out", "split", "cache", "example", "init", "start"}  # in the weights file without folders
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# ---- the cases

def gather(study: Study, settings: dict[str, Any], out: Path, cache: datasets.Cache
           ) -> tuple[list[Case], dict[str, int]]:
    """The cases, read, split and free of leaks; how many leaks were allowed and cases left out as doubles.

    Writes `split.csv`.
    """
    data = Path(settings["data"])
    if settings["split"]:
        cases = datasets.read_split(settings["split"], root(data))
    else:
        cases = datasets.find(data, study, settings["subject_regex"], settings["label_column"])
    cases = evaluate.readable(cases, cache, settings["workers"])
    count = len(cases)
    prints = datasets.fingerprints(cases)
    if settings["deduplicate"]:
        cases = singled(cases, datasets.leaks(cases, prints))
    cases = datasets.assign(cases, settings["seed"], settings["val"], settings["test"])
    for name in ("train", "val"):
        if not part(cases, name):
            raise TrainError(f"{data}: no case for {name}; give more subjects, or another --val than "
                             f"{settings['val']}")
    for note in datasets.notes(cases, study):
        print(f"note: {note}", file=sys.stderr)
    leaks = datasets.leaks(cases, prints)
    if leaks.pairs and not settings["allow_leak"]:
        raise TrainError(f"{leaks}\nTake one of each pair out or split again; --allow-leak trains all the same "
                         "and says so on the card of the weights file.")
    if leaks.pairs or leaks.duplicates:
        print(f"warning: {leaks}", file=sys.stderr)
    datasets.write_split(out / "split.csv", cases, root(data))
    return cases, {"leaks": len(leaks.pairs), "doubles": count - len(cases)}


def singled(cases: list[Case], found: datasets.Leaks) -> list[Case]:
    """One case of each group of identical pictures; groups that contradict themselves are named and left out."""
    kept, torn = datasets.deduplicate(cases, found, refuse=False), datasets.contradictions(found)
    print(f"left out {len(cases) - len(kept)} of {len(cases)} scans, identical to others")
    if torn:
        print(f"{len(torn)} groups of them left out whole, for identical pictures have different labels:",
              *torn, sep="\n  ", file=sys.stderr)
    return kept


def root(data: Path) -> Path:
    """The folder from which the paths of a split count."""
    return data if data.is_dir() else data.parent


# ---- from the best state to a weights file

def finish(run: Trainer, halt: Halt) -> Path:
    """Calibrates on validation subjects, scores on test subjects, writes the weights file and its card."""
    study, settings, state = run.study, run.settings, run.state
    if not state.best:
        raise TrainError("no epoch is done yet, so there is nothing to write; go on with --resume")
    network = run.state.network
    network.load_state_dict(state.best)
    network.to(memory_format=torch.contiguous_format).eval()
    header = heading(run)
    weights = model.Weights("", "", header, study, network, run.device, {})
    seen = {name: evaluate.predict(weights, part(run.cases, name), run.cache, progress=halt.check,
                                   sketches=name != "test") for name in ("train", "val", "test")}
    cohort = f"“{shown('data', settings['data'])}”"
    header["calibration"] = evaluate.fit_calibration(seen["val"].logits, seen["val"].targets(study), cohort,
                                                     len(set(seen["val"].subjects)))
    header["likeness"], extras = evaluate.fit_likeness(seen["train"], seen["val"], study.contract)
    if settings["example"]:
        header["example"] = evaluate.example(weights, Path(settings["example"]))
    if seen["test"].files:
        header["scores"] = evaluate.scores(seen["test"], study, header["calibration"], rounds=settings["rounds"])
        header["scores"]["cohort"] = cohort
    header["card"] = evaluate.card(header)
    path = run.out / f"{study.key}.{settings['network']}.safetensors"
    model.save(path, network, header, extras)
    evaluate.write(run.out, header, seen["test"], study, root(Path(settings["data"])))
    evaluate.put(run.out / "losses.json", json.dumps(
        {"settings": header["training"]["settings"], "classes": dict(enumerate(study.codes)),
         "best_epoch": state.best_epoch, "epochs": state.history}, indent=1).encode())
    return path


def heading(run: Trainer) -> dict[str, Any]:
    """The header as far as it is known before any judging."""
    study, settings, state = run.study, run.settings, run.state
    subjects: dict[str, dict[str, int]] = {}
    hashes: dict[str, list[str]] = {}
    first = None  # how the weights that it began with were made
    for name in ("train", "val", "test"):
        cases = part(run.cases, name)
        subjects[name] = {c: len({case.subject for case in cases if case.label == c}) for c in study.codes}
        hashes[name] = sorted({datasets.subject_hash(case.subject) for case in cases})
    if settings["init"]:  # whom the first tensors were learned from counts as learned from
        first = model.read_header(settings["init"]).get("training", {})
        known = first.get("subject_hashes", {})
        before = {digest for name in ("train", "val") for digest in known.get(name, [])}
        if before & set(hashes["test"]):
            raise TrainError(f"--init {Path(settings['init']).name}: it learned from subjects to be tested "
                             "on here; use the same split for both")
        hashes["train"] = sorted((before | set(hashes["train"])) - set(hashes["val"]))
    counts = {"name": shown("data", settings["data"]), "scans": len(run.cases),
              "people": len({case.subject for case in run.cases})}
    data = "“{name}”: {scans} scans of {people} subjects".format(**counts)
    doubles = run.facts.get("doubles")
    data += f" ({doubles} more left out, identical to others)" if doubles else ""
    about = root(Path(settings["data"])) / "about.txt"
    here = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return {
        "title": settings["title"] or f"{study.title}; learned from {data}",
        "study": studies.to_record(study),
        "network": {"name": settings["network"], "arguments": settings["arguments"]},
        "contract": asdict(study.contract),
        "contract_hash": study.contract.hash(),
        "training": {
            "data": data, "counts": counts,
            "about": about.read_text(encoding="utf-8").strip()[:ABOUT] if about.is_file() else None,
            "begun_with": {key: first.get(key) for key in ("command", "epochs", "commit")} if first else None,
            "subjects": subjects, "subject_hashes": hashes, "seed": settings["seed"],
            "command": settings["command"], "epochs": state.epoch, "best_epoch": state.best_epoch,
            "settings": {key: shown(key, value) for key, value in settings.items()
                         if key not in MOVABLE | {"out", "split", "command"}},
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
            "commit": commit.stdout.strip() or None, "date": datetime.now(timezone.utc).date().isoformat(),
            "leaks_allowed": run.facts["leaks"], "started": run.facts["started"],
        },
    }  # fmt: skip


# ---- the command line

def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """What the command line says, and only that: what it leaves open the study and DEFAULTS decide."""
    parser = argparse.ArgumentParser(
        prog="train.py", argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a study's network on a folder of labelled scans and write a weights file.",
        epilog="Under torchrun, --batch is shared among the processes; on a CPU each process keeps batch-norm "
               "statistics\nof its own part (the first one's are saved), on CUDA they are synchronised.")
    add = parser.add_argument
    add("--study", choices=sorted(studies.STUDIES), help="what to learn")
    add("--data", metavar="DIR", help="folder-a-class, a CSV with file,label[,subject][,split], or a BIDS folder")
    add("--out", metavar="FOLDER", help="where the run is kept (default runs/STUDY-TIME)")
    add("--resume", metavar="FOLDER", help="go on with the run kept there")
    add("--finish", action="store_true", help="with --resume: train no more, write the weights of the best epoch")
    add("--epochs", type=int)
    add("--lr", type=float, help="the highest learning rate")
    add("--batch", type=int, help="cases in a forward pass, over all processes")
    add("--accumulate", type=int, help="forward passes in a step")
    add("--patience", type=int, help="end after so many epochs without a better validation loss (0: never)")
    add("--workers", type=int, help="processes that read scans")
    add("--threads", type=int, help="processor threads for the network (0: torch's choice)")
    add("--seed", type=int)
    add("--schedule", choices=SCHEDULES)
    add("--optimiser", choices=sorted(OPTIMISERS))
    add("--decay", type=float, help="weight decay")
    add("--momentum", type=float, help="of sgd")
    add("--clip", type=float, help="largest gradient norm (0: any)")
    add("--severity-weight", type=float, help="of the squared error of expected severity, for ordered classes")
    add("--ends-first", type=int, metavar="EPOCHS", help="so many epochs with only the ends of the order")
    add("--dropout", type=float)
    add("--class-weights", action=argparse.BooleanOptionalAction, help="rare classes weigh more")
    add("--augment", choices=("none", "light", "full"))
    add("--precision", choices=("fp32", "bf16", "amp"), help="default amp on CUDA, else fp32")
    add("--device", help="auto, cpu, cuda or cuda:N")
    add("--network", help="one of the study's networks")
    add("--init", metavar="FILE", help="begin with the tensors of this weights file that fit")
    add("--start", metavar="imagenet|FILE", help="begin a picture network with ImageNet weights: torchvision's "
        "download, or a file of it")
    add("--start-optional", action="store_true", help="go on from random weights where --start cannot be had")
    add("--freeze", action=argparse.BooleanOptionalAction,
        help="keep the network's first part as it is; what it gives is computed once, so epochs are quick")
    add("--shape", type=int, nargs="+", metavar="N",
        help="a smaller grid about the same place: quick runs, for recipes and to begin a full-size run with")
    add("--split", metavar="FILE", help="a CSV that fixes which case is in which part")
    add("--val", type=float, help="share of subjects to validate and calibrate on")
    add("--test", type=float, help="share of subjects to test on")
    add("--subject-regex", help="finds the subject in a file's path")
    add("--label-column", help="of participants.tsv")
    add("--deduplicate", action="store_true", help="keep one of each group of identical pictures, none where "
        "their labels differ")
    add("--cache", metavar="DIR", help="prepared scans (default .cache/prepared)")
    add("--cache-limit", type=float, metavar="GB")
    add("--allow-leak", action="store_true", help="train though parts share people or pictures; the card says so")
    add("--title", help="the honest one-line name of the weights")
    add("--example", metavar="FILE", help="a scan whose answer goes into the header, to be replayed")
    add("--rounds", type=int, help="bootstrap rounds of the intervals")
    add("--sweep", nargs="+", metavar="NAME=A,B", help="train once for each combination of these settings, such "
        "as lr=0.001,0.0003 batch=8,16, each in a folder of its own below --out; the same command goes on")
    given = vars(parser.parse_args(argv))
    if "resume" not in given and not {"study", "data"} <= set(given):
        parser.error("give --study and --data, or --resume FOLDER")
    if "start" in given and "init" in given:
        parser.error("--start and --init both say what to begin with: give one of them")
    if "finish" in given and "resume" not in given:
        parser.error("--finish closes a run that exists: give --resume FOLDER too")
    return given


def settle(given: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a new run: the command line, else the study's own, else DEFAULTS."""
    study = studies.STUDIES[given["study"]]
    settings = DEFAULTS | study.training | given
    settings["network"] = settings["network"] or study.network
    if settings["network"] not in study.networks:
        raise TrainError(f"--network {settings['network']}: {study.key} has {', '.join(study.networks)}")
    settings["arguments"] = dict(study.arguments)
    if settings["dropout"] is not None:
        settings["arguments"]["dropout"] = settings["dropout"]
    settings["out"] = settings["out"] or f"runs/{study.key}-{datetime.now():%Y%m%d-%H%M%S}"
    settings["cache"] = settings["cache"] or str(Path(".cache") / "prepared")
    return settings | {"command": command(given)}


def shaped(study: Study, settings: dict[str, Any]) -> Study:
    """The study on the grid that was asked for: its own, or a smaller one about the same place."""
    shape = settings["shape"]
    if not shape:
        return study
    own = study.contract.shape
    if len(shape) != len(own) or any(n > m for n, m in zip(shape, own, strict=True)):
        raise TrainError(f"--shape {' '.join(map(str, shape))}: give {len(own)} numbers of at most "
                         f"{' '.join(map(str, own))}")
    middle = study.contract.anchor
    if middle:  # the middle of the smaller grid is where the larger one has the middle of the brain
        middle = tuple(0.5 + (a - b) * m / n for a, b, m, n in zip(middle, BRAIN, own, shape, strict=True))
    if "shape" in signature(model.NETWORKS[settings["network"]]).parameters:
        settings["arguments"] = settings["arguments"] | {"shape": list(shape)}
    return replace(study, contract=replace(study.contract, shape=tuple(shape), anchor=middle))


def command(given: dict[str, Any]) -> str:
    """The command line again, paths without their folders: it goes into a file that others will read."""
    words = ["python", "train.py"]
    for key, value in given.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(shown(key, value))]
    return shlex.join(words)


def shown(key: str, value: Any) -> Any:
    """A setting as others may read it: of a path the name alone."""
    return Path(value).resolve().name if key in PATHS and value else value


def begin(given: dict[str, Any]) -> tuple[Trainer, Path]:
    """A new run, or one taken up again, ready to train."""
    record = None
    if "resume" in given:
        out = Path(given["resume"])
        if not (out / "last.pt").is_file():
            raise TrainError(f"{out}: no last.pt in it, so nothing to resume; give the folder of a run")
        fixed = sorted(set(given) - MOVABLE - {"resume", "finish"})
        if fixed:
            names = ", ".join("--" + key.replace("_", "-") for key in fixed)
            raise TrainError(f"{names}: fixed when the run began; leave it out, or begin a new run")
        record = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
        settings = record["settings"] | {key: given[key] for key in set(given) & MOVABLE}
    else:
        settings = shared(settle(given))
        out = Path(settings["out"])
        if (out / "last.pt").exists():
            raise TrainError(f"{out}: holds a run already; go on with --resume {out}, or choose another --out")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    device = join(model.pick_device(settings["device"]))
    study = shaped(studies.STUDIES[settings["study"]], settings)
    settings = shared(settings)
    out = Path(shared(str(out)))
    run = Trainer(study, settings, out, device)
    if record:
        run.cases = datasets.read_split(out / "split.csv", root(Path(settings["data"])))
        run.facts = record["facts"] | {"started": record["facts"].get("started")}  # runs of old know nothing of it
        run.state.restore(record["state"])
    else:
        run.facts["started"] = begun(run, settings)
        out.mkdir(parents=True, exist_ok=True)
        found = gather(study, settings, out, run.cache) if world()[0] == 0 else None
        run.cases, facts = shared(found)
        run.facts |= facts
        if world()[0] == 0:
            run.save()
    return run, out


def begun(run: Trainer, settings: dict[str, Any]) -> str | None:
    """ImageNet weights in the network where a person asked for them; in words, for the card."""
    where = settings["start"]
    if not where:
        if settings["freeze"] and not settings["init"]:
            print("note: the layers that are kept as they are hold random numbers; --start imagenet, or --start "
                  "with a file, gives them ImageNet's", file=sys.stderr)
        return None
    asked = f"--start {shown('start', where)}"
    try:
        words = frozen.start(run.state.network, where)
    except frozen.StartError as error:
        if not settings["start_optional"]:
            raise TrainError(f"{asked}: {error}; give a file of torchvision's weights, or go on from random ones "
                             "with --start-optional") from error
        words = f"random weights, for {asked} could not be had ({error})"
    print(f"began with {words}", flush=True)
    return words


def train(given: dict[str, Any]) -> int:
    run, out = begin(given)
    first = world()[0] == 0
    counts = [len(part(run.cases, name)) for name in ("train", "val", "test")]
    if first:
        print("{}: {} scans to learn from, {} to validate, {} to test".format(out, *counts), flush=True)
    with Halt() as halt:
        try:
            if "finish" not in given:
                run.fit(halt)
            if dist.is_initialized():
                dist.destroy_process_group()  # what is left to do the first process does alone
            if first:
                print(f"wrote {finish(run, halt)}")
        except (Interrupted, RuntimeError):
            if not halt.signal:  # what a signal to all of us did to the processes that read scans is no fault
                raise
            if first:
                print(f"stopped; {run.state.epoch} whole epochs are kept. Go on with: python train.py --resume "
                      f"{out}", file=sys.stderr)
            return 128 + halt.signal
    return 0


def reason(error: Exception) -> str | None:
    """A sentence for what a person can mend; None for what is a fault of ours."""
    text = str(error)
    if "Original Traceback" in text and ("DataError" in text or "ScanError" in text):  # from a reading process
        return text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, (TrainError, DataError, ScanError, model.WeightsError)):
        return text
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk is full ({error.strerror}); free some and go on with --resume. What was whole still is."
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "t allocate memory" in text \
            or "is killed by signal: Killed" in text:
        return ("out of memory; begin again with half the --batch and twice the --accumulate, with --precision "
                "bf16, or with fewer --workers")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    try:
        return sweep.sweep(given, parse, train, reason) if "sweep" in given else train(given)
    except KeyboardInterrupt:
        print("train.py: stopped before training began", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = reason(error)
        if sentence is None:
            raise
        print(f"train.py: {sentence}", file=sys.stderr)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
