"""Beginning with other weights, and training on what the first layers give."""

import urllib.error

import pytest
import torch

import model
import studies
import train
from learning.transfer import MirrorImages, StemOutputs
from tests.tiny_cohorts import VOLUME, arguments, cohort, weights_of


def test_training_on_frozen_layers_is_training_with_them_kept(tmp_path):
    """The whole network in one piece, its first blocks in eval mode, says the same."""
    network = model.NETWORKS["ClassificationModel3D"](3, dropout=0.0, shape=(78, 78, 78))
    x = torch.randn(2, 1, 78, 78, 78, generator=torch.Generator().manual_seed(0))
    network.eval()
    torch.testing.assert_close(network.head(network.thaw(network.frozen(x))), network(x), atol=1e-4, rtol=1e-4)


def test_epochs_on_frozen_layers_see_scans_and_their_mirror_images_in_turn():
    """By seed, epoch and case alone; about half of them mirrored, none where there are no mirror images."""
    plain, mirrored, targets = torch.zeros(200, 1), torch.ones(200, 1), torch.arange(200)
    scans, again, alone = (
        StemOutputs(plain, targets, *more) for more in ((mirrored, 7), (mirrored, 7), (None, 7))
    )

    def epoch(given, number):
        given.set_epoch(number)
        values, kept = zip(*(given[k] for k in range(len(given))), strict=True)
        assert torch.stack(kept).equal(targets)
        return torch.stack(values)[:, 0]

    first, second = epoch(scans, 1), epoch(scans, 2)
    assert epoch(again, 1).equal(first) and not first.equal(second)
    assert 70 < int(first.sum()) < 130 and 70 < int(second.sum()) < 130
    assert not epoch(alone, 1).any()
    volumes = [(torch.arange(6.0).view(1, 3, 2, 1), 4)]
    x, target = MirrorImages(volumes)[0]
    assert x[0, :, 0, 0].tolist() == [4, 2, 0] and target == 4


def test_weights_that_learned_from_a_test_subject_are_no_beginning(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "first", "--seed", "1")) == 0
    first = weights_of(tmp_path / "first")
    assert train.main(arguments(VOLUME, data, tmp_path / "other", "--seed", "2", "--init", str(first))) == 1
    assert "learned from subjects to be tested on here" in capsys.readouterr().err


def test_a_network_without_first_layers_to_keep_says_so(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--freeze")) == 1
    assert "Tiny has no part to keep as it is" in capsys.readouterr().err


NODULE = studies.STUDIES["chest-nodule"]


@pytest.fixture
def nodules(tmp_path):
    """X-rays of a kind, and what to give train.py for a quick run on them."""
    return [
        *arguments(NODULE, cohort(tmp_path / "data", NODULE, each=4), tmp_path / "run"),
        "--shape",
        "32",
        "32",
        "--epochs",
        "1",
    ]


def test_imagenet_weights_from_a_file_stay_as_they_are_while_the_rest_is_trained(tmp_path, nodules, monkeypatch):
    torch.manual_seed(3)
    plain = model.NETWORKS["VGGFeatures"](2, shape=(32, 32)).vgg.state_dict()
    torch.save({**plain, "classifier.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    asked = []
    compute = model.NETWORKS["VGGFeatures"].frozen
    monkeypatch.setattr(
        model.NETWORKS["VGGFeatures"], "frozen", lambda self, x: asked.append(len(x)) or compute(self, x)
    )
    monkeypatch.setattr("learning.run.predict", told := Stop())
    with pytest.raises(Stop):  # after training, before any judging
        train.main([*nodules, "--start", str(tmp_path / "vgg16.pth"), "--epochs", "3"])
    # a grid to be tried, 4 to learn from and 2 to validate, once each for three epochs
    assert told.asked and asked == [1, 4, 2]
    kept = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert kept["facts"]["started"] == "ImageNet weights of vgg16 from “vgg16.pth”, 26 tensors"
    for key, value in plain.items():
        assert torch.equal(kept["state"]["network"][f"vgg.{key}"], value)
    asked.clear()
    with pytest.raises(Stop):
        train.main([*nodules, "--start", str(tmp_path / "vgg16.pth"), "--out", str(tmp_path / "again")])
    assert asked == [1]  # what frozen layers gave is found on disk


class Stop(Exception):
    asked = 0

    def __call__(self, *_, **__):
        self.asked += 1
        raise self


def test_frozen_layers_of_random_numbers_are_told(nodules, capsys, monkeypatch):
    monkeypatch.setattr("learning.run.predict", Stop())
    with pytest.raises(Stop):
        train.main(nodules)
    assert "hold random numbers; --start imagenet" in capsys.readouterr().err


def test_a_download_that_fails_is_said_and_by_choice_gone_without(tmp_path, nodules, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("learning.run.predict", Stop())
    assert train.main([*nodules, "--start", "imagenet"]) == 1
    said = capsys.readouterr().err
    assert "--start imagenet: no route to host" in said and "--start-optional" in said
    assert not (tmp_path / "run" / "last.pt").exists()
    with pytest.raises(Stop):
        train.main([*nodules, "--start", "imagenet", "--start-optional"])
    assert "began with random weights, for --start imagenet could not be had" in capsys.readouterr().out
    facts = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["facts"]
    assert "could not be had (no route to host)" in facts["started"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"<html>sign in</html>", "--start vgg16.pth"),
        ({"x": 1}, "only 0 of 26 tensors fit"),
    ],
)
def test_a_start_that_is_no_start_is_said(tmp_path, nodules, capsys, content, said):
    file = tmp_path / "vgg16.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save({name: torch.zeros(value) for name, value in content.items()}, file)
    assert train.main([*nodules, "--start", str(file)]) == 1
    assert said in capsys.readouterr().err


def test_a_network_that_imagenet_does_not_fit_says_so(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--start", "imagenet")) == 1
    assert "Tiny has no ImageNet weights" in capsys.readouterr().err
