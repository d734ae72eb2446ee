"""Coronal cuts: through the hippocampi from front to back, right on the left, outlined at the edges alone."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from reports import cuts
from reports.style import OUTLINES
from tests.diagnoses import brain_of_boxes
from tests.support import segmentation_of

YELLOW = ImageColor.getrgb(OUTLINES["hippocampus"])


def test_the_cuts_go_from_the_head_of_the_hippocampi_to_their_tail(measured):
    made = cuts.coronal_cuts(measured)
    # They fill y from 80 to 120 evenly, 1 mm a voxel: 85, 50 and 15 % of 40 mm lie behind the cuts.
    assert [cut.ahead for cut in made] == pytest.approx([14, 0, -14], abs=1)
    assert all(cut.voxel == (1.2, 1.0) for cut in made)


def test_right_is_on_the_left(measured):
    for cut in cuts.coronal_cuts(measured):
        columns = cut.grey.shape[1]
        hippocampus = cut.chances["hippocampus"]
        right, left = hippocampus[:, : columns // 2].sum(), hippocampus[:, columns // 2 :].sum()
        assert right / left == pytest.approx(16 / 12, rel=0.02)  # voxels wide
        assert hippocampus.sum(1).argmax() > cut.chances["lateral"].sum(1).argmax()  # and below is below


def test_lines_run_around_a_structure_and_not_over_it(measured):
    made = cuts.coronal_cuts(measured)
    pixels = np.asarray(cuts.cuts_picture(made))
    yellow = (pixels == YELLOW).all(-1)
    scale = cuts.WIDTH / sum(cut.grey.shape[1] * 1.2 for cut in made)  # pixels a mm
    around = 3 * 2 * sum((wide * 1.2 + 10) * scale - cuts.LINE for wide in (16, 12))  # three cuts, both sides
    assert yellow.sum() == pytest.approx(cuts.LINE * around, rel=0.1)
    covered = sum((cut.chances["hippocampus"] > 0.5).sum() * 1.2 for cut in made) * scale**2
    assert yellow.sum() < 0.4 * covered


def test_without_hippocampi_the_cuts_run_through_what_there_is_and_without_outlines_there_are_none(measured):
    classes = brain_of_boxes()
    classes[classes == classes[90, 100, 80]] = 0
    bare = replace(measured, segmentation=segmentation_of(classes))
    assert len(cuts.coronal_cuts(bare)) == 3 and cuts.cuts_png(bare).startswith(b"\x89PNG")
    nothing = replace(measured, segmentation=segmentation_of(np.zeros_like(classes)))
    assert len(cuts.coronal_cuts(nothing)) == 3
    assert cuts.cuts_png(replace(measured, segmentation=None)) is None


def test_the_overview_holds_the_planes_above_the_cuts(measured, found):
    drawn = cuts.overview(measured, found)
    below = cuts.cuts_picture(cuts.coronal_cuts(measured))
    np.testing.assert_array_equal(np.asarray(drawn)[-below.height :], np.asarray(below))
    above = np.asarray(drawn, int)[: -below.height]
    assert (np.ptp(above, axis=2) > 80).any()  # under the map, in colour
    plain = replace(measured, segmentation=None)
    assert cuts.overview(plain, found).height == drawn.height - below.height
