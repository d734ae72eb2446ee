"""Beginning from other weights, keeping the first layers, and learning on a smaller grid."""

import pytest
import torch
from test_train import FULL, VOLUME, arguments, cohort, tiny  # noqa: F401 (a fixture)

import model
import studies
import train


def test_training_on_frozen_layers_is_training_with_them_kept(tmp_path):
    """The whole network in one piece, its first blocks in eval mode, says the same."""
    network = model.NETWORKS["ClassificationModel3D"](3, dropout=0.0, shape=(78, 78, 78))
    x = torch.randn(2, 1, 78, 78, 78, generator=torch.Generator().manual_seed(0))
    network.eval()
    torch.testing.assert_close(network.head(network.thaw(network.frozen(x))), network(x), atol=1e-4, rtol=1e-4)


def test_weights_that_learned_from_a_test_subject_are_no_beginning(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "first", "--seed", "1")) == 0
    first = tmp_path / "first" / "tiny-volume.Tiny.safetensors"
    assert train.main(arguments(VOLUME, data, tmp_path / "other", "--seed", "2", "--init", str(first))) == 1
    assert "learned from subjects to be tested on here" in capsys.readouterr().err


def test_the_card_tells_what_the_data_are_and_what_came_before(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    (data / "about.txt").write_text("Boxes of one brightness a class.\n")
    assert train.main(arguments(VOLUME, data, tmp_path / "first", "--seed", "1")) == 0
    first = tmp_path / "first" / "tiny-volume.Tiny.safetensors"
    again = ["--init", str(first), "--split", str(tmp_path / "first" / "split.csv")]
    assert train.main(arguments(VOLUME, data, tmp_path / "second", *again)) == 0
    second = tmp_path / "second" / "tiny-volume.Tiny.safetensors"
    before, after = model.read_header(first), model.read_header(second)
    assert after["training"]["begun_with"]["command"] == before["training"]["command"]
    for text in ("Boxes of one brightness a class.", before["training"]["command"], after["training"]["command"]):
        assert text in after["card"]


def test_a_network_without_first_layers_to_keep_says_so(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--freeze")) == 1
    assert "Tiny has no part to keep as it is" in capsys.readouterr().err


def test_a_smaller_grid_lies_about_the_middle_of_the_brain():
    study = studies.STUDIES["alzheimers"]
    settings = {"shape": [90, 120, 92], "arguments": {}, "network": "ClassificationModel3D"}
    small = train.shaped(study, settings).contract
    assert small.shape == (90, 120, 92) and settings["arguments"] == {"shape": [90, 120, 92]}
    for axis in range(3):  # the middle of the small grid lies where the large one has the middle of the brain
        large = (train.BRAIN[axis] - study.contract.anchor[axis]) * study.contract.shape[axis]
        assert (0.5 - small.anchor[axis]) * small.shape[axis] == pytest.approx(large)
    with pytest.raises(train.TrainError, match="give 3 numbers of at most 166 256 256"):
        train.shaped(study, {"shape": [90, 120], "arguments": {}, "network": study.network})
