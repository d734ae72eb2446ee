"""Several processes train as one, and stop together."""

import os
import signal
import subprocess
import sys

import pytest

import train
from learning import losses
from tests.support import ROOT
from tests.tiny_cohorts import VOLUME, arguments, cohort, state, weights_of


def test_a_signal_that_reached_the_reading_processes_too_is_no_fault(tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data", VOLUME)

    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    monkeypatch.setattr(losses.Loss, "__call__", killed)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 128 + signal.SIGTERM
    assert "0 whole epochs are kept" in capsys.readouterr().err


def test_two_processes_have_the_losses_of_one(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--dropout", "0", "--class-weights", "--accumulate", "2")
    assert train.main(arguments(VOLUME, data, tmp_path / "one", *more)) == 0
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launched, "-m", "tests.tiny_cohorts", *arguments(VOLUME, data, tmp_path / "two", *more)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr.decode()
    one, two = state(tmp_path / "one")["history"], state(tmp_path / "two")["history"]
    for name in ("train_loss", "train_accuracy", "val_loss"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-4)
    assert weights_of(tmp_path / "two").is_file()
