"""Outlined structures as an input: at which levels, how smooth, on which grid, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import model
from diagnosis.anatomy import structures
from diagnosis.anatomy.segment import SHAPE, START
from networks.segmenter import CLASSES
from scans.prepare import Prepared, prepare
from scans.read import read
from scans.scan import ScanError
from studies import HEAD
from tests import heads, support
from tests.label_maps import untrained

OUTLINED = replace(HEAD, scale="structures")
BOX = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))


def blocks(hippocampus: int = 12) -> tuple[Prepared, np.ndarray]:
    """White matter in fluid, with a ventricle and a hippocampus so many voxels wide; the head itself is noise."""
    classes = np.zeros(SHAPE, np.uint8)
    for name, (x, y, z), size in (
        ("fluid", (36, 36, 36), 100), ("white", (40, 40, 40), 92), ("lateral", (50, 50, 50), 24),
        ("hippocampus", (100, 100, 100), hippocampus),
    ):  # fmt: skip
        classes[x : x + size, y : y + size, z : z + size] = CLASSES.index(name)
    values = torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(0))
    return Prepared(values[None], np.eye(4), values > 0, np.eye(4), [], {}), classes


def outlined(hippocampus: int = 12) -> tuple[torch.Tensor, np.ndarray]:
    """The input on the segmenter's box, and the classes it was made of."""
    head, classes = blocks(hippocampus)
    seen = structures.structures(head, support.segmentation_of(classes))
    assert (seen.tensor[0][~seen.foreground] == 0).all()
    return seen.tensor[0][BOX], classes


def test_deep_in_a_structure_lies_its_level_and_outside_the_brain_nothing():
    values, classes = outlined()
    for name, at, away in (("white", (80, 80, 80), 0), ("lateral", (62, 62, 62), 0.01)):
        assert float(values[at]) == pytest.approx(structures.LEVELS[name], abs=0.02 + away)
    assert not values[torch.from_numpy(classes == 0)].any()
    assert float(values[106, 106, 106]) > 2 * structures.LEVELS["white"]


def test_a_smaller_hippocampus_is_a_lower_peak():
    peaks = [float(outlined(size)[0].max()) for size in (8, 10, 12)]
    assert peaks == sorted(peaks) and peaks[2] > 1.2 * peaks[0]


def test_brightness_has_no_part_in_it():
    head, classes = blocks()
    found = support.segmentation_of(classes)
    one, other = (structures.structures(each, found) for each in (head, replace(head, tensor=3 - 5 * head.tensor)))
    assert torch.equal(one.tensor, other.tensor)


def test_where_no_brain_is_there_is_none():
    head, classes = blocks()
    assert structures.structures(head, support.segmentation_of(classes * 0)) is None
    fluid = (classes > 0).astype(np.uint8)
    assert structures.structures(head, support.segmentation_of(fluid)) is None


def test_a_smaller_grid_shows_the_same(tmp_path):
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    whole = prepare(scan, OUTLINED)
    masked = replace(whole, tensor=whole.tensor - whole.tensor.min())
    small = replace(OUTLINED, shape=(86, 136, 116), anchor=(0.5, 0.5, 0.55))
    cut = structures.on_grid_of(small, masked)
    to_whole = np.linalg.inv(masked.to_scan) @ cut.to_scan
    x, y, z = np.round(to_whole[:3, 3]).astype(int)
    same = masked.tensor[0, x : x + 86, y : y + 136, z : z + 116]
    assert float((cut.tensor[0] - same).abs().mean()) < 0.05 * float(same.mean())
    assert structures.on_grid_of(OUTLINED, masked) is masked


def test_the_scale_structures_needs_the_segmenter_and_a_scan_that_says_how_it_lies(tmp_path):
    assert structures.input_of(HEAD, tmp_path) is None
    with pytest.raises(model.WeightsError, match=r"segmenter\.safetensors is missing"):
        structures.input_of(OUTLINED, tmp_path)
    untrained(tmp_path)
    to_input = structures.input_of(OUTLINED, tmp_path / "none", tmp_path)
    assert to_input.key.startswith(structures.opened(tmp_path.resolve() / model.SEGMENTER).sha256[:8])
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    with pytest.raises(ScanError, match="no brain could be outlined"):
        to_input(replace(scan, facts=scan.facts | {"affine_known": False}))


def test_the_key_for_caches_changes_with_the_code_that_outlines(tmp_path, monkeypatch):
    untrained(tmp_path)
    to_input = structures.input_of(OUTLINED, tmp_path)
    copies = [Path(shutil.copy(file, tmp_path / file.name)) for file in structures.CODE]
    ours = {"bare.py", "masks.py", "normalise.py", "partial_volume.py", "segment.py", "structures.py"}
    assert {file.name for file in copies} == ours | {"segmenter.py"}
    monkeypatch.setattr(structures, "CODE", copies)
    keys = {to_input.key}
    for file in copies:
        with file.open("a") as code:
            code.write("# outlined otherwise\n")
        keys.add(to_input.key)
    assert len(keys) == 1 + len(copies)
