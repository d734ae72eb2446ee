"""Several processes train as one, and stop together."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

import train
from learning import losses, processes
from tests.support import ROOT, free_ports
from tests.tiny_cohorts import VOLUME, arguments, cohort, registered, state, weights_of

TWO_EPOCHS = ("--dropout", "0", "--class-weights", "--accumulate", "2", "--epochs", "2")


def test_a_signal_that_reached_the_reading_processes_too_is_no_fault(tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data", VOLUME)

    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    monkeypatch.setattr(losses.Loss, "__call__", killed)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 128 + signal.SIGTERM
    assert "0 whole epochs are kept" in capsys.readouterr().err


def together(machines: int, command: list[str], **environment: str) -> list[subprocess.CompletedProcess]:
    """Two processes that train as one, of one torchrun or of two that meet, as two machines would."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(2 // machines)]
    torchrun += ["--max-restarts", "2", "--monitor-interval", "0.1"]
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_ports(1)[0]}"]
    torchrun += ["--standalone"] if machines == 1 else [*meeting, "--rdzv-id", "tiny"]
    known = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    started = [
        subprocess.Popen(
            [*torchrun, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | known | environment,
        )
        for _ in range(machines)
    ]
    with ThreadPoolExecutor(machines) as pool:  # so that none waits for the other's output to be read
        told = list(pool.map(lambda process: process.communicate(), started))
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, told, strict=True)
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The data, and the state after two epochs that one process trained."""
    folder = tmp_path_factory.mktemp("alone")
    data = cohort(folder / "data", VOLUME)
    with registered():
        assert train.main(arguments(VOLUME, data, folder / "run", *TWO_EPOCHS)) == 0
    return data, state(folder / "run")


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_have_the_losses_of_one_though_one_of_them_is_killed(alone, tmp_path, machines):
    data, whole = alone
    wanted = whole["history"]
    steps = whole["step"] + 1  # calls of one epoch of the two: two a step, one to validate
    command = ["-m", "tests.tiny_cohorts", *arguments(VOLUME, data, tmp_path / "two", *TWO_EPOCHS)]
    done = together(machines, command, KILL_AT=str(steps + 2))
    said, errors = "".join(each.stdout for each in done), "".join(each.stderr for each in done)
    assert not any(each.returncode for each in done), errors
    assert "SIGKILL" in errors or "exitcode: -9" in errors, errors
    assert "going on after 1 epochs" in said and "Grad strides" not in errors
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
