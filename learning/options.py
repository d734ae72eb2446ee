"""The options of a training's command line, each beside the default that `Settings` gives it."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import studies
from data.tables import GROUPS
from learning.loop import OPTIMISERS, SCHEDULES
from learning.settings import SELECT, Given, Settings

DEFAULTS = {one.name: one.default for one in fields(Settings) if one.default is not MISSING}
# What a default stands for, where its value does not say it.
MEANINGS = {
    "network": "the study's first",
    "precision": "amp on CUDA, else fp32",
    "out": "runs/STUDY-TIME",
    "dropout": "the network's own",
    "title": "the study's title and the data",
    "shape": "the study's own",
    "scale": "the study's own",
    "select": "loss",
    "threads": "0: torch's choice",
    "clip": "0: any",
    "patience": "0: never",
}


def default(name: str) -> str:
    """A setting's default as the help shows it; nothing for what is off or absent unless asked for."""
    value = MEANINGS.get(name, DEFAULTS.get(name))
    return "" if value is None or isinstance(value, bool) or name not in DEFAULTS else f"default {value}"


def studies_own() -> str:
    """The defaults that each study sets otherwise, a line each."""
    lines = [
        f"  {key}: {', '.join(f'{name} {value}' for name, value in study.training.items())}"
        for key, study in sorted(studies.STUDIES.items())
    ]
    return "\n".join(["what a study sets otherwise, unless the command line says it:", *lines])


def parser() -> argparse.ArgumentParser:
    """The parser; what the command line leaves open is not in its answer, so that the study may decide."""
    made = argparse.ArgumentParser(
        prog="train.py",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a study's network on a folder of labelled scans and write a weights file.",
        epilog=f"{studies_own()}\n\nUnder torchrun, --batch is shared among the processes; on a CPU each process "
        "keeps batch-norm statistics\nof its own part (the first one's are saved), on CUDA they are synchronised.",
    )

    def add(flag: str, help: str = "", **options: Any) -> None:
        shown = default(flag[2:].replace("-", "_"))
        text = f"{help} ({shown})" if help and shown else help or shown
        made.add_argument(flag, help=text.replace("%", "%%"), **options)

    add(
        "--study",
        f"what to learn: {', '.join(sorted(studies.STUDIES))}, or a study of your own in a .yaml or .json file",
        metavar="KEY|FILE",
    )
    add("--classes", "these of the study's classes alone, cases of the others are left out", metavar="A,B")
    add("--map", "other labels that mean a class of the study", metavar="X=A,Y=A")
    add("--target", "a number to learn instead of classes: a column of the table, such as age", metavar="NAME")
    add("--data", "folder-a-class, a CSV with file,label[,subject][,split], or a BIDS folder", metavar="DIR")
    add("--out", "where the run is kept", metavar="FOLDER")
    add("--resume", "go on with the run kept there", metavar="FOLDER")
    add("--finish", "with --resume: train no more, write the weights of the best epoch", action="store_true")
    add("--epochs", "with --resume: so many in all, to go on with a finished run", type=int)
    add("--lr", "the highest learning rate", type=float)
    add("--batch", "cases in a forward pass, over all processes", type=int)
    add("--accumulate", "forward passes in a step", type=int)
    add("--patience", "end after so many epochs without a better validation loss", type=int)
    add("--select", "what the epoch to keep is best in, on validation subjects", choices=SELECT)
    add("--workers", "processes that read scans", type=int)
    add("--threads", "processor threads for the network", type=int)
    add("--seed", type=int)
    add("--schedule", choices=SCHEDULES)
    add("--optimiser", choices=sorted(OPTIMISERS))
    add("--decay", "weight decay", type=float)
    add("--momentum", "of sgd", type=float)
    add("--clip", "largest gradient norm", type=float)
    add(
        "--severity-weight",
        "of the squared error of expected severity, for ordered classes: of each scan's own where "
        "the data's truth.csv tells it",
        type=float,
    )
    add("--ends-first", "so many epochs with only the ends of the order", type=int, metavar="EPOCHS")
    add("--dropout", "share of features left out in training", type=float)
    add("--class-weights", "rare classes weigh more", action=argparse.BooleanOptionalAction)
    add("--augment", "random changes to the training scans", choices=("none", "light", "full"))
    add("--precision", "of the network's numbers", choices=("fp32", "bf16", "amp"))
    add("--device", "auto, cpu, cuda or cuda:N")
    add("--network", "one of the study's networks, or package.module:Class of your own")
    add(
        "--allow-network",
        "start this code for a run that is resumed, or for --init",
        action="append",
        metavar="MODULE:CLASS",
    )
    add("--init", "begin with the tensors of this weights file that fit", metavar="FILE")
    add(
        "--start",
        "begin a picture network with ImageNet weights: torchvision's download, or a file of it",
        metavar="imagenet|FILE",
    )
    add("--start-optional", "go on from random weights where --start cannot be had", action="store_true")
    add(
        "--freeze",
        "keep the network's first part as it is; what it gives is computed once, so epochs are quick",
        action=argparse.BooleanOptionalAction,
    )
    add(
        "--shape",
        "a grid of fewer, larger voxels over the same space: quick runs, to find settings with",
        type=int,
        nargs="+",
        metavar="N",
    )
    add(
        "--crop",
        "a smaller grid of the same voxels about the middle of the brain: to begin a full-size run with",
        type=int,
        nargs="+",
        metavar="N",
    )
    add(
        "--scale",
        "of heads: by the foreground of the whole head, or the structures that the segmenter in weights/ finds, "
        "as they lie or with every brain laid on the mean one",
        choices=["foreground", studies.STRUCTURES, studies.NORMALISED],
    )
    add("--split", "a CSV that fixes which case is in which part", metavar="FILE")
    add("--val", "share of subjects to validate and calibrate on", type=float)
    add("--test", "share of subjects to test on", type=float)
    add("--balance", "what each part should have in proportion, beside the classes", nargs="+", choices=GROUPS)
    add("--subject-regex", "finds the subject in a file's path")
    add("--label-column", "of participants.tsv")
    add(
        "--deduplicate",
        "keep one of each group of identical pictures, none where their labels differ",
        action="store_true",
    )
    add("--cache", "prepared scans", metavar="DIR")
    add("--cache-limit", "size of that folder", type=float, metavar="GB")
    add(
        "--shards",
        "pack the prepared scans into tar files here instead, and read them from there: for cohorts that no cache "
        "holds, or disks that several machines share",
        metavar="DIR",
    )
    add("--allow-leak", "train though parts share people or pictures; the card says so", action="store_true")
    add("--title", "the honest one-line name of the weights")
    add("--example", "a scan whose answer goes into the header, to be replayed", metavar="FILE")
    add("--rounds", "bootstrap rounds of the intervals", type=int)
    add(
        "--folds",
        "hold out each of so many parts of the people in turn, in runs of their own below --out, and pool the "
        "scores; the same command goes on",
        type=int,
        metavar="K",
    )
    add(
        "--sweep",
        "train once for each combination of these settings, such as lr=0.001,0.0003 batch=8,16, each in a folder "
        "of its own below --out; the same command goes on",
        nargs="+",
        metavar="NAME=A,B",
    )
    return made


def parse(argv: Sequence[str] | None) -> Given:
    """What the command line says, and only that: what it leaves open the study and `Settings` decide."""
    known = parser()
    given = vars(known.parse_args(argv))
    if "resume" not in given and not {"study", "data"} <= set(given):
        known.error("give --study and --data, or --resume FOLDER")
    if "start" in given and "init" in given:
        known.error("--start and --init both say what to begin with: give one of them")
    if "finish" in given and "resume" not in given:
        known.error("--finish closes a run that exists: give --resume FOLDER too")
    return given
