"""Labelled heads: maps read or refused, samples drawn from them."""

import numpy as np
import pytest
import torch

from networks.segmenter import CLASSES
from simulation import labelled
from simulation.labelled import NAMES
from studies import HEAD
from tests.label_maps import map_of_blocks, save_map

SMALL = (48, 48, 48)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return labelled.read_map(save_map(tmp_path_factory.mktemp("maps")))


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
    with pytest.raises(ValueError, match=said):
        labelled.read_map(save_map(tmp_path, "odd", numbers, spacing))


def test_a_map_without_hippocampi_and_a_folder_without_maps_are_refused(tmp_path):
    white = save_map(tmp_path, "white", np.full((20, 20, 20), 2, np.int32))
    with pytest.raises(ValueError, match="no voxel is numbered 17 or 53"):
        labelled.read_map(white)
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


@pytest.mark.parametrize(("name", "amount", "grows"), [("lateral", 1.5, True), ("hippocampus", -1.5, False)])
def test_one_structure_grows_or_shrinks_and_the_others_stay(head, monkeypatch, name, amount, grows):
    def counts(mm):
        table = {each: (row[0], *((mm, mm) if each == name else (0, 0))) for each, row in labelled.GROWING.items()}
        monkeypatch.setattr(labelled, "GROWING", table)
        monkeypatch.setattr(labelled, "GROWN_SHARE", 1.0)
        still = labelled.draw(head, (4, 2), (64, 64, 64), centre=np.full(3, 38.0))
        return torch.bincount(still.classes.flatten().long(), minlength=len(CLASSES))

    monkeypatch.setattr(labelled, "waves", lambda shape, cell, channels, generator: torch.zeros(channels, *shape))
    monkeypatch.setattr(labelled, "_turn", lambda angles: np.diag([1.0, 1.0, 1.0]))
    before, after = counts(0.0), counts(amount)
    ratio = (after / before.clamp(min=1))[CLASSES.index(name)]
    assert ratio > 1.2 if grows else ratio < 0.8
    assert 0.9 < (after / before)[CLASSES.index("white")] < 1.1
