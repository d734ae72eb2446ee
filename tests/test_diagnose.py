"""One scan in, one diagnosis out: the record, the table, the CSV and the exit status of the command line."""

import csv
import json
import re
import subprocess
import sys
import threading

import nibabel as nib
import numpy as np
import pytest
import torch

import diagnose
import model
from diagnosis.diagnoser import Diagnoser
from scans.prepare import prepare
from scans.read import read
from studies import NOTICE, STUDIES, to_record

STUDY = STUDIES["alzheimers"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network, the same each time, calibrated by hand."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "alzheimers.ClassificationModel3D.safetensors"
    header = {
        "title": "untrained, for tests",
        "study": to_record(STUDY),
        "network": {"name": "ClassificationModel3D", "arguments": {}},
        "calibration": {"temperature": 2.0, "scores": [0.1] * 8 + [0.85, 0.95]},
    }
    return model.save(path, model.NETWORKS["ClassificationModel3D"](5), header)


@pytest.fixture(scope="module")
def diagnoser(weights):
    return Diagnoser(weights, "cpu")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A ball of tissue with a bright middle, on disk."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 70, 64)], indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    voxels = np.where(radius < 0.9, 400, 0) + np.where(radius < 0.4, 300, 0)
    path = tmp_path_factory.mktemp("scan") / "head.nii.gz"
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([2.5, 2.5, 2.5, 1])), path)
    return path


def run(*arguments):
    return subprocess.run(
        [sys.executable, "diagnose.py", *map(str, arguments)],
        cwd=diagnose.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_record_is_what_the_plain_network_says(diagnoser, weights, head):
    record = diagnoser(head, judge_anyway=True).record()
    prepared = prepare(read(head), STUDY.contract)
    with torch.inference_mode():
        logits = model.load(weights, "cpu").network(prepared.tensor[None])[0].double()
    expected = torch.softmax(logits / 2.0, 0).numpy()
    assert list(record["probabilities"]) == STUDY.codes
    np.testing.assert_allclose(list(record["probabilities"].values()), expected, atol=1e-4)
    assert record["label"] == STUDY.codes[int(expected.argmax())]
    assert record["name"] == {each.code: each.name for each in STUDY.labels}[record["label"]]
    severities = [each.severity for each in STUDY.labels]
    assert record["severity"] == pytest.approx(float(expected @ severities), abs=1e-4)
    # 10 calibration scores at 90 %: the 10th smallest, 0.95, is the bar, so p ≥ 0.05 stays
    assert set(record["set"]) == {c for c, p in zip(STUDY.codes, expected, strict=True) if p >= 0.05}
    assert record["file"] == "head.nii.gz" and record["study"] == "alzheimers"
    assert record["notice"] == NOTICE
    assert {"read", "prepare", "check", "predict"} <= set(record["seconds"])
    assert json.loads(json.dumps(record)) == record


def test_steps_are_announced_in_order(diagnoser, head):
    steps = []
    diagnoser(head, judge_anyway=True, progress=steps.append)
    assert steps == ["read", "prepare", "check", "predict"]


def test_intervals_come_on_request_from_one_run_of_the_convolutions(diagnoser, weights, head, monkeypatch):
    plain = diagnoser(head, judge_anyway=True)
    assert plain.intervals is None and plain.record()["intervals"] is None
    walked, walk = [], diagnoser.forward.folded
    monkeypatch.setattr(diagnoser.forward, "folded", lambda x: walked.append(x) or walk(x))
    asked = diagnoser(head, judge_anyway=True, passes=20).record()
    assert len(walked) == 1 and "uncertainty" in asked["seconds"]
    assert {**asked, "seconds": 0, "intervals": None} == {**plain.record(), "seconds": 0}
    assert list(asked["intervals"]) == STUDY.codes
    assert all(0 <= low < high <= 1 for low, high in asked["intervals"].values())
    assert (
        asked["intervals"] == Diagnoser(weights, "cpu")(head, judge_anyway=True, passes=20).record()["intervals"]
    )
    # the calibration's temperature of 2 holds for the passes too
    base = diagnoser.forward.base(prepare(read(head), STUDY.contract).tensor[None])
    chances = torch.softmax(diagnoser.forward.passes(base, 20).double() / 2, 1).numpy()
    expected = np.percentile(chances, [5, 95], axis=0).T
    np.testing.assert_allclose(list(asked["intervals"].values()), expected, atol=1e-6)


def test_a_network_that_drops_nothing_says_so(tmp_path):
    study = STUDIES["brain-tumour"]
    path = model.save(
        tmp_path / "brain-tumour.resnet18.safetensors",
        model.NETWORKS["resnet18"](2),
        {"study": to_record(study), "network": {"name": "resnet18", "arguments": {}}},
    )
    diagnoser = Diagnoser(path, "cpu")
    with pytest.raises(model.WeightsError, match=r"resnet18\.safetensors: ResNet18 has no dropout"):
        diagnoser(b"", "x.png", passes=20)
    done = run(path, "--weights", path, "--uncertainty")
    assert done.returncode == 2 and "has no dropout" in done.stderr and "without uncertainty" in done.stderr


def test_bytes_and_path_give_the_same_answer(diagnoser, head):
    by_path = diagnoser(head, judge_anyway=True).record()
    by_bytes = diagnoser(head.read_bytes(), "head.nii.gz", judge_anyway=True).record()
    assert by_bytes | {"seconds": 0} == by_path | {"seconds": 0}


def test_several_threads_get_their_own_answers(diagnoser, head, tmp_path):
    image = nib.load(head)
    other = tmp_path / "other.nii"
    nib.save(
        nib.Nifti1Image(
            np.asarray(image.dataobj)[:, ::-1] * np.arange(70)[None, :, None].astype(np.int16), image.affine
        ),
        other,
    )
    alone = {path: diagnoser(path, judge_anyway=True).probabilities for path in (head, other)}
    together = {}

    def work(key):
        together[key] = diagnoser(key[1], judge_anyway=True).probabilities

    threads = [threading.Thread(target=work, args=((n, path),)) for n in range(2) for path in (head, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 4
    for (_, path), probabilities in together.items():
        assert probabilities == pytest.approx(alone[path], abs=1e-5)


def test_the_command_line_prints_one_array_in_the_order_given(weights, head, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"not a scan at all")
    done = run(bad, head, tmp_path / "absent.nii", "--weights", weights, "--json", "--judge-anyway")
    records = json.loads(done.stdout)
    assert [record["file"] for record in records] == ["bad.nii.gz", "head.nii.gz", "absent.nii"]
    assert records[2]["error"]["code"] == "missing" and "absent.nii" in records[2]["error"]["message"]
    assert set(records[0]["error"]) == {"code", "message"}
    assert records[1]["label"] in STUDY.codes
    assert done.returncode == 1


def test_the_command_line_says_all_was_judged(weights, head):
    done = run(head, "--weights", weights, "--judge-anyway")
    assert done.returncode == 0, done.stderr
    assert "head.nii.gz" in done.stdout and NOTICE in done.stdout
    assert re.search(r"[A-Z]+( or [A-Z]+)* \(90% coverage on the calibration cohort\)", done.stdout)
    assert not re.search(r"% to ", done.stdout)


def test_the_command_line_tells_an_interval_where_it_is_asked_to(weights, head):
    done = run(head, "--weights", weights, "--judge-anyway", "--uncertainty")
    assert re.search(r"\d% \(\d+\.\d% to \d+\.\d%\)", done.stdout)


def test_the_command_line_walks_a_folder_into_a_csv(weights, head, tmp_path):
    done = run(head.parent, "--weights", weights, "--csv", tmp_path / "out.csv", "--judge-anyway", "--uncertainty")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert done.returncode == 0, done.stderr
    assert [row["file"] for row in rows] == ["head.nii.gz"]
    assert sum(float(rows[0][code]) for code in STUDY.codes) == pytest.approx(1, abs=1e-4)
    assert all(float(rows[0][f"{code} low"]) < float(rows[0][f"{code} high"]) for code in STUDY.codes)


def test_the_command_line_files_a_report_of_each_scan(weights, head, tmp_path):
    bad, again = tmp_path / "bad.nii", tmp_path / "again" / "head.nii.gz"
    bad.write_bytes(b"not a scan at all")
    again.parent.mkdir()
    again.write_bytes(head.read_bytes())
    done = run(
        head,
        bad,
        again,
        "--weights",
        weights,
        "--judge-anyway",
        "--json",
        "--language",
        "zh",
        "--report",
        tmp_path / "reports" / "here",
    )
    assert done.returncode == 1, done.stderr  # one file was refused
    first, refused, second = json.loads(done.stdout)
    names = sorted(path.name for path in (tmp_path / "reports" / "here").iterdir())
    assert names == sorted(first["report"] + second["report"]) and len(names) == 8 and "report" not in refused
    assert first["report"] == [f"head.nii.gz{suffix}" for suffix in (".html", ".pdf", ".json", ".png")]
    told = json.loads((tmp_path / "reports" / "here" / "head.nii.gz.json").read_text(encoding="utf-8"))
    assert told["label"] == first["label"] == told["map"]["code"] and told["map"]["method"] == "grad-cam"
    page = (tmp_path / "reports" / "here" / second["report"][0]).read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page and str(tmp_path) not in page


def test_a_scan_without_a_class_gets_a_report_that_says_so(weights, head, tmp_path):
    marble = tmp_path / "marble.nii"  # the same, too small for a head
    nib.save(nib.Nifti1Image(np.asarray(nib.load(head).dataobj), np.eye(4) / 4), marble)
    done = run(marble, "--weights", weights, "--report", tmp_path)
    assert done.returncode == 1 and "report: marble.nii.html" in done.stdout
    assert "this scan cannot be judged" in (tmp_path / "marble.nii.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "marble.nii.json").read_text(encoding="utf-8"))["map"] is None


def test_a_report_is_not_written_over_a_file(weights, head, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run(head, "--weights", weights, "--report", tmp_path / "taken")
    assert done.returncode == 2 and "taken: a file of that name is there" in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "SCAN"),
        (["x.nii", "--level", "2"], "--level 2.0"),
        (["x.nii", "--weights", "nowhere.safetensors"], "nowhere.safetensors: no such weights file"),
        (["x.nii", "--study", "astrology"], "astrology"),
        (["x.nii", "--json", "--csv", "y.csv"], "not allowed with"),
    ],
)
def test_a_wrong_command_line_ends_with_two(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_an_empty_folder_is_said_to_be_empty(weights, tmp_path):
    done = run(tmp_path, "--weights", weights)
    assert done.returncode == 2 and "nothing to judge" in done.stderr and ".nii.gz" in done.stderr
