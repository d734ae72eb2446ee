"""The command that trains the segmenter: from a folder of maps to a weights file with its card; refusals."""

import pytest
import torch

import model
import train_segmenter
from diagnosis.anatomy import segment as segmenting
from learning import segmentation
from networks.segmenter import CLASSES, Segmenter
from tests.label_maps import save_map


def test_a_folder_of_maps_becomes_weights_with_a_card(tmp_path, monkeypatch):
    """One step on a small network's worth of voxels; the held-out check is the real one, on one draw."""
    for k in range(2):
        save_map(tmp_path, f"map_{k}")
    real = segmentation.train
    monkeypatch.setattr(
        segmentation, "train", lambda *given, **kept: real(*given, **kept, shape=(64, 64, 64), workers=0)
    )
    monkeypatch.setattr(train_segmenter, "DRAWS", 1)
    out = tmp_path / "made" / model.SEGMENTER
    out.parent.mkdir()
    command = [
        "--labelmaps", str(tmp_path), "--about", "blocks", "--hold-out", "1", "--simulated", "0", "--steps", "1",
        "--device", "cpu", "--out", str(out),
    ]  # fmt: skip
    train_segmenter.main(command)
    opened = segmenting.load(out, "cpu")
    assert isinstance(opened.network, Segmenter)
    assert opened.header["scores"]["heads"] == ["map_1"]
    assert set(opened.header["calibration"]) == set(CLASSES[1:])
    card = opened.header["card"]
    assert "2 label maps (blocks), the last 1 by name held out" in card
    assert "python train_segmenter.py --labelmaps" in card
    train_segmenter.main([*command, "--calibrate"])
    again = segmenting.load(out, "cpu")
    assert again.header["training"] == opened.header["training"] and again.header["scores"]["heads"] == ["map_1"]
    more = tmp_path / "more.safetensors"
    train_segmenter.main([*command[:-1], str(more), "--init", str(out), "--rate", "1e-9"])
    taught = segmenting.load(more, "cpu")
    assert [each.get("begun with") for each in taught.header["training"]["history"]] == [None, again.sha256]
    with pytest.raises(SystemExit, match="its run did not begin with"):
        train_segmenter.main([*command, "--init", str(more)])
    for old, new in zip(again.network.parameters(), taught.network.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-4)


@pytest.mark.parametrize(("found", "said"), [(True, ""), (False, "outlines no brain in the ICBM 152 template")])
def test_a_mean_head_is_added_to_a_file_of_before_and_nothing_trained(tmp_path, monkeypatch, capsys, found, said):
    asked = []
    monkeypatch.setattr(segmentation, "add_mean", lambda path: asked.append(path) or found)
    train_segmenter.main(["--add-mean", "--out", str(tmp_path / model.SEGMENTER)])
    assert asked == [tmp_path / model.SEGMENTER] and list(tmp_path.iterdir()) == []
    err = capsys.readouterr().err
    assert said in err and bool(err) is not found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--simulated", "0"], "nothing to learn from"),
        (["--labelmaps", "MAPS", "--hold-out", "1", "--simulated", "0"], "--hold-out 1 leaves none of the 1 maps"),
        (["--simulated", "1", "--rate", "nan"], "nan is not a share from 0 to 1"),
        (["--simulated", "1", "--steps", "0"], "0 is not a count of 1 or more"),
        (["--simulated", "1", "--init", "MAPS/none.safetensors"], "none.safetensors"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(tmp_path, capsys, arguments, said):
    save_map(tmp_path)
    with pytest.raises(SystemExit) as refused:
        train_segmenter.main([each.replace("MAPS", str(tmp_path)) for each in arguments])
    assert said in f"{refused.value} {capsys.readouterr().err}"
