"""A training run: stopped, killed and resumed to the same bits; each way to fail is told in words."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import model
import train
from learning import loop, losses, run
from learning.run import open_run, sentence
from scans.files import write_whole
from tests.support import ROOT
from tests.tiny_cohorts import IMAGE, VOLUME, arguments, cohort, registered, same, state, weights_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state after three epochs that nothing disturbed, and the data."""
    folder = tmp_path_factory.mktemp("whole")
    data = cohort(folder / "data", VOLUME)
    with registered():
        assert train.main(arguments(VOLUME, data, folder / "run", "--epochs", "3")) == 0
    return state(folder / "run"), data


@pytest.mark.parametrize(("step", "epochs"), [(2, 0), (5, 1)])  # an epoch is 3 steps and one validation
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, whole, monkeypatch, capsys, step, epochs):
    wanted, data = whole
    calls, loss = [], losses.Loss.__call__

    def interrupted(self, logits, targets):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, logits, targets)

    monkeypatch.setattr(losses.Loss, "__call__", interrupted)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--epochs", "3")) == 128 + signal.SIGTERM
    assert f"{epochs} whole epochs are kept" in capsys.readouterr().err
    assert len(state(tmp_path / "run")["history"]) == epochs
    monkeypatch.setattr(losses.Loss, "__call__", loss)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same(state(tmp_path / "run"), wanted)


def test_a_killed_run_resumes_to_the_same_bits(tmp_path, whole):
    wanted, data = whole
    argv = arguments(VOLUME, data, tmp_path / "run", "--epochs", "3")
    done = subprocess.run(
        [sys.executable, "-m", "tests.tiny_cohorts", *argv],
        env=os.environ | {"KILL_AT": "6", "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same(state(tmp_path / "run"), wanted)


def test_a_run_can_be_closed_early(tmp_path, monkeypatch):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    monkeypatch.setattr(loop.Trainer, "validate", stop_after(loop.Trainer.validate, 2))
    assert train.main(arguments(VOLUME, data, out, "--epochs", "50")) == 130
    assert train.main(["--resume", str(out), "--finish", "--title", "Closed early"]) == 0
    header = model.read_header(weights_of(out))
    assert header.training["epochs"] == 1 and header.title == "Closed early"
    assert str(tmp_path) not in json.dumps(header.record())


def stop_after(method, calls):
    """The method, with Ctrl-C pressed in its n-th call."""
    done = []

    def pressed(self, loss, halt):
        done.append(1)
        if len(done) == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return method(self, loss, halt)

    return pressed


def test_resuming_refuses_what_was_fixed(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    assert train.main(arguments(VOLUME, data, out)) == 0
    assert train.main(["--resume", str(out), "--lr", "1"]) == 1
    assert "--lr: fixed when the run began" in capsys.readouterr().err
    assert train.main(arguments(VOLUME, data, out)) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert train.main(["--resume", str(tmp_path)]) == 1
    assert "no last.pt" in capsys.readouterr().err
    kept = torch.load(out / "last.pt", weights_only=True)
    kept["facts"]["segmenter"] = "0" * 64
    torch.save(kept, out / "last.pt")
    assert train.main(["--resume", str(out)]) == 1
    assert "began with another segmenter.safetensors" in capsys.readouterr().err


def test_a_finished_run_goes_on_for_more_epochs(tmp_path, whole, capsys):
    _, data = whole
    out = tmp_path / "run"
    assert train.main(arguments(VOLUME, data, out, "--epochs", "1", "--title", "Extended")) == 0
    assert train.main(["--resume", str(out), "--epochs", "3"]) == 0
    header = model.read_header(weights_of(out))
    assert header.training["epochs"] == 3 and header.training["settings"]["epochs"] == 3
    assert header.training["command"].endswith("\npython train.py --resume run --epochs 3")
    assert train.main(["--resume", str(out), "--epochs", "2"]) == 1
    assert "--epochs 2: 3 are done already; give more, or --finish" in capsys.readouterr().err


def test_a_run_taken_up_again_packs_what_new_shards_lack(tmp_path, whole):
    _, data = whole
    out, shards = tmp_path / "run", tmp_path / "shards"
    begun, _ = open_run(train.parse(arguments(VOLUME, data, out)))
    for _ in range(2):
        again, _ = open_run(train.parse(["--resume", str(out), "--shards", str(shards)]))
        assert {again.cache.entry(case.file).name for case in begun.cases} == set(again.cache.shards.places)
    assert len(list(shards.glob("*.tar"))) == 1


def test_a_scan_that_was_damaged_when_a_run_goes_on_is_named(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    open_run(train.parse(arguments(VOLUME, data, out)))
    (data / "low" / "sub-001_T1w.nii").write_bytes(b"no scan")
    assert train.main(["--resume", str(out)]) == 1
    said = capsys.readouterr().err
    assert "1 of 18 files that the run began with cannot be read any more" in said and "sub-001_T1w.nii" in said


@pytest.mark.parametrize("again", [False, True])
def test_every_process_knows_the_content_of_each_scan_before_the_first_epoch(tmp_path, whole, monkeypatch, again):
    _, data = whole
    out, told = tmp_path / "run", []
    new = arguments(VOLUME, data, out)
    if again:
        open_run(train.parse(new))
    given = train.parse(["--resume", str(out)] if again else new)
    monkeypatch.setattr(run, "shared", lambda value: told.append(value) or value)
    first, _ = open_run(given)
    assert set(first.cache.contents) == {str(case.file) for case in first.cases}
    if not again:
        (out / "last.pt").unlink()
    monkeypatch.setattr(run, "shared", lambda value: told.pop(0))
    monkeypatch.setattr(run, "world", lambda: (1, 2))
    second, _ = open_run(given)
    assert second.cache.contents == first.cache.contents and not told


def test_two_runs_tell_themselves_apart(tmp_path, whole):
    _, data = whole
    names, titles, salts = set(), set(), set()
    for name in ("one", "tiny-volume-two"):
        assert train.main(arguments(VOLUME, data, tmp_path / name, "--epochs", "1")) == 0
        header = model.read_header(weights_of(tmp_path / name))
        names.add(weights_of(tmp_path / name).name)
        titles.add(header.title.partition("; run ")[2].partition(" of ")[0])
        salts.add(header.training["subject_salt"])
    assert names == {"tiny-volume.Tiny.one.safetensors", "tiny-volume.Tiny.two.safetensors"}
    assert titles == {"one", "tiny-volume-two"} and len(salts) == 2


@pytest.mark.parametrize("select", ["loss", "accuracy", "balanced_accuracy", "roc_auc", "correlation"])
def test_the_epoch_to_keep_is_best_in_what_is_asked_for(tmp_path, whole, select):
    _, data = whole
    out = tmp_path / "run"
    assert train.main(arguments(VOLUME, data, out, "--epochs", "3", "--select", select)) == 0
    kept = state(out)
    values = [row[f"val_{select}"] for row in kept["history"]]
    assert values[kept["best_epoch"] - 1] == (min if select == "loss" else max)(values)


def test_leaks_are_refused_unless_allowed(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME, test=2), tmp_path / "run"
    twin = data / "test" / "low" / "sub-900.nii"
    twin.write_bytes((data / "low" / "sub-001_T1w.nii").read_bytes())
    assert train.main(arguments(VOLUME, data, out)) == 1
    said = capsys.readouterr().err
    assert "sub-900.nii" in said and "sub-001_T1w.nii" in said and "--allow-leak" in said
    assert "--deduplicate keeps one of each group" in said
    assert not (out / "last.pt").exists()
    assert train.main(arguments(VOLUME, data, out, "--allow-leak", "--epochs", "1")) == 0
    header = model.read_header(weights_of(out))
    assert header.training["leaks_allowed"] == 1
    assert "too good to be believed" in header.card


def test_doubles_are_left_out_where_that_is_asked_for(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", IMAGE, each=8), tmp_path / "run"
    picture = (data / "low" / "sub-001.png").read_bytes()
    (data / "low" / "sub-900.png").write_bytes(picture)
    (data / "mid" / "sub-901.png").write_bytes((data / "high" / "sub-017.png").read_bytes())
    assert train.main(arguments(IMAGE, data, out, "--deduplicate", "--epochs", "1")) == 0
    said = capsys.readouterr()
    assert "left out 3 of 26 scans" in said.out
    assert "1 groups of them" in said.err and "sub-901.png" in said.err and "sub-017.png" in said.err
    split = (out / "split.csv").read_text()
    assert "sub-001" in split and not any(name in split for name in ("sub-900", "sub-901", "sub-017"))
    header = model.read_header(weights_of(out))
    assert "23 scans of 23 subjects (3 more left out, identical to others)" in header.card
    assert header.training["command"].endswith("--deduplicate --epochs 1")


def test_a_few_corrupt_files_are_left_out_and_many_refused(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME, each=40)
    (data / "low" / "sub-001_T1w.nii").write_bytes(b"not a scan")
    assert train.main(arguments(VOLUME, data, tmp_path / "few", "--epochs", "1", "--batch", "40")) == 0
    said = capsys.readouterr().err
    assert "1 of 120 files cannot be read and are left out" in said and "sub-001_T1w.nii" in said
    assert "sub-001" not in (tmp_path / "few" / "split.csv").read_text()
    (data / "low" / "sub-002_T1w.nii").write_bytes(b"nor this")
    assert train.main(arguments(VOLUME, data, tmp_path / "many")) == 1
    assert "2 of 120 files cannot be read, more than 1%" in capsys.readouterr().err


@contextmanager
def full_disk() -> Iterator[None]:
    """No file gets longer than 2,000 bytes: the system's own “no room for so much”."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_full_disk_ends_in_words_and_leaves_nothing_half_written(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    argv = arguments(VOLUME, data, out, "--epochs", "1")
    open_run(train.parse(argv))  # reads, splits, and fills the cache
    before = (out / "last.pt").read_bytes()
    with full_disk():
        assert train.main(["--resume", str(out)]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert (out / "last.pt").read_bytes() == before
    assert sorted(file.name for file in out.iterdir()) == ["last.pt", "split.csv"]
    assert train.main(["--resume", str(out)]) == 0


def test_a_disk_that_fills_within_a_large_checkpoint_is_told_alike(tmp_path):
    large = torch.zeros(1_000_000)
    with full_disk(), pytest.raises(RuntimeError) as broken:  # torch's own, as it finds less written than it meant
        write_whole(tmp_path / "last.pt", lambda file: torch.save(large, file))
    assert "the disk is full" in sentence(broken.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ],
)
def test_out_of_memory_says_what_to_change(tmp_path, monkeypatch, capsys, error):
    data = cohort(tmp_path / "data", VOLUME)

    def fail(*_):
        raise error

    monkeypatch.setattr(losses.Loss, "__call__", fail)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 1
    assert "half the --batch and twice the --accumulate" in capsys.readouterr().err
