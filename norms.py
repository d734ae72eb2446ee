"""The command that makes norms of one's own: from a table of healthy controls to centile curves by age and sex.

    python norms.py --data controls.csv --out norms.json

`diagnose.py` and the app take norms.json from the folder of the weights, or by --norms.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import model
from data.cases import DataError
from diagnosis.anatomy import segment as segmenting
from diagnosis.anatomy.norms import EVERYBODY, FILE, LEAST, LEVEL, NormsError
from learning import controls, norms
from learning.controls import Measured
from scans.files import write_bytes
from scans.progress import progress
from studies import NOTICE, to_json

ROOT = Path(__file__).resolve().parent
SHOWN = ("ventricles", "hippocampi", "brain")  # whose curves are printed when they are made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOTICE)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"a CSV with file, age in years, perhaps sex (F or M), subject; {LEAST} people or more, a scan each",
    )
    add("--out", type=Path, default=ROOT / "weights" / FILE, metavar="FILE", help="default: weights/" + FILE)
    add(
        "--segmenter",
        type=Path,
        default=ROOT / "weights" / model.SEGMENTER,
        metavar="FILE",
        help="the segmenter that measures; only with this very file are the norms used (default: the bundled one)",
    )
    add("--rounds", type=int, default=norms.ROUNDS, help="of the bootstrap behind the intervals (%(default)s)")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    given = parser.parse_args(argv)
    if given.rounds < 20:
        parser.error(f"--rounds {given.rounds}: an interval of {LEVEL:.0%} needs 20 or more")
    try:
        weights = segmenting.load(given.segmenter, given.device)
        people, left_out = controls.measured(controls.find(given.data), weights)
        for control, why in left_out:
            print(f"left out: {control.file.name}: {why}", file=sys.stderr)
        record = made(people, weights, given.rounds, given.seed)
    except (DataError, NormsError, model.WeightsError) as error:
        print(f"norms.py: {error}", file=sys.stderr)
        return 1
    write_bytes(given.out, to_json(record).encode())
    print(summary(record, len(left_out)))
    print(f"wrote {given.out}")
    return 0


def made(people: list[Measured], weights: segmenting.SegmenterWeights, rounds: int, seed: int) -> dict[str, Any]:
    """What a file of norms holds: curves and counts, no person's value and no file's name."""
    with progress(title="fitting", unit="measure") as bar:
        curves = norms.norms(
            [one.control.age for one in people],
            [one.control.sex for one in people],
            [one.values for one in people],
            rounds,
            seed,
            progress=lambda name: bar.update(),
        )
    return {
        **curves,
        "segmenter": {"name": weights.name, "sha256": weights.sha256},
        "seed": seed,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "notice": NOTICE,
    }


def summary(record: dict[str, Any], left_out: int) -> str:
    """Who was measured, and how sure the outer curves of a few measures are."""
    ages, centiles, sexes = record["ages"], record["centiles"], record["sexes"]
    apart = f", women {sexes['F']}, men {sexes['M']}" if sexes else ", both sexes together"
    lines = [
        f"{record['people']} controls of {ages[0]:g} to {ages[-1]:g} years{apart}"
        + (f"; {left_out} left out" if left_out else "")
    ]
    middle = len(ages) // 2
    lines.append(
        f"at {ages[middle]:g} years, with {LEVEL:.0%} intervals from {record['rounds']} draws of the people:"
    )
    for name in SHOWN:
        rows = record["measures"][name][EVERYBODY]
        said = [
            f"{label:g}th {rows['middle'][row][middle]:.4g} ({rows['low'][row][middle]:.4g} to "
            f"{rows['high'][row][middle]:.4g})"
            for row, label in ((row, centiles[row]) for row in (0, len(centiles) // 2, len(centiles) - 1))
        ]
        lines.append(f"  {name:12} " + ", ".join(said))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
