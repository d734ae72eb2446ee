"""Every file that once broke a reader is read or refused in words, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from diagnosis.diagnoser import Diagnoser
from scans import processes
from scans.prepare import prepare
from scans.scan import Scan, ScanError
from studies import STUDIES
from tests.hostile.files import HOSTILE, READ
from tests.hostile.seeds import SEEDS, seed
from tests.support import ROOT

FOUND = sorted((Path(__file__).parent / "found").glob("*"))
SLOW = {"many files"}  # given up after a time, which is tested with less of it
BIG = {
    "oblique and big": "alzheimers",
    "microscopic": "alzheimers",
    "GIF of 8190": "chest-nodule",
}  # and the study that prepares them


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_meets_its_refusal(what):
    file = HOSTILE[what]
    try:
        outcome = processes.read(file.build(), file.name, seconds=1 if what in SLOW else 60) and READ
    except ScanError as error:
        outcome = error.code
        assert str(error).startswith(f"{file.name}: ")
    assert outcome in file.outcomes


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_the_fuzzer_found(path):
    try:
        processes.read(path, seconds=60)
    except ScanError as error:
        assert error.code not in fuzz.BROKEN and str(error).startswith(f"{path.name}: ")


@pytest.mark.parametrize(("what", "study"), BIG.items())
def test_a_big_scan_is_prepared_without_a_copy_of_it_in_floats(what, study):
    """In a process of its own, whose peak is told: the voxels, and less than they would take as floats."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from scans import processes
from scans.prepare import prepare
from studies import STUDIES
from tests.hostile.files import HOSTILE
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scan = processes.read(HOSTILE[{what!r}].build(), HOSTILE[{what!r}].name, seconds=60)
prepared = prepare(scan, STUDIES[{study!r}].contract)
assert torch.isfinite(prepared.tensor).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10, scan.voxels.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, voxels = map(int, done.stdout.split())
    assert took < voxels + (800 << 20)


def test_a_head_far_from_zero_is_prepared_like_the_same_head_near_it():
    """Its intensities, 1e5 + 0.001 · v in float32, leave no room for 256 bins between two neighbouring numbers."""
    file = HOSTILE["far from zero"]
    prepared = prepare(processes.read(file.build(), file.name), STUDIES["alzheimers"].contract)
    assert 0.05 < prepared.foreground.float().mean() < 0.6


def test_a_volume_of_frames_in_a_picture_study_is_the_wrong_kind():
    scan = processes.read(SEEDS["DICOM frames"][1](), "a.dcm")
    with pytest.raises(ScanError, match="the file holds a volume") as refused:
        prepare(scan, STUDIES["chest-nodule"].contract)
    assert refused.value.code == "wrong-kind"


def test_who_leaves_ends_the_reading_of_a_file(weights_folder, tmp_path):
    path = tmp_path / "many.zip"
    path.write_bytes(HOSTILE["many files"].build())
    heard = []

    def step(name: str) -> None:
        heard.append(name)
        if len(heard) > 2:
            raise KeyError("the page was closed")

    with pytest.raises(KeyError, match="closed"):
        Diagnoser(next(weights_folder.glob("*.safetensors")), "cpu")(path, progress=step)
    assert heard == ["read"] * 3


def test_a_scan_that_no_grid_takes_is_refused_in_words():
    scan = Scan(np.zeros((8, 8), np.float32), np.eye(4), "volume", {"affine_known": True})
    with pytest.raises(ScanError, match=r"8×8\) cannot be brought") as refused:
        prepare(scan, STUDIES["alzheimers"].contract)
    assert refused.value.code == "unreadable"


def test_a_short_run_of_the_fuzzer():
    found, memory = fuzz.run(1200, seed=1, only=[], weights=False)
    assert [bad for entry in found.values() for bad in entry.bad] == []
    assert memory < fuzz.MEMORY
    outcomes = sum((entry.outcomes for entry in found.values()), fuzz.Counter())
    assert outcomes["read"] > 200 and outcomes.total() == 1200 and not set(outcomes) & set(fuzz.BROKEN)


def test_the_fuzzer_draws_the_same_again():
    assert [kind for kind in SEEDS if seed(kind) != seed(kind)] == []
    draws = [
        [fuzz.mutate(bytes(range(256)) * 4, b"other" * 50, fuzz.random.Random(f"3/{n}")) for n in range(40)]
        for _ in range(2)
    ]
    assert draws[0] == draws[1] and len(set(draws[0])) > 35 and json.dumps(len(draws[0]))
