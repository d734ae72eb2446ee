"""The published network and the weights files: what is kept, what is refused, and in which words."""

import collections
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import model
from model import ClassificationModel3D, WeightsError
from networks.forward import Forward
from networks.header import Header
from studies import PUBLISHED, STUDIES
from tests.small_networks import SMALL, shaken, small
from tests.support import ROOT

STUDY = STUDIES["alzheimers"]
CHECKPOINT = ROOT.parent / "shared/data/legacy/myModel_109.pth"


def header(**changes) -> Header:
    return Header(STUDY, "ClassificationModel3D", {"shape": list(SMALL)}, "a test", **changes)


def test_the_published_layer_table():
    state = {name: tuple(value.shape) for name, value in ClassificationModel3D().state_dict().items()}
    expected: dict[str, tuple] = {}
    for number, (inputs, outputs) in enumerate([(1, 8), (8, 16), (16, 32), (32, 64)], 1):
        expected |= {
            f"Conv_{number}.weight": (outputs, inputs, 3, 3, 3),
            f"Conv_{number}.bias": (outputs,),
            f"Conv_{number}_bn.num_batches_tracked": (),
        }
        expected |= {
            f"Conv_{number}_bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")
        }
    expected |= {
        "dense_1.weight": (128, 4800),
        "dense_1.bias": (128,),
        "dense_2.weight": (5, 128),
        "dense_2.bias": (5,),
    }
    assert state == expected
    assert [getattr(ClassificationModel3D(), f"Conv_{n}_mp").kernel_size for n in (1, 2, 3, 4)] == [2, 3, 2, 3]


def test_dropout_is_an_argument_and_dense_layers_begin_by_kaiming():
    network = ClassificationModel3D(dropout=0.0)
    assert (network.dropout.p, network.dropout2.p) == (0.0, 0.0)
    assert ClassificationModel3D().dropout.p == ClassificationModel3D().dropout2.p == 0.4
    for dense in (network.dense_1, network.dense_2):
        assert float(dense.weight.detach().std()) == pytest.approx((2 / dense.in_features) ** 0.5, rel=0.15)
        assert not dense.bias.any()


def test_forward_is_the_head_of_the_features():
    network, x = small(), torch.randn(2, 1, *SMALL)
    with torch.no_grad():
        assert network.features(x).shape == (2, 128)
        assert torch.equal(network(x), network.head(network.features(x)))


def test_training_gives_the_plain_modules_gradients():
    torch.manual_seed(0)
    network = ClassificationModel3D(5, 0.0, SMALL)
    plain = ClassificationModel3D(5, 0.0, SMALL).double()  # in double it takes the plain way
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, *SMALL)
    for part, inputs in ((network, x), (plain, x.double())):
        part.train()
        part(inputs).square().sum().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        allowed = 0.01 * float(theirs.grad.norm()) + 0.01  # rounding moves a maximum here and there
        assert float((ours.grad - theirs.grad).norm()) < allowed, name
    for name, ours in network.named_buffers():
        assert torch.allclose(ours.double(), plain.get_buffer(name).double(), rtol=1e-4, atol=1e-5), name


def test_a_weights_file_comes_back_as_it_went(tmp_path):
    network = small()
    extras = {"features.mean": torch.randn(128), "features.precision": torch.eye(128)}
    path = model.save(
        tmp_path / "deep" / "alzheimers.ClassificationModel3D.safetensors",
        network,
        header(calibration={"temperature": 1.5}),
        extras,
    )
    weights = model.load(path, "cpu")
    assert (weights.name, weights.sha256) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert weights.study == STUDY and weights.contract == STUDY.contract
    assert weights.header.temperature == 1.5 and weights.header.scaled and not weights.header.calibrated
    assert weights.header.record() == model.read_header(path).record()
    assert not weights.network.training and not any(p.requires_grad for p in weights.network.parameters())
    state = weights.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert weights.extras.keys() == extras.keys()
    assert all(torch.equal(weights.extras[name], extras[name]) for name in extras)
    with safe_open(path, framework="pt") as file:  # another reader finds the header where the format keeps one
        assert json.loads(file.metadata()["scanwise"]) == weights.header.record()


def test_saving_leaves_the_old_file_when_it_fails(tmp_path):
    path = model.save(tmp_path / "a.safetensors", small(), header())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        model.save(path, small(1), header(card=object()))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    model.save(path, small(1), header())
    assert path.read_bytes() != before and list(tmp_path.iterdir()) == [path]


def test_weights_are_listed_by_name(tmp_path):
    for name in ("b.safetensors", "a.pth", "notes.txt", ".half.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.safetensors").mkdir()
    assert [path.name for path in model.list_weights(tmp_path)] == ["a.pth", "b.safetensors"]
    assert model.list_weights(tmp_path / "nowhere") == []
    for name in ("b.Net.mine.safetensors", "b.Net.safetensors", "b-two.Net.safetensors"):
        (tmp_path / name).write_bytes(b"")  # a study's own first
    names = [path.name for path in model.list_weights(tmp_path)]
    assert names.index("b.Net.safetensors") < names.index("b.Net.mine.safetensors")


def test_a_weights_file_is_shown_and_exported(tmp_path, capsys):
    study = replace(STUDIES["alzheimers"], contract=replace(STUDIES["alzheimers"].contract, shape=SMALL))
    header = Header(study, study.network, {"shape": list(SMALL)}, "Mine", card="# Mine\n\nWhat it can do.")
    path = model.save(tmp_path / "a.safetensors", small(), header)
    assert model.main(["show", str(path)]) == 0
    assert capsys.readouterr().out == "# Mine\n\nWhat it can do.\n"
    assert model.main(["show", str(path), "--header"]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["name"] == "ClassificationModel3D"
    assert model.main(["export", str(path), "--onnx", str(tmp_path / "a.onnx")]) == 0
    assert (tmp_path / "a.onnx").stat().st_size > 1000 and "wrote" in capsys.readouterr().out
    assert model.main(["show", str(tmp_path / "none.safetensors")]) == 1
    assert "model.py: none.safetensors: no such weights file" in capsys.readouterr().err


def test_a_number_s_interval_is_as_wide_as_promised():
    assert model.half_width(range(1, 20), 0.9) == 18  # the ⌈20 · 0.9⌉-th smallest
    assert model.half_width([1.0] * 8, 0.9) is None


def rewritten(path: Path, **changes) -> None:
    """The file again with another header, as a stranger's tool would write it."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["scanwise"]) | changes
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    save_file(tensors, path, metadata={"scanwise": json.dumps(record)})


def damaged_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:9] + b"?" + data[10:])


BAD = {
    "missing": (lambda path: path.unlink(), ["no such weights file", "train.py"]),
    "empty": (lambda path: path.write_bytes(b""), ["empty"]),
    "short": (lambda path: path.write_bytes(b"abc"), ["not a safetensors file"]),
    "text": (lambda path: path.write_text("these are no weights at all"), ["not a safetensors file"]),
    "cut in the tensors": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), ["truncated at", "again"]),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:500]), ["truncated at 500 bytes"]),
    "absurd header": (lambda path: path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}"), ["not a safetensors"]),
    "damaged header": (damaged_header, ["header is damaged"]),
    "a stranger's": (lambda path: save_file({"a": torch.zeros(2)}, path), ["without Scanwise's header"]),
    "newer format": (lambda path: rewritten(path, format=7), ["format 7 is unknown", "reads format 1"]),
    "no study": (lambda path: rewritten(path, study={}), ["its header lacks or misspells 'labels'"]),
    "unknown network": (
        lambda path: rewritten(path, network={"name": "GiantNet"}),
        ["network 'GiantNet' is unknown", "known are", "ClassificationModel3D"],
    ),
    "wrong arguments": (
        lambda path: rewritten(path, network={"name": "ClassificationModel3D", "arguments": {"depth": 50}}),
        ["does not take the arguments", "'depth'"],
    ),
    "another contract": (
        lambda path: rewritten(path, contract_hash="0123456789abcdef"),
        [STUDY.contract.hash(), "0123456789abcdef", "contract"],
    ),
    "another size": (
        lambda path: rewritten(path, network={"name": "ClassificationModel3D", "arguments": {}}),
        ["does not fit", "dense_1.weight is (128, 64) instead of (128, 4800)"],
    ),
    "other suffix": (lambda path: path, ["ends in .safetensors or .pth"]),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_weights_file_is_refused_in_words(tmp_path, why):
    path = model.save(tmp_path / "bad.safetensors", small(), header())
    spoil, words = BAD[why]
    spoil(path)
    if why == "other suffix":
        path = path.rename(tmp_path / "bad.bin")
    with pytest.raises(WeightsError) as refusal:
        model.load(path, "cpu")
    assert str(refusal.value).startswith(path.name)
    for word in words:
        assert word in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


def test_a_state_that_does_not_fit_names_the_first_keys(tmp_path):
    network = small()
    network.extra = nn.Linear(2, 2)
    del network.dense_2
    with pytest.raises(WeightsError) as refusal:
        model.load(model.save(tmp_path / "a.safetensors", network, header()), "cpu")
    for words in ("dense_2.weight is missing, dense_2.bias is missing, extra.bias is not wanted", "and 1 more"):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quantum", "device 'quantum' is not known"),
        ("cuda:99", "device cuda:99 is not there"),
        ("meta", "device meta is not supported"),
    ],
)
def test_a_device_that_cannot_be_had(name, words):
    with pytest.raises(WeightsError, match=words):
        model.pick_device(name)


def test_auto_is_cuda_where_there_is_one():
    assert model.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert model.pick_device("cpu") == torch.device("cpu")


class Poison:
    """Unpickled by a trusting reader, it runs a command."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_file_written_over_changes_nothing_that_is_loaded(tmp_path):
    path = model.save(tmp_path / "a.safetensors", small(), header(), {"mean": torch.arange(5.0)})
    weights = model.load(path, "cpu")
    before = {name: value.clone() for name, value in weights.network.state_dict().items()}
    with path.open("r+b") as file:  # as `cp` does, in place
        file.write(b"\xff" * path.stat().st_size)
    assert all(torch.equal(value, before[name]) for name, value in weights.network.state_dict().items())
    assert torch.equal(weights.extras["mean"], torch.arange(5.0))


@pytest.fixture
def checkpoint(tmp_path) -> tuple[Path, ClassificationModel3D]:
    """A pickled module of the published kind: its class is named `model.ClassificationModel3D`."""
    torch.manual_seed(0)
    network = shaken(ClassificationModel3D())
    torch.save(network, tmp_path / "myModel.pth")
    return tmp_path / "myModel.pth", network


def test_a_published_checkpoint_opens(checkpoint):
    path, network = checkpoint
    weights = model.load(path, "cpu")
    assert weights.contract == PUBLISHED and weights.study.codes == ["AD", "CN", "MCI", "EMCI", "LMCI"]
    assert "published checkpoint" in weights.header.title and "uncalibrated" in weights.header.title
    assert "nearly every head AD" in weights.header.card and not weights.header.scaled
    assert not weights.network.training
    x = torch.randn(1, 1, 160, 256, 256)
    with torch.no_grad():
        expected = network(x)
    logits, features = Forward(weights.network)(x)
    assert features.shape == (1, 128)
    assert float((logits - expected).abs().max()) < 1e-4


def test_the_checkpoint_is_read_the_same_from_the_header_alone(checkpoint):
    assert model.read_header(checkpoint[0]).record() == model.load(checkpoint[0], "cpu").header.record()


@pytest.mark.parametrize("state", [dict, collections.OrderedDict])
def test_a_plain_state_dict_opens(checkpoint, state):
    path, network = checkpoint
    torch.save(state(network.state_dict()), path)
    found = model.load(path, "cpu").network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_another_name_for_the_class_changes_nothing(checkpoint, monkeypatch):
    monkeypatch.setattr(ClassificationModel3D, "__module__", "__main__")  # as when model.py itself is run
    assert model.load(checkpoint[0], "cpu").network.state_dict().keys() == checkpoint[1].state_dict().keys()


@pytest.mark.parametrize("how", ["alone", "beside the weights", "in the module", "plain pickle"])
def test_a_poisoned_pickle_is_refused_and_nothing_runs(checkpoint, tmp_path, how):
    path, network = checkpoint
    victim, allowed = tmp_path / "victim", torch.serialization.get_safe_globals()
    poison = Poison(victim)
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"weight": poison}, protocol=2))
    else:
        network.note = poison
        torch.save(
            {
                "alone": poison,
                "beside the weights": {**network.state_dict(), "z": poison},
                "in the module": network,
            }[how],
            path,
        )
    with pytest.raises(WeightsError, match="refused, nothing was run") as refusal:
        model.load(path, "cpu")
    assert refusal.value.args[0].startswith("myModel.pth")
    assert not victim.exists()
    assert set(torch.serialization.get_safe_globals()) == set(allowed)  # ours is gone when the file is read


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (b"", "empty"),
        (b"no pickle", "refused, nothing was run"),
        ([1, 2], "holds a list, neither"),
        ({"weight": 3}, "holds a dict, neither"),
        (torch.zeros(3), "holds a Tensor, neither"),
        (nn.Conv3d(1, 1, 1), "does not fit"),
        (nn.Conv2d(1, 1, 1), "refused, nothing was run: it names torch.nn.modules.conv.Conv2d"),
    ],
    ids=["empty", "text", "list", "numbers", "tensor", "other layer", "unlisted layer"],
)
def test_another_pth_is_refused_in_words(tmp_path, what, words):
    path = tmp_path / "other.pth"
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        torch.save(what, path)
    with pytest.raises(WeightsError, match=words):
        model.load(path, "cpu")


def test_a_truncated_checkpoint_is_refused(checkpoint):
    checkpoint[0].write_bytes(checkpoint[0].read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"myModel\.pth: refused"):
        model.load(checkpoint[0], "cpu")


# It is another's file and no part of the repository; the tests above build one of the same classes and layout.
@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="the published checkpoint lies outside the repository")
def test_the_real_published_checkpoint_opens():
    weights = model.load(CHECKPOINT, "cpu")
    assert weights.network.Conv_1.weight.shape == (8, 1, 3, 3, 3)
    assert weights.contract == PUBLISHED and all(
        value.isfinite().all() for value in weights.network.state_dict().values()
    )


def test_probabilities_are_the_softmax_of_cooled_logits():
    logits = np.log(np.array([[1.0, 2.0, 5.0]]))
    assert model.probabilities(logits) == pytest.approx(np.array([[1, 2, 5]]) / 8)
    assert model.probabilities(torch.tensor(logits), 0.5) == pytest.approx(np.array([[1, 4, 25]]) / 30)
    assert model.probabilities(np.array([1000.0, 0.0])) == pytest.approx([1, 0])


@pytest.mark.parametrize(("level", "expected"), [(0.5, ["b"]), (0.8, ["b", "a"]), (0.9, ["b", "a", "c"])])
def test_the_prediction_set_by_hand(level, expected):
    # nine scores 0.1 … 0.9: the (9 + 1)·level-th smallest is 0.5, 0.8 and 0.9; 1 − p is 0.75, 0.4 and 0.85
    scores = [n / 10 for n in range(1, 10)]
    assert model.prediction_set(np.array([0.25, 0.6, 0.15]), ["a", "b", "c"], scores, level) == expected


def test_the_prediction_set_is_never_empty_and_whole_without_enough_scores():
    values = np.array([0.2, 0.5, 0.3])
    assert model.prediction_set(values, list("abc"), [0.01] * 50) == ["b"]
    for scores in ([], [0.01] * 8):  # nine scores are the fewest for 90 %
        assert model.prediction_set(values, list("abc"), scores) == ["b", "c", "a"]


@pytest.mark.parametrize("level", [0.7, 0.9])
def test_the_prediction_set_covers_the_truth_as_often_as_asked(level):
    random = np.random.default_rng(0)
    values = random.dirichlet(np.ones(4), 4000)
    truth = np.array([random.choice(4, p=row) for row in values])
    scores = sorted(1 - values[np.arange(2000), truth[:2000]])
    sets = [model.prediction_set(row, list(range(4)), scores, level) for row in values[2000:]]
    covered = np.mean([answer in answers for answer, answers in zip(truth[2000:], sets, strict=True)])
    assert covered >= level - 0.025  # three standard deviations of 2000 draws


def test_opening_a_weights_file_opens_no_compiler():
    file = model.list_weights(ROOT / "weights")[0]
    code = f"import sys, model; model.load({str(file)!r}, 'cpu'); print('torch._dynamo' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
