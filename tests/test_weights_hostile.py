"""Weights files made to harm: each refused in words, nothing large built, and the good one beside them served."""

import json
import struct
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import model
from diagnosis import gate
from diagnosis.diagnoser import Diagnoser
from model import ClassificationModel3D, WeightsError
from networks.header import Header
from server.state import Pool, ServerState, Uploads
from studies import STUDIES, from_json, to_json
from tests.support import phantom, save_nifti

STUDY = STUDIES["alzheimers"]


def header(**changes) -> Header:
    return Header(STUDY, "ClassificationModel3D", title="a test", **changes)


@pytest.fixture(scope="module")
def network() -> ClassificationModel3D:
    torch.manual_seed(0)
    return ClassificationModel3D()


def rewritten(path: Path, change, spoil=lambda tensors: tensors) -> None:
    """The file again with another header, as a stranger's tool would write it."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["scanwise"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    text = change(record)
    save_file(spoil(tensors), path, metadata={"scanwise": text if isinstance(text, str) else json.dumps(record)})


def put(path: str, value):
    """A change that puts a value at a dotted place of the header."""

    def change(record: dict) -> None:
        *steps, last = path.split(".")
        for step in steps:
            record = record[int(step)] if step.isdigit() else record.setdefault(step, {})
        record[int(last) if last.isdigit() else last] = value

    return change


def raw(path: Path, table: str) -> None:
    path.write_bytes(struct.pack("<Q", len(table)) + table.encode())


def huge(record: dict) -> str:
    return json.dumps(record)[:-1] + ', "calibration": {"temperature": 1e999}}'


HEADERS = {
    "a study without a contract": (lambda record: record["study"].pop("contract") and None, "contract"),
    "a study that is a list": (put("study", []), "header"),
    "labels that are a number": (put("study.labels", 7), "header"),
    "one code twice": (put("study.labels.1.code", "AD"), "name a code twice"),
    "a severity of text": (put("study.labels.1.severity", "high"), "severity is 'high'"),
    "deep JSON": (lambda record: "[" * 100_000, "nested too deeply"),
    "a network that is a list": (put("network.name", ["ClassificationModel3D"]), "header.network.name is"),
    "arguments that are a list": (put("network.arguments", [1]), "header.network.arguments is [1]"),
    "dropout 7": (put("network.arguments.dropout", 7), "does not take the arguments"),
    "a shape of text": (put("network.arguments.shape", "wide"), "does not take the arguments"),
    "an example that is a list": (put("example", ["demo.nii.gz"]), "header.example is"),
    "a title that is a table": (put("title", {}), "header.title is {}"),
    "a card that is a number": (put("card", 3), "header.card is 3"),
    "temperature 0": (put("calibration.temperature", 0), "header.calibration.temperature is 0"),
    "temperature below 0": (put("calibration.temperature", -1.0), "header.calibration.temperature is -1.0"),
    "temperature NaN": (put("calibration.temperature", float("nan")), "NaN is no finite number"),
    "temperature infinite": (put("calibration.temperature", float("inf")), "Infinity is no finite number"),
    "temperature past all bounds": (huge, "1e999 is no finite number"),
    "a calibration that is null": (put("calibration", None), "header.calibration is None"),
    "scores of text": (put("calibration.scores", ["a"]), "header.calibration.scores[0] is 'a'"),
    "metrics that are a list": (put("scores.metrics", []), "header.scores.metrics is []"),
    "a likeness threshold without its table": (put("likeness.threshold", 3.0), "extras.features.mean is None"),
    "training that is text": (put("training", "much"), "header.training is 'much'"),
}


@pytest.mark.parametrize("why", HEADERS)
def test_a_header_that_lies_is_refused_in_words(tmp_path, network, why):
    path = model.save(tmp_path / "bad.safetensors", network, header())
    change, words = HEADERS[why]
    rewritten(path, change)
    with pytest.raises(WeightsError) as refusal:
        Diagnoser(path, "cpu")
    assert str(refusal.value).startswith("bad.safetensors: ")
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("offsets", ["[0, 5e999]", '["0", "many"]', "[0]", "7", '{"a": 1}'])
def test_offsets_that_are_none_are_refused(tmp_path, offsets):
    raw(tmp_path / "bad.safetensors", '{"a": {"dtype": "F32", "shape": [1], "data_offsets": ' + offsets + "}}")
    with pytest.raises(WeightsError, match=r"bad\.safetensors: "):
        model.load(tmp_path / "bad.safetensors", "cpu")


def test_a_table_nested_past_reading_is_refused(tmp_path):
    raw(tmp_path / "bad.safetensors", '{"a":' * 50_000)
    with pytest.raises(WeightsError, match="nested too deeply"):
        model.load(tmp_path / "bad.safetensors", "cpu")


@pytest.mark.parametrize("shape", [[166, 256, 4096], [166, 256], [0, 256, 256], [166.5, 256, 256]])
def test_a_contract_out_of_bounds_is_refused(tmp_path, network, shape):
    path = model.save(tmp_path / "bad.safetensors", network, header())

    def change(record: dict) -> None:
        for part in ("", "study."):
            put(f"{part}contract.shape", shape)(record)

    rewritten(path, change)
    with pytest.raises(WeightsError, match=r"header\.(study\.)?contract\.shape"):
        model.load(path, "cpu")


def test_a_network_of_another_size_than_its_contract_is_refused(tmp_path):
    small = ClassificationModel3D(shape=(80, 79, 84))
    path = model.save(tmp_path / "bad.safetensors", small, header(arguments={"shape": [80, 79, 84]}))
    with pytest.raises(WeightsError, match="does not take the 166×256×256"):
        Diagnoser(path, "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["network.dense_2.bias", "network.Conv_1_bn.running_var", "extras.features.mean"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, network, name, value):
    path = model.save(tmp_path / "bad.safetensors", network, header(), {"features.mean": torch.zeros(128)})

    def spoil(tensors):
        tensors[name].view(-1)[1] = value
        return tensors

    rewritten(path, lambda record: None, spoil)
    with pytest.raises(WeightsError, match=r"bad\.safetensors: .* holds NaN or infinite numbers"):
        model.load(path, "cpu")


# --- pickled checkpoints -------------------------------------------------------------------------------------


class Calls:
    """Pickled, it is a call of the function with the arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested(depth: int) -> list:
    inner: list = []
    for _ in range(depth):
        inner = [inner]
    return inner


PICKLES = {
    "a wide layer that is called": lambda state: {**state, "a": Calls(nn.Linear, 30_000, 30_000)},
    "gigabytes by name": lambda state: {**state, "a": Calls(bytearray, 1 << 40)},
    "a sparse tensor": lambda state: state | {"dense_2.bias": state["dense_2.bias"].to_sparse()},
    "a complex tensor": lambda state: state | {"dense_2.bias": state["dense_2.bias"].to(torch.complex64)},
    "keys that are numbers": lambda state: dict(enumerate(state.values())),
    "a number": lambda state: 7,
    "lists in lists": lambda state: nested(300),
    "an odd module": lambda state: odd("_modules", {"dense_2": 7}),
    "modules that are a list": lambda state: odd("_modules", [nn.Linear(1, 1)]),
    "parameters that are text": lambda state: odd("_parameters", "many"),
    "NaN": lambda state: state | {"dense_2.bias": torch.full((5,), float("nan"))},
    "another shape": lambda state: state | {"dense_2.bias": torch.zeros(6)},
}


def odd(part: str, value) -> nn.Module:
    network = ClassificationModel3D()
    network.__dict__[part] = value
    return network


@pytest.mark.parametrize("why", PICKLES)
def test_a_checkpoint_that_lies_is_refused_before_it_costs_anything(tmp_path, network, why):
    path = tmp_path / "bad.pth"
    torch.save(PICKLES[why](OrderedDict(network.state_dict())), path)
    began, built = time.process_time(), tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as refusal:
            Diagnoser(path, "cpu")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert built is None and most < 200 << 20
    assert time.process_time() - began < 20
    assert str(refusal.value).startswith("bad.pth: ")


def test_modules_within_modules_without_end_are_refused(tmp_path):
    network = ClassificationModel3D()
    network.__dict__["_modules"] = {"again": network}
    torch.save(network, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="nested past counting"):
        model.load(tmp_path / "bad.pth", "cpu")


# --- what they stand beside, and what an answer is ---------------------------------------------------------


def test_one_bad_file_does_not_keep_the_good_one_from_being_served(tmp_path, network, monkeypatch):
    folder = tmp_path / "weights"
    model.save(folder / "good.safetensors", network, header())
    raw(folder / "deep.safetensors", "[" * 50_000)
    raw(folder / "offsets.safetensors", '{"a": {"data_offsets": ["0", "b"]}}')
    rewritten(model.save(folder / "listed.safetensors", network, header()), put("network.name", ["a"]))
    torch.save({"a": Calls(nn.Linear, 30_000, 30_000)}, folder / "wide.pth")
    opened = model.load

    def unforeseen(path, device):
        if Path(path).name == "listed.safetensors":
            raise ZeroDivisionError("nobody thought of it")
        return opened(path, device)

    monkeypatch.setattr(model, "load", unforeseen)
    state = ServerState(folder, Uploads(tmp_path / "uploads", 1 << 20), Pool(1, 1), "cpu")
    state.close()
    assert list(state.diagnosers) == ["good.safetensors"]
    assert {line.split(":")[0] for line in state.broken} == {
        "deep.safetensors",
        "offsets.safetensors",
        "listed.safetensors",
        "wide.pth",
    }
    assert any("error id" in line for line in state.broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("anyway", [False, True])
def test_an_answer_that_is_no_number_is_no_class(tmp_path, network, monkeypatch, value, anyway):
    diagnoser = Diagnoser(model.save(tmp_path / "a.safetensors", network, header()), "cpu")
    answer = diagnoser.forward.answer

    def spoiled(base):
        logits, features = answer(base)
        logits = logits.clone()
        logits[0, 0] = value
        return logits, features

    monkeypatch.setattr(diagnoser.forward, "answer", spoiled)
    scan = save_nifti(tmp_path / "head.nii.gz", *phantom(4.0))
    diagnosis = diagnoser(scan, judge_anyway=anyway, passes=2)
    assert diagnosis.label is None and diagnosis.probabilities is None and diagnosis.intervals is None
    assert diagnosis.verdict == gate.UNFIT
    assert "not-finite-answer" in {finding.code for finding in diagnosis.findings}
    assert from_json(to_json(diagnosis.record()))["gate"]["verdict"] == gate.UNFIT


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_no_probability_comes_of_a_temperature_that_is_none(temperature):
    with pytest.raises(WeightsError, match="calibration temperature"):
        model.probabilities(torch.zeros(1, 5), temperature)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_json_has_no_words_for_what_is_no_number(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": [value]})


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", "[" * 100_000])
def test_json_of_no_finite_numbers_is_not_read(text):
    with pytest.raises(ValueError, match=r"no finite number|nested too deeply"):
        from_json(text)
