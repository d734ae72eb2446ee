"""Arguments of every command that judges: which weights, how to judge, what measures, on which device."""

import argparse
from pathlib import Path

from diagnosis.anatomy.norms import FILE as NORMS
from diagnosis.diagnoser import BESIDE, NONE
from model import LEVEL, SEGMENTER
from networks import dropout
from networks.precision import PRECISIONS


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="a weights file (default: the first in weights/)"
    )
    parser.add_argument("--study", help="take the weights of this study (default: the first in weights/)")


def add_judging(parser: argparse.ArgumentParser) -> None:
    """What a class is given of, and with; `check_judging` looks at what was given."""
    parser.add_argument("--level", type=float, default=LEVEL, help="coverage of the prediction set (%(default)s)")
    parser.add_argument(
        "--judge-anyway", action="store_true", help="for research: give a class where the gate says no, too"
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help=f"give each probability an interval, from {dropout.PASSES} passes with dropout",
    )


def check_judging(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not 0.5 <= options.level < 1:
        parser.error(f"--level {options.level}: give a coverage from 0.5 to below 1, such as {LEVEL}")


def add_segmenter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--segmenter",
        default=BESIDE,
        metavar="FILE",
        help=f"what measures the brain: a weights file, or {NONE} (default: {SEGMENTER} beside the weights)",
    )


def add_norms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--norms",
        default=BESIDE,
        metavar="FILE",
        help=f"what norms.py made of controls, or {NONE} (default: {NORMS} beside the weights, where it lies)",
    )


def add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-network",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="start this code where a weights file names it; without, such files are refused",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where it is computed, and in which precision."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the network; auto is bf16 on GPUs that have it, else fp32 (%(default)s)",
    )
