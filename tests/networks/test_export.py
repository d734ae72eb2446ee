"""Networks as ONNX: ONNX Runtime says the same of the same raw intensities; the contract stands in the file."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from networks import export
from networks.base import WeightsError
from networks.header import Header
from studies import STUDIES, Contract, Label, Target
from tests.small_networks import SMALL, small
from tests.tiny_cohorts import IMAGE, Tiny

STEPS = export.Steps(10.0, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
HEAD = replace(STUDIES["alzheimers"], contract=replace(STUDIES["alzheimers"].contract, shape=SMALL))


def run(path, **given) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == list(given)
    (said,) = session.run(None, given)
    return said


def test_raw_heads_give_the_calibrated_chances(tmp_path):
    network, header = small(), Header(HEAD, "ClassificationModel3D", calibration={"temperature": 2.0})
    raw = np.random.default_rng(0).gamma(2.0, 60.0, (1, 1, *SMALL)).astype(np.float32)
    air, mean, deviation = 4.0, 110.0, 35.0
    prepared = np.clip((raw - air - mean) / deviation, -mean / deviation, 10.0)
    with torch.inference_mode():
        wanted = torch.softmax(network(torch.from_numpy(prepared).float()).double() / 2.0, 1).numpy()
    path = tmp_path / "head.onnx"
    path.write_bytes(export.export(network, header, STEPS))
    said = run(path, grid=raw, statistics=np.array([air, mean, deviation], np.float32))
    np.testing.assert_allclose(said, wanted, atol=1e-4)
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(told["scanwise"])["contract"]["shape"] == list(SMALL)
    assert told["classes"] == "AD,CN,MCI,EMCI,LMCI" and told["contract"] == HEAD.contract.hash()
    assert "air" in told["input"]


@pytest.mark.parametrize("scale", ["imagenet", "unit"])
def test_pictures_and_numbers(tmp_path, scale):
    contract = Contract("image", (12, 12), channels=3, place="squeeze", scale=scale)
    study = replace(IMAGE, labels=(Label("age", "age"),), contract=contract, target=Target("years", 60.0, 8.0))
    torch.manual_seed(0)
    network = Tiny(1, dimensions=2)
    network.body[0] = torch.nn.Conv2d(3, 4, 3)
    network.eval()
    picture = np.random.default_rng(0).random((1, 3, 12, 12)).astype(np.float32)
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32).reshape(2, 1, 3, 1, 1)
    prepared = (picture - mean) / deviation if scale == "imagenet" else picture
    with torch.inference_mode():
        wanted = 60 + 8 * network(torch.from_numpy(prepared)).numpy()
    path = tmp_path / "age.onnx"
    path.write_bytes(export.export(network, Header(study, "Tiny"), STEPS))
    np.testing.assert_allclose(run(path, grid=picture), wanted, atol=1e-3)


def test_what_cannot_be_written_is_said(monkeypatch):
    outlined = replace(HEAD, contract=replace(HEAD.contract, scale="structures"))
    with pytest.raises(WeightsError, match="scale “structures” takes more than a network"):
        export.export(small(), Header(outlined, "ClassificationModel3D"), STEPS)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="--onnx needs onnx and onnxscript; `pip install onnx onnxscript`"):
        export.export(small(), Header(HEAD, "ClassificationModel3D"), STEPS)
