"""Segmenting: cubes and their voxels, labelled heads and samples, learning that can stop, files, label maps."""

from dataclasses import replace
from itertools import product

import nibabel as nib
import numpy as np
import pytest
import torch

import model
from diagnosis import segment as segmenting
from learning import segmentation
from learning.segmentation import Row, Settings
from networks.segmenter import CLASSES, Segmenter, from_cubes, to_cubes
from scans.prepare import prepare
from scans.read import read
from simulation import labelled
from simulation.labelled import NAMES
from studies import HEAD
from tests import heads, support

SMALL = (48, 48, 48)


def map_of_blocks():
    """FreeSurfer's numbers on 1 mm: a scalp around fluid around white matter, with hippocampi and ventricles."""
    numbers = np.zeros((80, 80, 80), np.int32)
    for number, reach in ((511, 36), (515, 33), (24, 30), (3, 27), (2, 22)):
        numbers[40 - reach : 40 + reach, 40 - reach : 40 + reach, 40 - reach : 40 + reach] = number
    numbers[28:36, 32:48, 40:50], numbers[44:52, 32:48, 40:50] = 4, 43
    numbers[24:32, 30:46, 26:32], numbers[48:56, 30:46, 26:32] = 17, 53
    return numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for k in range(2):
        nib.save(nib.Nifti1Image(map_of_blocks(), np.eye(4)), folder / f"map_{k}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def head(folder):
    return labelled.read_map(folder / "map_0.nii.gz")


# ---- the network


def test_cubes_hold_the_eight_voxels_of_a_corner_and_go_back():
    volume = torch.arange(4 * 6 * 8).view(1, 4, 6, 8)
    cubes = to_cubes(volume)
    assert cubes.shape == (1, 2, 3, 4, 8)
    corner = [volume[0, 2 + i, 4 + j, 6 + k] for i, j, k in product((0, 1), repeat=3)]
    assert cubes[0, 1, 2, 3].tolist() == corner
    assert torch.equal(from_cubes(cubes), volume)


def test_the_segmenter_answers_every_voxel_whatever_the_brightness_and_stays_small():
    torch.manual_seed(0)
    network = Segmenter().eval()
    assert sum(each.numel() for each in network.parameters()) <= 1_000_000
    volume = torch.rand(1, 32, 48, 32)
    with torch.inference_mode():
        scores, brighter = network(volume), network(3 * volume)
    assert scores.shape == (1, len(CLASSES), 32, 48, 32)
    # bfloat16 keeps 8 bits, and is what processors that have it use
    assert (brighter - scores).abs().max() < 0.1 * scores.std()


# ---- labelled heads


def test_a_label_map_becomes_tissues_and_classes(head):
    classes = labelled.CLASS_OF[head.tissues.long()]
    count = lambda name: int((classes == CLASSES.index(name)).sum())  # noqa: E731
    assert count("hippocampus") == 2 * 8 * 16 * 6
    assert count("lateral") == 2 * 8 * 16 * 10
    assert count("grey") == 54**3 - 44**3
    assert head.lobes == pytest.approx((39.5, 37.5, 28.5))


@pytest.mark.parametrize(
    ("number", "spacing", "said"),
    [(999, 1, "label 999 is unknown; known are FreeSurfer's"), (2, 2, "voxels of 2 × 2 × 2 mm; resample")],
)
def test_a_map_that_cannot_be_learned_from_is_refused_in_words(tmp_path, number, spacing, said):
    numbers = map_of_blocks()
    numbers[40, 40, 40] = number
    nib.save(nib.Nifti1Image(numbers, np.diag([spacing] * 3 + [1])), tmp_path / "odd.nii.gz")
    with pytest.raises(ValueError, match=said):
        labelled.read_map(tmp_path / "odd.nii.gz")


def test_a_map_without_hippocampi_and_a_folder_without_maps_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 2, np.int32), np.eye(4)), tmp_path / "white.nii.gz")
    with pytest.raises(ValueError, match="no voxel is numbered 17 or 53"):
        labelled.read_map(tmp_path / "white.nii.gz")
    with pytest.raises(ValueError, match=r"no \.nii or \.nii\.gz label map"):
        labelled.find_maps(tmp_path / "nowhere")


def test_a_sample_without_bending_shows_the_map_itself(head):
    centre = (np.array(head.low) + np.array(head.high)) / 2
    drawn = labelled.draw(head, (1, 2), (64, 80, 80), strength=0.0, t1_share=1.0, centre=centre)
    cell = np.prod(HEAD.spacing)
    assert (drawn.classes == CLASSES.index("white")).sum() * cell == pytest.approx(
        44**3 - 2 * 8 * 16 * 16, rel=0.05
    )
    of = lambda name: drawn.image[drawn.classes == CLASSES.index(name)].mean()  # noqa: E731
    assert of("lateral") < of("grey") < of("white")  # as T1 has them
    again = labelled.draw(head, (1, 2), (64, 80, 80), strength=0.0, t1_share=1.0, centre=centre)
    assert torch.equal(drawn.image, again.image)


def test_samples_are_finite_and_differ_by_seed(head):
    one, two = (labelled.draw(head, (5, k), SMALL) for k in range(2))
    assert torch.isfinite(one.image).all()
    assert one.image.min() >= 0
    assert not torch.equal(one.classes, two.classes)


def test_every_tissue_is_learned_as_a_class_and_numbers_stand_once():
    numbers = [number for known, _, _ in labelled.TISSUES.values() for number in known]
    assert len(numbers) == len(set(numbers))
    assert {name for _, name, _ in labelled.TISSUES.values()} == set(CLASSES)
    assert labelled.OUTER[NAMES.index("bone")]


# ---- learning


def train(folder, state, check=None):
    return segmentation.train(
        [labelled.read_map(path) for path in labelled.find_maps(folder)],
        [],
        Settings(steps=4),
        state,
        torch.device("cpu"),
        workers=0,
        say=lambda text: None,
        check=check,
        check_every=2,
        keep_every=2,
        shape=(64, 64, 64),
    )[0]


class Stop(Exception):
    pass


def test_a_run_that_stops_goes_on_as_if_it_had_not(folder, tmp_path):
    def stop(network):
        raise Stop

    straight = train(folder, tmp_path / "straight.state")
    with pytest.raises(Stop):
        train(folder, tmp_path / "stopped.state", stop)
    torch.manual_seed(5)
    again = train(folder, tmp_path / "stopped.state")
    for one, two in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_learning_lowers_the_loss():
    torch.manual_seed(1)
    network = Segmenter(widths=(8, 8))
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    image = torch.rand(1, 16, 16, 16) * 0.1
    image[:, 8:] += 1
    classes = (image > 0.5).to(torch.uint8) * 3
    kept = torch.ones(16**3 // 8, dtype=torch.bool)
    losses = [segmentation.take_step(network, optimiser, image, classes, torch.ones(11), kept) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_of_a_sure_and_right_answer_is_nothing():
    truth = torch.randint(0, 11, (8, 50), generator=torch.Generator().manual_seed(0))
    scores = torch.nn.functional.one_hot(truth, 11).permute(0, 2, 1) * 50.0
    assert segmentation.loss_of(scores, truth, torch.ones(11)) == pytest.approx(0, abs=1e-4)


def test_calibration_brings_the_median_to_the_truth_and_holds_nine_of_ten():
    rows = [Row("h", "third", 0.8, 1.0 + 0.01 * k, 2.0, 1.9, 2.1) for k in range(11)]
    found = segmentation.calibration_of(rows)["third"]
    assert found["factor"] == pytest.approx(1.05 / 2)  # the median truth over what was found
    # The truth 0.01 · 4 off the median needs 0.04 / 0.525 of the found scale, against a reach of 0.1.
    assert found["widen"] == pytest.approx(np.quantile(np.repeat(np.arange(6), [1, 2, 2, 2, 2, 2]), 0.9)
                                           * 0.01 / 0.525 / 0.1, abs=0.01)  # fmt: skip


# ---- the weights file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / model.SEGMENTER
    segmentation.write(path, Segmenter(), {"title": "untrained", "calibration": {}})
    return path


def test_the_file_is_small_opens_and_is_no_study(weights):
    opened = segmenting.load(weights, "cpu")
    assert weights.stat().st_size <= 2_000_000
    assert opened.header["kind"] == "segmentation"
    assert model.list_weights(weights.parent) == []
    with pytest.raises(model.WeightsError, match="holds weights for segmentation, not for a study"):
        model.load(weights, "cpu")


def test_a_study_s_weights_are_no_segmenter_and_other_contracts_are_refused(weights, tmp_path):
    study = support.ROOT / "weights" / "alzheimers.ClassificationModel3D.safetensors"
    with pytest.raises(model.WeightsError, match="not a segmenter"):
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


def test_what_lies_apart_from_the_brain_does_not_count():
    mask = np.zeros((20, 20, 20), bool)
    mask[2:10, 2:10, 2:10] = True
    mask[15:17, 15:17, 15:17] = True
    assert segmenting._largest(mask).sum() == 8**3


def test_input_has_no_signal_at_zero(tmp_path):
    voxels, affine = heads.head(3.0)
    scan = read(support.save_nifti(tmp_path / "head.nii.gz", voxels.astype(np.int16), affine))
    prepared = prepare(scan, HEAD)
    given = segmenting.as_input(prepared)
    assert given.min() == 0
    assert torch.allclose(given, segmenting.as_input(replace(prepared, tensor=prepared.tensor + 3)), atol=1e-4)
