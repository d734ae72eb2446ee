"""The diagnoser: the record is what the plain network says, step by step and from several threads."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
import torch

import model
from diagnosis.diagnoser import Diagnoser
from scans.prepare import prepare
from scans.read import read
from studies import NOTICE, STUDIES

STUDY = STUDIES["alzheimers"]


@pytest.fixture(scope="module")
def diagnoser(calibrated):
    return Diagnoser(calibrated, "cpu")


def test_the_record_is_what_the_plain_network_says(diagnoser, calibrated, ball):
    record = diagnoser(ball, judge_anyway=True).record()
    prepared = prepare(read(ball), STUDY.contract)
    with torch.inference_mode():
        logits = model.load(calibrated, "cpu").network(prepared.tensor[None])[0].double()
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


def test_steps_are_announced_in_order(diagnoser, ball):
    steps = []
    diagnoser(ball, judge_anyway=True, progress=steps.append)
    assert steps == ["read", "prepare", "check", "predict"]


def test_intervals_come_on_request_from_one_run_of_the_convolutions(diagnoser, calibrated, ball, monkeypatch):
    plain = diagnoser(ball, judge_anyway=True)
    assert plain.intervals is None and plain.record()["intervals"] is None
    walked, walk = [], diagnoser.forward.folded
    monkeypatch.setattr(diagnoser.forward, "folded", lambda x: walked.append(x) or walk(x))
    asked = diagnoser(ball, judge_anyway=True, passes=20).record()
    assert len(walked) == 1 and "uncertainty" in asked["seconds"]
    assert {**asked, "seconds": 0, "intervals": None} == {**plain.record(), "seconds": 0}
    assert list(asked["intervals"]) == STUDY.codes
    assert all(0 <= low < high <= 1 for low, high in asked["intervals"].values())
    assert (
        asked["intervals"]
        == Diagnoser(calibrated, "cpu")(ball, judge_anyway=True, passes=20).record()["intervals"]
    )
    # the calibration's temperature of 2 holds for the passes too
    base = diagnoser.forward.base(prepare(read(ball), STUDY.contract).tensor[None])
    chances = torch.softmax(diagnoser.forward.passes(base, 20).double() / 2, 1).numpy()
    expected = np.percentile(chances, [5, 95], axis=0).T
    np.testing.assert_allclose(list(asked["intervals"].values()), expected, atol=1e-6)


def test_bytes_and_path_give_the_same_answer(diagnoser, ball):
    by_path = diagnoser(ball, judge_anyway=True).record()
    by_bytes = diagnoser(ball.read_bytes(), "head.nii.gz", judge_anyway=True).record()
    assert by_bytes | {"seconds": 0} == by_path | {"seconds": 0}


def test_several_threads_get_their_own_answers(diagnoser, ball, tmp_path):
    image = nib.load(ball)
    other = tmp_path / "other.nii"
    nib.save(
        nib.Nifti1Image(
            np.asarray(image.dataobj)[:, ::-1] * np.arange(70)[None, :, None].astype(np.int16), image.affine
        ),
        other,
    )
    alone = {path: diagnoser(path, judge_anyway=True).probabilities for path in (ball, other)}
    together = {}

    def work(key):
        together[key] = diagnoser(key[1], judge_anyway=True).probabilities

    threads = [threading.Thread(target=work, args=((n, path),)) for n in range(2) for path in (ball, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 4
    for (_, path), probabilities in together.items():
        assert probabilities == pytest.approx(alone[path], abs=1e-5)
