"""Training end to end on tiny data: every layout, resuming to the bit, many processes, and clear ends.

Run as a script it is `train.py` with the tiny studies known; KILL_AT=n ends it by SIGKILL at its n-th step.
"""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import model
import studies
import train
from data.cases import Case
from learning import loop
from learning.run import begin
from networks.base import Network
from studies import Contract, Label, Study

ROOT = Path(__file__).resolve().parent.parent


class Tiny(Network):
    """A network of a few hundred weights, for volumes or images, with or without batch norm."""

    def __init__(self, classes: int, dimensions: int = 3, norm: bool = False, dropout: float = 0.2):
        super().__init__()
        conv, batch, pool = (
            (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveMaxPool3d)
            if dimensions == 3
            else (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveMaxPool2d)
        )
        between = batch(4) if norm else nn.Identity()
        self.body = nn.Sequential(conv(1, 4, 3), between, nn.ReLU(), pool(2), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(4 * 2**dimensions, classes)

    def base(self, x):
        return self.body(x)

    def head(self, features):
        return self.dense(self.dropout(features))


LABELS = (Label("low", "little", 0.0), Label("mid", "some", 0.5), Label("high", "much", 1.0))
VOLUME = Study(
    "tiny-volume",
    "Tiny volumes",
    "Which?",
    LABELS,
    Contract("volume", (8, 8, 8), spacing=(4.0, 4.0, 4.0), place="fill", scale="stored"),
    "Tiny",
    ("Tiny", "ClassificationModel3D"),
    "Tests.",
    {"dimensions": 3},
    {"epochs": 2, "batch": 4, "lr": 0.01, "severity_weight": 1.0, "clip": 1.0},
)
IMAGE = replace(
    VOLUME,
    key="tiny-image",
    labels=tuple(replace(label, severity=None) for label in LABELS),
    contract=Contract("image", (12, 12), place="squeeze", scale="unit"),
    arguments={"dimensions": 2, "norm": True},
)
FULL = replace(
    studies.STUDIES["alzheimers"],
    key="small-alzheimers",
    arguments={"shape": [78, 78, 78]},
    contract=replace(VOLUME.contract, shape=(78, 78, 78)),
)
TINY = {study.key: study for study in (VOLUME, IMAGE, FULL)}


def picture(study: Study, level: float, random: np.random.Generator) -> np.ndarray:
    """A bright block in noise, the brighter the more severe."""
    shape = (10, 10, 10) if study.contract.kind == "volume" else (14, 14)
    values = random.uniform(1, 20, shape)
    values[tuple(slice(3, -3) for _ in shape)] += 40 + 160 * level
    return values / 100 if study.contract.kind == "volume" else values


def put(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 3:
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0])), file)
    else:
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file)
    return file


def cohort(folder: Path, study: Study, each: int = 6, layout: str = "folders", test: int = 0) -> Path:
    """`each` people of every class, in one of the published layouts; what to give as --data."""
    random, rows, number = np.random.default_rng(7), [], 0
    suffix = "_T1w.nii" if study.contract.kind == "volume" else ".png"
    for place, label in enumerate(study.labels):
        for i in range(each + test):
            number += 1
            name = f"sub-{number:03}"
            inside = {
                "folders": Path("test" if i >= each else "") / label.code / f"{name}{suffix}",
                "csv": Path("pictures") / f"{name}{suffix}",
                "bids": Path(name) / "anat" / f"{name}{suffix}",
            }[layout]
            put(folder / inside, picture(study, place / (len(study.labels) - 1), random))
            rows.append({"participant_id": name, "file": inside.as_posix(), "label": label.code, "subject": name})
    if layout == "folders":
        return folder
    names = ["participant_id", "label"] if layout == "bids" else ["file", "label", "subject"]
    table = folder / ("participants.tsv" if layout == "bids" else "cases.csv")
    with table.open("w", newline="") as out:
        writer = csv.DictWriter(out, names, delimiter="\t" if layout == "bids" else ",", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder if layout == "bids" else table


@contextmanager
def registered() -> Iterator[None]:
    """The tiny studies among the others."""
    with pytest.MonkeyPatch.context() as patch:
        for study in TINY.values():
            patch.setitem(studies.STUDIES, study.key, study)
        patch.setitem(model.NETWORKS, "Tiny", Tiny)
        yield


@pytest.fixture(autouse=True)
def tiny():
    threads = torch.get_num_threads()
    with registered():
        yield
    torch.set_num_threads(threads)


def arguments(study: Study, data: Path, out: Path, *more: str) -> list[str]:
    return [
        "--study",
        study.key,
        "--data",
        str(data),
        "--out",
        str(out),
        "--cache",
        str(out.parent / "cache"),
        "--workers",
        "0",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--rounds",
        "5",
        *more,
    ]


def state(out: Path) -> dict:
    return torch.load(out / "last.pt", weights_only=True)["state"]


def same(one, other) -> bool:
    """Equal to the bit, through dicts and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# ---- from a folder to a weights file


@pytest.mark.parametrize("layout", ["folders", "csv", "bids"])
@pytest.mark.parametrize("study", [VOLUME, IMAGE], ids=lambda study: study.key)
def test_each_layout_trains_end_to_end(tmp_path, study, layout):
    data, out = cohort(tmp_path / "data", study, layout=layout), tmp_path / "run"
    assert train.main(arguments(study, data, out)) == 0
    weights = model.load(out / f"{study.key}.Tiny.safetensors", "cpu")
    header = weights.header
    assert {name: sum(counts.values()) for name, counts in header["training"]["subjects"].items()} == {
        "train": 12,
        "val": 3,
        "test": 3,
    }
    assert len(header["training"]["subject_hashes"]["train"]) == 12
    assert header["scores"]["subjects"] == 3
    assert len(header["calibration"]["scores"]) == 3
    assert set(weights.extras) == {"features.mean", "features.precision", "likeness.sketch"}
    assert str(tmp_path) not in json.dumps(header)  # nobody's folders go into a file for others
    assert "## Limits" in header["card"] and study.use in header["card"]
    log = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in log] == ["1", "2"]
    assert ("val_correlation" in log[0]) == study.ordered
    for name in ("curves.png", "confusion.png", "roc.png", "reliability.png"):
        with Image.open(out / name) as drawn:
            assert drawn.size[0] > 100
    assert not list(out.glob("*.part"))


def test_the_published_network_trains_with_a_test_folder_beside(tmp_path):
    data, out = cohort(tmp_path / "data", FULL, each=3, test=1), tmp_path / "run"
    assert train.main(arguments(FULL, data, out, "--epochs", "1", "--precision", "bf16", "--accumulate", "2")) == 0
    header = model.read_header(out / "small-alzheimers.ClassificationModel3D.safetensors")
    assert sum(header["training"]["subjects"]["test"].values()) == 5
    assert header["title"].startswith("Alzheimer's stages")


def test_it_learns_what_can_be_seen(tmp_path):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    more = ("--epochs", "8", "--lr", "0.05", "--augment", "none", "--dropout", "0")
    assert train.main(arguments(VOLUME, data, out, *more)) == 0
    history = state(out)["history"]
    assert history[-1]["train_loss"] < 0.75 * history[0]["train_loss"]
    assert history[-1]["val_correlation"] > 0.9


def test_patience_ends_early(tmp_path):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    more = ("--epochs", "9", "--lr", "0", "--patience", "2", "--schedule", "constant")
    assert train.main(arguments(VOLUME, data, out, *more)) == 0
    assert len(state(out)["history"]) == 3  # the first is the best; two more are not better


# ---- resuming


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
    calls, loss = [], loop.Loss.__call__

    def interrupted(self, logits, targets):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, logits, targets)

    monkeypatch.setattr(loop.Loss, "__call__", interrupted)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--epochs", "3")) == 128 + signal.SIGTERM
    assert f"{epochs} whole epochs are kept" in capsys.readouterr().err
    assert len(state(tmp_path / "run")["history"]) == epochs
    monkeypatch.setattr(loop.Loss, "__call__", loss)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same(state(tmp_path / "run"), wanted)


def test_a_killed_run_resumes_to_the_same_bits(tmp_path, whole):
    wanted, data = whole
    argv = arguments(VOLUME, data, tmp_path / "run", "--epochs", "3")
    done = subprocess.run(
        [sys.executable, __file__, *argv],
        env=os.environ | {"KILL_AT": "6", "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same(state(tmp_path / "run"), wanted)


def test_a_signal_that_reached_the_reading_processes_too_is_no_fault(tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data", VOLUME)

    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    monkeypatch.setattr(loop.Loss, "__call__", killed)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 128 + signal.SIGTERM
    assert "0 whole epochs are kept" in capsys.readouterr().err


def test_a_run_can_be_closed_early(tmp_path, monkeypatch):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    monkeypatch.setattr(loop.Trainer, "validate", stop_after(loop.Trainer.validate, 2))
    assert train.main(arguments(VOLUME, data, out, "--epochs", "50")) == 130
    assert train.main(["--resume", str(out), "--finish", "--title", "Closed early"]) == 0
    header = model.read_header(out / "tiny-volume.Tiny.safetensors")
    assert header["training"]["epochs"] == 1 and header["title"] == "Closed early"
    assert str(tmp_path) not in json.dumps(header)


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


# ---- many processes


def test_two_processes_have_the_losses_of_one(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--dropout", "0", "--class-weights", "--accumulate", "2")
    assert train.main(arguments(VOLUME, data, tmp_path / "one", *more)) == 0
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run(
        [*launched, *arguments(VOLUME, data, tmp_path / "two", *more)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr.decode()
    one, two = state(tmp_path / "one")["history"], state(tmp_path / "two")["history"]
    for name in ("train_loss", "train_accuracy", "val_loss"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-4)
    assert (tmp_path / "two" / "tiny-volume.Tiny.safetensors").is_file()


# ---- clear ends


def test_leaks_are_refused_unless_allowed(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME, test=2), tmp_path / "run"
    twin = data / "test" / "low" / "sub-900.nii"
    twin.write_bytes((data / "low" / "sub-001_T1w.nii").read_bytes())
    assert train.main(arguments(VOLUME, data, out)) == 1
    said = capsys.readouterr().err
    assert "sub-900.nii" in said and "sub-001_T1w.nii" in said and "--allow-leak" in said
    assert not (out / "last.pt").exists()
    assert train.main(arguments(VOLUME, data, out, "--allow-leak", "--epochs", "1")) == 0
    header = model.read_header(out / "tiny-volume.Tiny.safetensors")
    assert header["training"]["leaks_allowed"] == 1
    assert "too good to be believed" in header["card"]


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
    header = model.read_header(out / "tiny-image.Tiny.safetensors")
    assert "23 scans of 23 subjects (3 more left out, identical to others)" in header["card"]
    assert header["training"]["command"].endswith("--deduplicate --epochs 1")


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


def test_a_full_disk_ends_in_words_and_leaves_nothing_half_written(tmp_path, capsys):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    argv = arguments(VOLUME, data, out, "--epochs", "1")
    begin(train.parse(argv))  # reads, splits, and fills the cache
    before = (out / "last.pt").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))  # the system's own “no room for so much”
    try:
        assert train.main(["--resume", str(out)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "the disk is full" in capsys.readouterr().err
    assert (out / "last.pt").read_bytes() == before
    assert sorted(file.name for file in out.iterdir()) == ["last.pt", "split.csv"]
    assert train.main(["--resume", str(out)]) == 0


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

    monkeypatch.setattr(loop.Loss, "__call__", fail)
    assert train.main(arguments(VOLUME, data, tmp_path / "run")) == 1
    assert "half the --batch and twice the --accumulate" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_in_words(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--lr", "1e30", "--clip", "0", "--schedule", "constant", "--optimiser", "sgd")
    assert train.main(arguments(VOLUME, data, tmp_path / "run", *more)) == 1
    assert "use a smaller --lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--network", "resnet18"), "tiny-volume has Tiny, ClassificationModel3D"),
        (("--precision", "amp"), "amp needs CUDA"),
        (("--network", "ClassificationModel3D"), "ClassificationModel3D does not take"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--val", "0"), "no case for val"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(tmp_path, capsys, more, words):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", *more)) == 1
    assert words in capsys.readouterr().err


def test_the_command_line_wants_a_study_or_a_run(capsys):
    for argv, words in (
        (["--data", "x"], "give --study and --data"),
        (["--study", "alzheimers", "--data", "x", "--finish"], "give --resume FOLDER too"),
    ):
        with pytest.raises(SystemExit):
            train.main(argv)
        assert words in capsys.readouterr().err


# ---- the parts


def test_the_order_is_a_function_of_seed_and_epoch():
    one = loop.order(range(10), 3, 5, 4)
    assert one == loop.order(range(10), 3, 5, 4)
    assert one != loop.order(range(10), 3, 6, 4) and one != loop.order(range(10), 4, 5, 4)
    assert len(one) == 12 and set(one) == set(range(10))  # whole steps, nobody left out
    assert len(loop.order(range(3), 0, 0, 8)) == 8


@pytest.mark.parametrize("schedule", loop.SCHEDULES)
def test_schedules_rise_to_the_full_rate_and_fall(schedule):
    rates = [loop.rate(schedule, i / 1000) for i in range(1001)]
    assert max(rates) == pytest.approx(1) and min(rates) > 0
    if schedule != "constant":
        peak = rates.index(max(rates))
        assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[0] < 0.11 and rates[-1] <= 0.01


def test_the_loss_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    loss = loop.Loss(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 1.0]), 4.0)
    # expected severities .125 + .25 = .375 and .05 + .8 = .85; true 0.5 (class 1) and 1 (class 2)
    entropy = (2 * -np.log(0.25) + 3 * -np.log(0.8)) / 2
    squares = ((0.375 - 0.5) ** 2 + (0.85 - 1) ** 2) / 2
    assert float(loss(logits, torch.tensor([1, 2]))) == pytest.approx(entropy + 4 * squares, rel=1e-5)


def test_class_weights_have_mean_one_over_the_cases():
    codes = ["low"] * 6 + ["mid"] * 2
    cases = [Case(Path(f"{i}"), code, str(i), "train") for i, code in enumerate(codes)]
    weights = loop.loss_of(VOLUME, cases, {"class_weights": True, "severity_weight": 0.0}, torch.device("cpu"))
    assert weights.class_weights[:2].tolist() == pytest.approx([8 / 12, 8 / 4])


def test_only_the_ends_come_first(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    run, _ = begin(train.parse(arguments(VOLUME, data, tmp_path / "run", "--ends-first", "1")))
    cases = loop.part(run.cases, "train")
    assert {cases[i].label for i in run.indices(0)} == {"low", "high"}
    assert {cases[i].label for i in run.indices(1)} == {"low", "mid", "high"}


if __name__ == "__main__":
    if "KILL_AT" in os.environ:
        left, before = [int(os.environ["KILL_AT"])], loop.Loss.__call__

        def kill(self, logits, targets):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(self, logits, targets)

        loop.Loss.__call__ = kill
    with registered():
        sys.exit(train.main())
