"""A cohort of tiny scans, weights that judge one in milliseconds, and a run that dies of itself."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import cohort
import model
from networks.header import Header
from studies import STUDIES
from tests import heads
from tests.small_networks import SMALL, small

BAD = "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w.nii.gz"  # no scan at all


def weights(folder: Path, seed: int = 0) -> Path:
    """A small untrained network that judges whatever fills its grid."""
    study = STUDIES["alzheimers"]
    contract = replace(study.contract, shape=SMALL, place="fill", scale="stored", anchor=())
    study = replace(study, contract=contract, arguments={"shape": list(SMALL)})
    header = Header(study, "ClassificationModel3D", study.arguments, "untrained, for tests")
    return model.save(folder / f"alzheimers.{seed}.safetensors", small(seed), header)


def dataset(folder: Path, people: int = 4) -> list[str]:
    """A BIDS dataset of two sessions each, one of which is no scan; the files in the order of a walk."""
    random, files = np.random.default_rng(3), []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "participants.tsv").write_text("participant_id\n")
    for person in range(people):
        for session in "ab":
            name = f"sub-{person:02}/ses-{session}/anat/sub-{person:02}_ses-{session}_run-1_T1w.nii.gz"
            file = folder / name
            file.parent.mkdir(parents=True)
            voxels = random.integers(1, 60, (12, 12, 12)).astype(np.int16)
            heads.save(file, voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
            files.append(name)
    (folder / BAD).write_bytes(b"no scan at all")
    return files


def dying(row: int) -> None:
    """Have this process killed when half of a row's line is written."""
    write, left = os.write, [row]

    def half(descriptor: int, line: bytes) -> int:
        if b"sub-" not in line:
            return write(descriptor, line)
        left[0] -= 1
        if left[0]:
            return write(descriptor, line)
        write(descriptor, line[: len(line) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    os.write = half


if __name__ == "__main__":
    if "DIE_AT" in os.environ:
        dying(int(os.environ["DIE_AT"]))
    sys.exit(cohort.main())
