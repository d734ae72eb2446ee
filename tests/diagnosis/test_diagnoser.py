"""The diagnoser: the record is what the plain network says, step by step and from several threads."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import model
from diagnosis.agreement import GROWS, SHRINKS, cohort_table
from diagnosis.anatomy import segment, structures
from diagnosis.anatomy.measures import MEASURES, NOT_ASSESSED
from diagnosis.anatomy.norms import FILE, NormsError, Person
from diagnosis.diagnoser import Diagnoser, laid_back
from diagnosis.maps.explain import ExplainError, Map
from learning.settings import coarser, cropped
from networks.forward import Forward
from networks.header import Header
from scans.files import content_hash
from scans.prepare import Prepared, prepare
from scans.read import read
from studies import NOTICE, STUDIES, Contract
from tests import support
from tests.norms import LAWFUL, made, written
from tests.segmenters import SHARE

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


@pytest.fixture(scope="module")
def measuring(measuring_folder):
    return Diagnoser(next(measuring_folder.glob("alz*")), "cpu")


def test_a_segmenter_beside_the_weights_measures_the_head(measuring, measuring_folder, head_file):
    steps = []
    diagnosis = measuring(head_file, progress=steps.append)
    assert tuple(dict.fromkeys(steps)) == measuring.steps == ("read", "prepare", "check", "measure", "predict")
    record = diagnosis.record()
    assert json.loads(json.dumps(record)) == record
    assert list(record["measures"]) == list(MEASURES) and record["not_assessed"] == list(NOT_ASSESSED)
    assert record["segmenter"] == {
        "name": model.SEGMENTER,
        "sha256": content_hash(measuring_folder / model.SEGMENTER),
    }
    mark = record["measures"]["hippocampus_left"]  # which that segmenter takes it for
    assert mark["value"] == pytest.approx(SHARE * 4 / 3 * np.pi * (support.RADIUS / 10) ** 3, rel=0.1)
    assert (mark["unit"], mark["centile"]) == ("ml", None) and mark["low"] <= mark["value"] <= mark["high"]
    assert record["measures"]["hippocampus_right"]["value"] == 0
    assert diagnosis.segmentation.classes.shape == segment.SHAPE


def test_measures_can_be_left_out_or_be_another_segmenter_s(measuring, measuring_folder, calibrated, head_file):
    weights = measuring_folder / measuring.weights.name
    without = Diagnoser(weights, "cpu", segmenter="none")
    record = without(head_file).record()
    assert record["measures"] is record["not_assessed"] is record["segmenter"] is None
    assert "measure" not in record["seconds"] and "measure" not in without.steps
    assert record["precision"] == "fp32"  # what `auto` comes to on a processor
    assert Diagnoser(calibrated, "cpu").segmenter is None  # nothing lies beside it
    assert Diagnoser(calibrated, "cpu", segmenter=measuring_folder / model.SEGMENTER).segmenter is not None
    with pytest.raises(model.WeightsError, match=r"absent\.safetensors: no such weights file"):
        Diagnoser(calibrated, "cpu", segmenter=measuring_folder / "absent.safetensors")


def test_what_is_no_placed_head_is_not_measured(measuring, measuring_folder, tmp_path):
    voxels, affine = support.phantom(4.0)
    marble = support.save_nifti(tmp_path / "marble.nii.gz", voxels, np.diag([0.25, 0.25, 0.25, 1]) @ affine)
    judged = measuring(marble, judge_anyway=True)  # a class on request, but no measures
    assert judged.verdict == "cannot be judged" and judged.label is not None and judged.measures is None
    nowhere = tmp_path / "nowhere.nii.gz"
    nib.save(nib.Nifti1Image(voxels, None), nowhere)
    assert measuring(nowhere).measures is None
    study = STUDIES["brain-tumour"]
    network = model.NETWORKS["resnet18"](2)
    path = model.save(tmp_path / "brain-tumour.resnet18.safetensors", network, Header(study, "resnet18"))
    assert Diagnoser(path, "cpu", segmenter=measuring_folder / model.SEGMENTER).segmenter is None


def test_what_adds_up_to_no_head_is_doubted_instead_of_measured(measuring, head_file, monkeypatch):
    monkeypatch.setitem(measuring.segmenter.header, "calibration", {})  # the scalp counts in full: 2842 ml
    diagnosis = measuring(head_file)
    assert diagnosis.measures is None and diagnosis.segmentation is None
    assert [finding.code for finding in diagnosis.findings] == ["not-measured"]
    assert diagnosis.findings[0].text.startswith("What was outlined inside the skull adds up to 28")


OUTLINED = replace(STUDY.contract, scale="structures")


def outlined_weights(folder, segmenter: str, contract: Contract = OUTLINED) -> Path:
    """Untrained weights that judge what is outlined, learned with the segmenter of that hash."""
    arguments = {} if contract.shape == OUTLINED.shape else {"shape": list(contract.shape)}
    study = replace(STUDY, contract=contract, arguments=arguments)
    header = Header(study, study.network, arguments, training={"segmenter": segmenter})
    network = model.NETWORKS[study.network](5, **arguments).eval()
    return model.save(folder / f"alzheimers.{study.network}.safetensors", network, header)


def test_weights_that_judge_what_is_outlined_want_their_segmenter(
    measuring_folder, head_file, tmp_path, monkeypatch
):
    file = measuring_folder / model.SEGMENTER
    with pytest.raises(model.WeightsError, match=r"put segmenter\.safetensors beside it"):
        Diagnoser(outlined_weights(tmp_path, content_hash(file)), "cpu")
    with pytest.raises(model.WeightsError, match="learned with another segmenter"):
        Diagnoser(outlined_weights(tmp_path, "0" * 64), "cpu", segmenter=file)
    monkeypatch.setattr(structures, "structures", lambda head, found, mean: None)
    diagnoser = Diagnoser(outlined_weights(tmp_path, content_hash(file)), "cpu", segmenter=file)
    refused = diagnoser(head_file)
    assert refused.label is None and refused.verdict == "cannot be judged"
    assert "no-brain" in [finding.code for finding in refused.findings]
    with pytest.raises(ExplainError, match=r"head\.nii\.gz: no brain could be outlined") as error:
        diagnoser.explain(refused)
    assert error.value.code == "nothing-outlined"


def test_weights_of_normalised_brains_want_a_segmenter_with_a_mean_head(measuring_folder, tmp_path):
    file = measuring_folder / model.SEGMENTER
    laid = replace(OUTLINED, scale="normalised-structures")
    with pytest.raises(model.WeightsError, match=r"segmenter\.safetensors: it brings no mean head, .*--add-mean"):
        Diagnoser(outlined_weights(tmp_path, content_hash(file), laid), "cpu", segmenter=file)


def test_a_map_of_a_brain_laid_on_the_mean_one_lies_in_the_head_again():
    """One hot place, where the network saw it; the head lies 5 voxels off and is half as large again."""
    values = torch.zeros(1, 24, 24, 24)
    head = Prepared(values, np.diag([2.0, 2, 2, 1]), values[0] > 0, np.eye(4), [], {})
    to_head = np.diag([1.5, 1.5, 1.5, 1])
    to_head[:3, 3] = (5, -4, 1)
    hot = np.zeros((24, 24, 24), np.float32)
    hot[8, 12, 6] = 1
    hot = gaussian_filter(hot, 1.5)
    back = laid_back(Map(hot, "relevance", "AD", 1.0), replace(head, to_scan=head.to_scan @ to_head), head)
    assert np.unravel_index(back.values.argmax(), hot.shape) == (17, 14, 10)
    assert back.values.sum() == pytest.approx(1.5**3 * hot.sum(), rel=0.05)
    assert (back.method, back.code, back.score) == ("relevance", "AD", 1.0)


def test_a_network_sees_what_is_outlined(measuring_folder, head_file, tmp_path, monkeypatch):
    file = measuring_folder / model.SEGMENTER
    diagnoser = Diagnoser(outlined_weights(tmp_path, content_hash(file)), "cpu", segmenter=file)
    there = {}

    def half(head, found, mean):
        there["values"] = head.tensor - head.tensor.min()
        there["values"][:, :83] = 0
        return replace(head, tensor=there["values"], foreground=there["values"][0] > 0)

    monkeypatch.setattr(structures, "structures", half)
    diagnosis = diagnoser(head_file)
    assert diagnosis.seen.tensor is there["values"] and diagnosis.prepared.tensor is not there["values"]
    logits, _ = Forward(diagnoser.weights.network)(there["values"][None])
    expected = dict(zip(diagnoser.study.codes, model.probabilities(logits, 1.0)[0], strict=True))
    assert diagnosis.probabilities == pytest.approx(expected, abs=1e-5)
    relevance = diagnoser.explain(diagnosis, "relevance").values
    assert np.abs(relevance[83:]).sum() > 0 and not relevance[:83].any()


@pytest.mark.parametrize("contract", [cropped(OUTLINED, (120, 160, 130)), coarser(OUTLINED, (83, 128, 128))])
def test_on_a_grid_of_its_own_a_network_sees_what_it_learned_from(
    measuring_folder, head_file, tmp_path, monkeypatch, contract
):
    file = measuring_folder / model.SEGMENTER
    monkeypatch.setattr(structures, "structures", lambda head, found, mean: head)
    diagnoser = Diagnoser(outlined_weights(tmp_path, content_hash(file), contract), "cpu", segmenter=file)
    diagnosis = diagnoser(head_file)
    learned_from = structures.StructuresInput(file, contract)(read(head_file))
    assert diagnosis.seen.tensor.shape == (1, *contract.shape) and torch.equal(diagnosis.seen.tensor, learned_from)
    assert diagnosis.label is not None and diagnoser.explain(diagnosis).values.shape == contract.shape
    assert diagnosis.measures is diagnosis.segmentation is diagnosis.segmenter is None
    monkeypatch.setattr(structures, "structures", lambda head, found, mean: None)
    assert "no-brain" in [finding.code for finding in diagnoser(head_file).findings]


def test_norms_beside_the_weights_give_centiles_for_an_age_among_the_controls(
    measuring, measuring_folder, head_file
):
    record = measuring(head_file, person=Person(70, "F")).record()
    assert json.loads(json.dumps(record)) == record and record["person"] == {"age": 70, "sex": "F"}
    norms = record["norms"]
    assert (norms["people"], norms["ages"], norms["sex"], norms["why_none"]) == (120, [50, 85], "F", None)
    placed = {name for name, measure in record["measures"].items() if measure["centile"] is not None}
    assert placed == set(LAWFUL)
    low, high = record["measures"]["ventricles"]["centile_range"]
    assert low <= record["measures"]["ventricles"]["centile"] <= high
    for who, why in ((Person(30), "outside"), (Person(), "no-age")):
        record = measuring(head_file, person=who).record()
        assert record["norms"]["why_none"] == why and record["measures"]["ventricles"]["centile"] is None


def test_norms_can_be_left_out_and_another_segmenter_s_are_refused(
    measuring_folder, calibrated, tmp_path, head_file
):
    weights = next(measuring_folder.glob("alz*"))
    record = Diagnoser(weights, "cpu", norms="none")(head_file, person=Person(70)).record()
    assert record["norms"] is None and record["measures"]["ventricles"]["centile"] is None
    assert Diagnoser(calibrated, "cpu", norms=measuring_folder / FILE).norms is None  # nothing is measured there
    with pytest.raises(NormsError, match="made with the segmenter 5e5e5e5e"):
        Diagnoser(weights, "cpu", norms=written(tmp_path, made()))


def test_a_class_that_the_anatomy_speaks_against_is_doubted(measuring, measuring_folder, head_file, tmp_path):
    """A network that always says AD, and a cohort of whose least affected tenth this head is one."""
    seen = measuring(head_file).measures
    both = ((GROWS, 1), (SHRINKS, -0.5))  # at severity 1 the ventricles are twice as large, the hippocampi half
    rows = [(k / 99, {name: seen[name].value * (1 + by * k / 99) for name, by in both}) for k in range(100)]
    table = cohort_table(rows, measuring.segmenter.sha256)
    loaded = model.load(measuring_folder / measuring.weights.name, "cpu")
    with torch.no_grad():
        loaded.network.dense_2.bias[STUDY.codes.index("AD")] = 100
    path = model.save(tmp_path / loaded.name, loaded.network, replace(loaded.header, anatomy=table))
    judged = Diagnoser(path, "cpu", segmenter=measuring.segmenter)(head_file)
    assert judged.label == "AD" and judged.verdict == "doubtful"
    assert [finding.code for finding in judged.findings] == ["little-atrophy"]
