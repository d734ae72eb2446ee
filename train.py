"""The command line of training: one command from labelled scans to a weights file that carries its own scores."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

import studies
from learning import sweep
from learning.loop import OPTIMISERS, SCHEDULES
from learning.run import reason, train


def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """What the command line says, and only that: what it leaves open the study and DEFAULTS decide."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a study's network on a folder of labelled scans and write a weights file.",
        epilog="Under torchrun, --batch is shared among the processes; on a CPU each process keeps batch-norm "
        "statistics\nof its own part (the first one's are saved), on CUDA they are synchronised.",
    )
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
    add(
        "--start",
        metavar="imagenet|FILE",
        help="begin a picture network with ImageNet weights: torchvision's download, or a file of it",
    )
    add("--start-optional", action="store_true", help="go on from random weights where --start cannot be had")
    add(
        "--freeze",
        action=argparse.BooleanOptionalAction,
        help="keep the network's first part as it is; what it gives is computed once, so epochs are quick",
    )
    add(
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="a smaller grid about the same place: quick runs, for recipes and to begin a full-size run with",
    )
    add("--split", metavar="FILE", help="a CSV that fixes which case is in which part")
    add("--val", type=float, help="share of subjects to validate and calibrate on")
    add("--test", type=float, help="share of subjects to test on")
    add("--subject-regex", help="finds the subject in a file's path")
    add("--label-column", help="of participants.tsv")
    add(
        "--deduplicate",
        action="store_true",
        help="keep one of each group of identical pictures, none where their labels differ",
    )
    add("--cache", metavar="DIR", help="prepared scans (default .cache/prepared)")
    add("--cache-limit", type=float, metavar="GB")
    add("--allow-leak", action="store_true", help="train though parts share people or pictures; the card says so")
    add("--title", help="the honest one-line name of the weights")
    add("--example", metavar="FILE", help="a scan whose answer goes into the header, to be replayed")
    add("--rounds", type=int, help="bootstrap rounds of the intervals")
    add(
        "--sweep",
        nargs="+",
        metavar="NAME=A,B",
        help="train once for each combination of these settings, such "
        "as lr=0.001,0.0003 batch=8,16, each in a folder of its own below --out; the same command goes on",
    )
    given = vars(parser.parse_args(argv))
    if "resume" not in given and not {"study", "data"} <= set(given):
        parser.error("give --study and --data, or --resume FOLDER")
    if "start" in given and "init" in given:
        parser.error("--start and --init both say what to begin with: give one of them")
    if "finish" in given and "resume" not in given:
        parser.error("--finish closes a run that exists: give --resume FOLDER too")
    return given


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
