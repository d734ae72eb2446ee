"""Laying a brain on the mean one: a known move is found, what was moved lies where it did, no brain is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import model
from diagnosis.anatomy import normalise, segment, structures
from diagnosis.anatomy.segment import MEAN, SHAPE
from learning import segmentation
from networks.segmenter import CLASSES, Segmenter
from scans.prepare import Prepared
from scans.resample import resample
from studies import HEAD
from tests import support

MIDDLE = np.array(SHAPE) / 2
# Balls in voxels from the middle, the later ones drawn over the earlier: class, place, half axes.
BRAIN = (
    ("white", (0, 0, 10), (52, 72, 55)),
    ("cerebellum", (0, -38, -38), (40, 26, 22)),
    ("stem", (0, -14, -48), (12, 12, 30)),
    ("lateral", (14, 0, 15), (8, 24, 14)),
    ("lateral", (-14, 0, 15), (8, 24, 14)),
)


def brain(move: np.ndarray | None = None) -> segment.Segmentation:
    """The balls, each voxel taken from where `move` (3×3 about the middle, then a shift) says."""
    move = np.eye(4) if move is None else move
    at = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1) - MIDDLE
    at = (at - move[:3, 3]) @ np.linalg.inv(move[:3, :3]).T
    classes = np.zeros(SHAPE, np.uint8)
    for name, middle, axes in BRAIN:
        classes[(((at - middle) / axes) ** 2).sum(-1) < 1] = CLASSES.index(name)
    return support.segmentation_of(classes)


@pytest.fixture(scope="module")
def mean():
    found = brain()
    return normalise.shape_of(structures.brain_of(found), found)


def moved(nod: float, size: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", (nod, 4, -5), degrees=True).as_matrix() * size
    move[:3, 3] = shift
    return move


MOVES = [moved(15, (0.9, 0.95, 0.85), (3, -6, 8)), moved(-12, (1.05, 0.9, 1.0), (-5, 4, -7))]


@pytest.mark.parametrize("move", MOVES)
def test_a_known_move_is_found(mean, move):
    found = brain(move)
    fitted = normalise.fitted(normalise.shape_of(structures.brain_of(found), found), mean)
    corners = np.array([(x, y, z) for x in (-40, 40) for y in (-60, 60) for z in (-40, 50)])
    expected = corners @ move[:3, :3].T + move[:3, 3]
    there = (corners + MIDDLE) @ fitted[:3, :3].T + fitted[:3, 3] - MIDDLE
    assert np.abs(there - expected).max() < 1.5  # voxels; shapes are compared by cells of four


@pytest.mark.parametrize("move", MOVES)
def test_what_was_moved_lies_where_it_did_and_says_how_it_lay(mean, move):
    values = torch.zeros(1, *HEAD.shape)
    head = Prepared(values, np.eye(4), values[0] > 0, np.eye(4), [], {})
    still, laid = (structures.structures(head, brain(each), mean) for each in (None, move))
    off = (still.tensor - laid.tensor).abs()
    assert float(off.mean()) < 0.1 * float(still.tensor.abs().mean())
    apart = structures.structures(head, brain(move)).tensor - still.tensor
    assert float(off.mean()) < 0.2 * float(apart.abs().mean())
    corner = np.array(segment.START) + MIDDLE
    point = np.array([20.0, -30.0, 25.0])
    assert laid.to_scan[:3] @ [*(point + corner), 1] == pytest.approx(
        move[:3, :3] @ point + move[:3, 3] + corner, abs=1.0
    )
    assert laid.affine == pytest.approx(laid.to_scan)


def test_what_is_no_brain_is_not_laid(mean):
    assert normalise.fitted(torch.zeros_like(mean), mean) is None
    rod = torch.zeros_like(mean)
    rod[0, 17:19, 5:45, 20:22] = 1
    assert normalise.fitted(rod, mean) is None


def test_the_template_s_outlines_become_the_mean_head(tmp_path, monkeypatch):
    """The network is made to outline the balls; a file then brings their shape, and is known by another hash."""
    path = segmentation.write(tmp_path / model.SEGMENTER, Segmenter(), {"title": "", "calibration": {}})
    before = segment.load(path, "cpu")
    with pytest.raises(model.WeightsError, match="brings no mean head"):
        structures.mean_of(replace(HEAD, scale="normalised-structures"), before)
    assert structures.mean_of(replace(HEAD, scale="structures"), before) is None
    found = brain()
    monkeypatch.setattr(segmentation, "segment", lambda weights, prepared: found)
    assert segmentation.add_mean(path)
    after = segment.load(path, "cpu")
    expected = normalise.shape_of(structures.brain_of(found), found)
    assert (after.mean - expected).abs().max() <= 0.5 / 255 + 1e-6
    assert after.sha256 != before.sha256 and after.header == before.header
    for one, other in zip(before.network.parameters(), after.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert structures.mean_of(replace(HEAD, scale="normalised-structures"), after) is after.mean


def test_where_nothing_is_outlined_the_file_stays_as_it_was(tmp_path, monkeypatch):
    path = segmentation.write(tmp_path / model.SEGMENTER, Segmenter(), {"title": "", "calibration": {}})
    before = path.read_bytes()
    nothing = support.segmentation_of(np.zeros(SHAPE, np.uint8))
    monkeypatch.setattr(segmentation, "segment", lambda weights, prepared: nothing)
    assert not segmentation.add_mean(path) and path.read_bytes() == before


@pytest.mark.parametrize(
    "mean",
    [torch.zeros(2, 36, 52, 44, dtype=torch.uint8), torch.ones(2, 36, 52, 44), torch.ones(1, 9, 9, 9).byte()],
    ids=["empty", "no bytes", "another grid"],
)
def test_a_file_with_a_damaged_mean_head_is_refused(tmp_path, mean):
    path = segmentation.write(tmp_path / model.SEGMENTER, Segmenter(), {"title": "", "calibration": {}})
    header, (state, _) = segment.load(path, "cpu").header, model.read_tensors(path)
    model.write(path, {f"network.{key}": value for key, value in state.items()} | {f"extras.{MEAN}": mean}, header)
    with pytest.raises(model.WeightsError, match=r"extras\.mean is no mean head of 2×36×52×44 bytes"):
        segment.load(path, "cpu")


@pytest.mark.parametrize("away", [(0, 0, 0), (3, -2, 5), (40, 0, 0)], ids=["there", "a way off", "out of sight"])
@pytest.mark.parametrize("turned", [0, 25])
def test_what_is_mostly_nothing_is_moved_as_anything_else_is(turned, away):
    values = torch.zeros(24, 20, 22)
    values[5:11, 9:16, 8:12] = torch.rand(6, 7, 4)
    matrix = support.turn(turned, 0) @ np.diag([0.8, 1.1, 0.9, 1])
    matrix[:3, 3] += away
    expected = resample(values, matrix, tuple(values.shape), smooth=False)
    assert torch.allclose(normalise.moved(values, matrix), expected, atol=1e-5)
    assert bool(expected.any()) == (away[0] < 40)
    assert not normalise.moved(values * 0, matrix).any()
