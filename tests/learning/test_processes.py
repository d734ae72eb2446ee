"""Several processes train as one, and stop together."""

import os
import signal
import subprocess
import sys

import pytest
import torch.distributed as dist

import train
from learning import losses, processes
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


def test_two_processes_have_the_losses_of_one_though_one_of_them_is_killed(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--dropout", "0", "--class-weights", "--accumulate", "2", "--epochs", "3")
    assert train.main(arguments(VOLUME, data, tmp_path / "one", *more)) == 0
    wanted = state(tmp_path / "one")["history"]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched += ["--max-restarts", "1", "--monitor-interval", "0.1"]
    steps = 2 * state(tmp_path / "one")["step"] // 3 + 1  # calls of an epoch: two a step, one to validate
    done = subprocess.run(
        [*launched, "-m", "tests.tiny_cohorts", *arguments(VOLUME, data, tmp_path / "two", *more)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "KILL_AT": str(steps + 2)},
    )
    assert done.returncode == 0, done.stderr
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr, done.stderr
    assert "going on after 1 epochs" in done.stdout and "Grad strides" not in done.stderr
    found = state(tmp_path / "two")["history"]
    for name in ("train_loss", "train_accuracy", "val_loss"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in wanted], abs=1e-4)
    assert weights_of(tmp_path / "two").is_file()


@pytest.mark.parametrize(("torchruns", "seen"), [("1", False), ("2", True)])
def test_a_start_does_not_read_what_the_one_before_it_wrote(monkeypatch, torchruns, seen):
    monkeypatch.setenv("GROUP_WORLD_SIZE", torchruns)
    store = dist.HashStore()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    processes.own(store).set("address", "gone")
    assert processes.own(store).check(["address"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert processes.own(store).check(["address"]) == seen


def test_only_torchrun_goes_on_by_the_same_command(tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 0
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 1
    assert "holds a run already" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--seed", "5")) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 0
    assert "going on after 2 epochs" in capsys.readouterr().out
