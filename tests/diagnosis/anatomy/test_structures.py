"""Only the brain: what is kept, how it is scaled, on which grid, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import model
from diagnosis.anatomy import brain
from diagnosis.anatomy.segment import SHAPE, START
from networks.segmenter import CLASSES
from scans.prepare import Prepared, prepare
from scans.read import read
from scans.scan import ScanError
from studies import HEAD
from tests import heads, support
from tests.label_maps import untrained

BRAIN = replace(HEAD, scale="brain")


def cube_in_a_skull() -> tuple[Prepared, np.ndarray]:
    """White matter of brightness 5 above no signal, grey matter of 3, a scalp of 9 about it."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[40:120, 40:160, 40:140] = CLASSES.index("grey")
    classes[50:110, 50:150, 50:130] = CLASSES.index("white")
    classes[70:90, 90:110, 80:100] = CLASSES.index("lateral")
    values = torch.full(HEAD.shape, -2.0)
    box = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))
    values[box] += torch.tensor([0.0, 9.0, 3.0, 5.0, 1.0])[
        np.select([classes == CLASSES.index(name) for name in ("grey", "white", "lateral")], [2, 3, 4], 1)
    ]
    whole = Prepared(values[None], np.eye(4), values > 0, np.eye(4), [], {})
    return whole, classes


def test_the_brain_is_kept_with_its_ventricles_and_white_matter_is_1():
    head, classes = cube_in_a_skull()
    only = brain.only_brain(head, support.segmentation_of(classes))
    values = only.tensor[0][tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))]
    for name, level in (("white", 1.0), ("grey", 0.6), ("lateral", 0.2)):
        assert values[torch.from_numpy(classes == CLASSES.index(name))].unique().tolist() == pytest.approx([level])
    assert not values[torch.from_numpy(classes == 0)].any()
    assert (only.foreground == (only.tensor[0] > 0)).all()


def test_where_no_brain_is_there_is_none():
    head, classes = cube_in_a_skull()
    assert brain.only_brain(head, support.segmentation_of(classes * 0)) is None
    assert brain.only_brain(head, support.segmentation_of((classes > 0).astype(np.uint8))) is None  # fluid alone


def test_a_smaller_grid_shows_the_same_brain(tmp_path):
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    whole = prepare(scan, BRAIN)
    masked = replace(whole, tensor=whole.tensor - whole.tensor.min())
    small = replace(BRAIN, shape=(86, 136, 116), anchor=(0.5, 0.5, 0.55))
    cut = brain.on_grid_of(small, scan, masked)
    to_whole = np.linalg.inv(masked.to_scan) @ cut.to_scan
    x, y, z = np.round(to_whole[:3, 3]).astype(int)
    same = masked.tensor[0, x : x + 86, y : y + 136, z : z + 116]
    assert float((cut.tensor[0] - same).abs().mean()) < 0.05 * float(same.mean())
    assert brain.on_grid_of(BRAIN, scan, masked) is masked


def test_the_scale_brain_needs_the_segmenter_and_a_scan_that_says_how_it_lies(tmp_path):
    assert brain.input_of(HEAD, tmp_path) is None
    with pytest.raises(model.WeightsError, match=r"segmenter\.safetensors is missing"):
        brain.input_of(BRAIN, tmp_path)
    untrained(tmp_path)
    to_input = brain.input_of(BRAIN, tmp_path / "none", tmp_path)
    assert to_input.key == brain.opened(tmp_path.resolve() / model.SEGMENTER).sha256[:8]
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    with pytest.raises(ScanError, match="no brain was found"):
        to_input(replace(scan, facts=scan.facts | {"affine_known": False}))
