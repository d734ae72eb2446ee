"""Segmenting: the weights file, label maps on the scan, left and right, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import model
from diagnosis.anatomy import segment as segmenting
from learning import segmentation
from networks.segmenter import CLASSES, Segmenter, to_cubes
from scans.prepare import prepare
from scans.read import read
from studies import HEAD, PUBLISHED, STUDIES
from tests import heads, support
from tests.label_maps import untrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("weights"))


def test_the_file_is_small_opens_and_is_no_study(weights):
    opened = segmenting.load(weights, "cpu")
    assert weights.stat().st_size <= 2_000_000
    assert opened.header["kind"] == "segmentation"
    assert model.list_weights(weights.parent) == []
    with pytest.raises(model.WeightsError, match="holds weights for segmentation, not for a study"):
        model.load(weights, "cpu")


def test_a_study_s_weights_are_no_segmenter_and_other_contracts_are_refused(weights, tmp_path):
    study = support.ROOT / "weights" / "alzheimers.ClassificationModel3D.safetensors"
    with pytest.raises(model.WeightsError, match=r"not a segmenter; give a file that train_segmenter\.py wrote"):
        segmenting.load(study, "cpu")
    other = segmentation.write(tmp_path / "other.safetensors", Segmenter(), {"contract_hash": "0123"})
    with pytest.raises(model.WeightsError, match="input contract 0123"):
        segmenting.load(other, "cpu")


def test_a_scan_gets_a_label_map_on_its_own_voxels(weights, tmp_path):
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine, "LIA"))
    prepared = prepare(scan, HEAD)
    found = segmenting.segment(segmenting.load(weights, "cpu"), prepared)
    assert found.classes.shape == segmenting.SHAPE
    assert segmenting.on_scan(found, prepared, scan).shape == scan.voxels.shape


def test_a_brain_without_a_skull_is_segmented_again_in_a_scalp(weights, tmp_path, monkeypatch):
    voxels, affine = heads.head(3.0)
    prepared = prepare(read(support.save_nifti(tmp_path / "a.nii", voxels.astype(np.int16), affine, "RAS")), HEAD)
    network, seen, answer = segmenting.load(weights, "cpu"), [], segmenting.answer
    clothed = segmenting.as_input(prepared).flip(1)
    monkeypatch.setattr(segmenting, "in_a_scalp", lambda volume, classes: clothed)
    monkeypatch.setattr(segmenting, "answer", lambda net, volume: seen.append(volume) or answer(net, volume))
    found = segmenting.segment(network, prepared)
    assert len(seen) == 2 and seen[1] is clothed
    assert np.array_equal(found.classes, answer(network.network, clothed)[2])
    assert not np.array_equal(found.classes, answer(network.network, seen[0])[2])


def test_known_classes_come_back_on_the_scan_s_own_voxels(tmp_path):
    """A ball of white matter with a hippocampus left of the plane, laid into the box, read on a turned scan."""
    voxels, affine = heads.head(2.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine, "LIA"))
    prepared = prepare(scan, HEAD)
    found = support.segmentation_of(ball_with_hippocampus())
    numbers = segmenting.on_scan(found, prepared, scan)
    to_world = prepared.affine @ np.block([[np.eye(3), np.array(segmenting.START)[:, None]], [0, 0, 0, 1]])
    for number, name, left in ((17, "hippocampus", True), (41, "white", False)):
        there = np.argwhere((found.classes == CLASSES.index(name)) & (found.left == left))
        here = np.argwhere(numbers == number)
        middle = scan.affine[:3, :3] @ here.mean(0) + scan.affine[:3, 3]
        assert middle == pytest.approx(to_world[:3, :3] @ there.mean(0) + to_world[:3, 3], abs=1.0)
        assert len(here) * 8 == pytest.approx(len(there) * 1.2, rel=0.1)
    assert set(np.unique(numbers)) == {0, 2, 41, 17}


def test_a_contract_that_scales_otherwise_fits_and_one_that_places_otherwise_does_not():
    assert segmenting.fits(HEAD) and segmenting.fits(replace(HEAD, scale="stored"))
    assert not segmenting.fits(PUBLISHED) and not segmenting.fits(replace(HEAD, spacing=(1.0, 1.0, 1.0)))
    assert not segmenting.fits(STUDIES["covid-ct"].contract)


def ball_with_hippocampus():
    x, y, z = np.indices(segmenting.SHAPE)
    classes = np.zeros(segmenting.SHAPE, np.uint8)
    classes[((x - 72) * 1.2) ** 2 + (y - 100) ** 2 + (z - 80) ** 2 < 60**2] = CLASSES.index("white")
    classes[40:56, 90:110, 60:72] = CLASSES.index("hippocampus")
    return classes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensor": torch.zeros(1, 8, 8, 8)}, "grid of 8×8×8 voxels"),
        ({"notes": ["no-affine"]}, "says nothing of how the head lies"),
    ],
)
def test_what_cannot_be_segmented_is_refused_in_words(weights, tmp_path, change, said):
    voxels, affine = heads.head(4.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    with pytest.raises(ValueError, match=said):
        segmenting.segment(segmenting.load(weights, "cpu"), replace(prepare(scan, HEAD), **change))


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.08, -0.06)])
def test_the_plane_between_the_hemispheres_follows_the_head(tilt):
    x, y, z = np.indices((144, 208, 176))
    middle = 70 + tilt[0] * (y - 100) + tilt[1] * (z - 80)
    classes = np.zeros(x.shape, np.uint8)
    inside = ((x - middle) / 50) ** 2 + ((y - 100) / 75) ** 2 + ((z - 80) / 55) ** 2 < 1
    classes[inside] = CLASSES.index("grey")
    plane = segmenting.between_hemispheres(classes)
    assert plane[1:] == pytest.approx(tilt, abs=0.01)
    assert plane @ (1, 100, 80) == pytest.approx(70, abs=0.7)


def test_what_lies_apart_from_the_brain_or_hangs_on_by_a_thread_does_not_count():
    mask = np.zeros((60, 40, 40), bool)
    mask[8:28, 8:28, 8:28] = True
    mask[28:40, 15:18, 15:18] = True  # a bridge of three cubes to
    mask[40:56, 10:24, 10:24] = True  # a smaller piece
    kept = segmenting.around_the_brain(mask)
    assert kept[8:28, 8:28, 8:28].mean() > 0.99
    assert kept[4, 18, 18] and not kept[3, 18, 18]
    assert not kept[40:].any()
    assert not segmenting.around_the_brain(np.zeros((4, 4, 4), bool)).any()


def test_input_has_no_signal_at_zero(tmp_path):
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    prepared = prepare(scan, HEAD)
    given = segmenting.as_input(prepared)
    assert given.min() == 0
    assert torch.allclose(given, segmenting.as_input(replace(prepared, tensor=prepared.tensor + 3)), atol=1e-4)


def test_left_of_the_cubes_is_left_of_the_voxels():
    found = support.segmentation_of(ball_with_hippocampus(), plane=(70.0, 0.05, -0.03))
    cubes = to_cubes(torch.from_numpy(found.left)[None]).flatten(0, 3)[found.cubes].T
    assert (cubes == found.left_in_cubes()).float().mean() > 0.9999
