"""Preparing: one head, however it was stored, comes out the same, whole and the right way round; and back."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from PIL import Image
from scipy.ndimage import affine_transform, zoom

from scans import prepare as preparing
from scans.prepare import BRIGHTEST, restore
from scans.read import read
from scans.scan import Scan, ScanError
from studies import HEAD, PUBLISHED, Contract
from tests.heads import head, reorder, save
from tests.support import ROOT

SMALL = replace(HEAD, shape=(84, 128, 128), spacing=(2.4, 2.0, 2.0))  # the same grid, coarser
ORDERS = [codes for triple in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*triple)]
T1 = sorted((ROOT.parent / "shared/data/t1").glob("*.nii.gz"))


@pytest.fixture(scope="module")
def phantom():
    return head(2.0)


@pytest.fixture(scope="module")
def plain(phantom):
    return prepare(*phantom)


def prepare(voxels, affine, contract=SMALL, **facts):
    return preparing.prepare(Scan(voxels, affine, "volume", facts), contract)


def difference(one, other):
    """The greatest difference, as a share of the first one's range."""
    span = one.tensor.max() - one.tensor.min()
    return float((one.tensor - other.tensor).abs().max() / span)


def correlation(one, other):
    return float(np.corrcoef(one.tensor.flatten(), other.tensor.flatten())[0, 1])


def at(prepared, point):
    """The prepared brightness at a place in the world (mm)."""
    index = np.round(apply_affine(np.linalg.inv(prepared.affine), point)).astype(int)
    return float(prepared.tensor[0][tuple(index)])


def test_the_grid_is_the_contracts(plain):
    assert plain.tensor.shape == (1, *SMALL.shape) and plain.tensor.dtype == torch.float32
    assert plain.foreground.shape == SMALL.shape and plain.foreground.dtype == torch.bool
    np.testing.assert_allclose(plain.affine[:3, :3], np.diag(SMALL.spacing))
    assert plain.notes == []


def test_the_brain_lies_in_the_middle_of_the_grid(plain):
    middle = apply_affine(plain.affine, (np.array(SMALL.shape) - 1) / 2)
    assert np.abs(middle - (0, -2, 2)).max() < 25  # the phantom's brain is centred at (0, -2, 2)
    brain = [
        (sign * h * (axis == 0), -2 + sign * h * (axis == 1), 2 + sign * h * (axis == 2))
        for axis, h in enumerate((67, 84, 70))
        for sign in (-1, 1)
    ]
    inside = apply_affine(np.linalg.inv(plain.affine), brain)
    assert (inside > 0).all() and (inside < np.array(SMALL.shape) - 1).all()


def test_it_stands_upright_and_the_left_stays_left(plain):
    """The mark lies at the left, in front, above the middle; its mirror images are plain white matter."""
    mark = at(plain, (-40, 40, 15))
    assert mark > at(plain, (40, 40, 15)) + 0.5 and mark > at(plain, (-40, -44, 15)) + 0.5
    x, y, z = np.unravel_index(int(plain.tensor[0].argmax()), SMALL.shape)
    centre = apply_affine(np.linalg.inv(plain.affine), (0, -2, 0))
    assert x < centre[0] and y > centre[1] and z > centre[2]


def test_intensities_are_scaled_by_the_brain(plain):
    middle = plain.tensor[0][plain.foreground]
    assert plain.tensor.min() == pytest.approx(at(plain, (0, 0, 95)), abs=1e-3)  # air is the least
    assert -2 < float(middle.mean()) < 2
    assert at(plain, (0, 60, 0)) > at(plain, (0, 77, 0)) > at(plain, (14, 5, 8))  # white, grey, ventricle


@pytest.mark.parametrize("codes", ORDERS, ids="".join)
def test_all_48_axis_orders_give_the_same_tensor(phantom, plain, codes):
    assert difference(plain, prepare(*reorder(*phantom, codes))) <= 0.01


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("voxels", [60, 31])
def test_an_empty_border_changes_nothing(phantom, plain, axis, side, voxels):
    array, affine = phantom
    border = np.zeros((3, 2), int)
    border[axis, side] = voxels
    padded = affine.copy()
    padded[:3, 3] -= affine[:3, :3] @ border[:, 0]
    other = prepare(np.pad(array, border), padded)
    assert difference(plain, other) <= (0.01 if voxels == 60 else 0.1) and correlation(plain, other) > 0.999


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64", ">i2", ">f4"])
def test_the_data_type_changes_nothing(plain, phantom, tmp_path, dtype):
    voxels, affine = phantom
    stored = read(save(tmp_path / "head.nii.gz", np.round(voxels).astype(dtype), affine))
    whole = prepare(np.round(voxels), affine)
    assert difference(whole, preparing.prepare(stored, SMALL)) <= 0.001
    assert difference(plain, preparing.prepare(stored, SMALL)) <= 0.01


@pytest.mark.parametrize("factor, shift", [(7, 100), (0.01, 0), (1, -500), (300, 3000)])
def test_gain_and_offset_change_nothing(plain, phantom, factor, shift):
    voxels, affine = phantom
    assert difference(plain, prepare(voxels * factor + shift, affine)) <= 0.01


def test_a_few_very_bright_voxels_change_nothing(plain, phantom):
    voxels, affine = phantom[0].copy(), phantom[1]
    voxels[40:43, 60, 60] = 1e6
    other = prepare(voxels, affine)
    assert float(other.tensor.max()) <= BRIGHTEST
    assert correlation(plain, other) > 0.98
    assert at(other, (0, 60, 0)) == pytest.approx(at(plain, (0, 60, 0)), abs=0.05)


def test_finer_voxels_give_the_same_picture():
    one, other = (head(step, field=(150, 190, 170), stripped=True) for step in (1.0, 0.8))
    assert correlation(prepare(*one), prepare(*other)) >= 0.98


def test_coarse_slices_are_interpolated(plain):
    assert correlation(plain, prepare(*head((1.0, 1.0, 6.0)))) > 0.93


def test_a_slanted_scan_goes_through_its_affine(plain, phantom):
    """The phantom sampled on a grid turned by 12° about two axes comes out as the straight one does."""
    voxels, affine = phantom
    a = np.radians(12)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    )
    slanted = np.eye(4)
    slanted[:3, :3] = turn * 2
    size = np.array([140, 150, 150])
    slanted[:3, 3] = (0, 0, -20) - slanted[:3, :3] @ ((size - 1) / 2)
    through = np.linalg.inv(affine) @ slanted
    turned = affine_transform(voxels, through[:3, :3], through[:3, 3], tuple(size), order=1)
    other = prepare(turned, slanted)
    assert other.notes == ["oblique"]
    assert correlation(plain, other) > 0.97
    assert at(other, (-40, 40, 15)) > at(other, (40, 40, 15)) + 0.5


def test_a_low_neck_and_a_big_field_of_view_do_not_move_the_head(plain):
    low = prepare(*head(2.0, field=(300, 300, 340)))
    moved = (low.affine - plain.affine)[:3, 3]
    assert np.abs(moved).max() < 6


def test_a_bare_brain_lands_where_the_whole_head_lands(plain):
    bare = prepare(*head(2.0, stripped=True))
    assert np.abs((bare.affine - plain.affine)[:3, 3]).max() < 12
    white = at(plain, (0, 60, 0)) - at(plain, (14, 5, 8))  # the brain's own contrast
    assert at(bare, (0, 60, 0)) - at(bare, (14, 5, 8)) == pytest.approx(white, rel=0.25)


def test_noise_in_the_air_does_not_move_the_head(plain, phantom):
    voxels, affine = phantom
    noise = np.random.default_rng(0).normal(0, 8, (2, *voxels.shape))
    other = prepare(np.hypot(voxels + noise[0], noise[1]).astype(np.float32), affine)
    assert np.abs((other.affine - plain.affine)[:3, 3]).max() < 3


def test_outside_the_scan_reads_as_air(phantom):
    """A brain cut off by its field of view has no bright or dark edge beyond it."""
    voxels, affine = phantom
    cut = prepare(
        voxels[:, :, 40:] + 100, affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 40], [0, 0, 0, 1]])
    )
    below = int(np.floor(apply_affine(np.linalg.inv(cut.affine), (0, 0, affine[2, 3] + 76))[2]))
    assert (cut.tensor[0, :, :, :below] == cut.tensor.min()).all()


def test_a_scan_without_an_affine_fills_the_grid(phantom):
    filled = prepare(*phantom, affine_known=False)
    assert filled.notes == ["no-affine"]
    np.testing.assert_allclose(
        apply_affine(filled.to_scan, np.array(SMALL.shape) - 1), np.array(phantom[0].shape) - 1
    )


def test_the_published_way_stretches_what_is_stored(phantom):
    contract = replace(PUBLISHED, shape=(50, 60, 70), planes=48)
    prepared = prepare(*reorder(*phantom, "PSR"), contract)
    stored = reorder(*phantom, "PSR")[0]
    expected = zoom(stored, np.array(contract.shape) / stored.shape, order=1)[:48]
    assert prepared.tensor.shape == (1, 48, 60, 70)
    np.testing.assert_allclose(prepared.tensor[0], expected, atol=0.05)


@pytest.mark.parametrize("codes", ["RAS", "PSR", "LIA"])
def test_a_marked_point_goes_there_and_back(phantom, codes):
    voxels, affine = reorder(*phantom, codes)
    scan = Scan(voxels, affine, "volume", {})
    prepared = preparing.prepare(scan, SMALL)
    for point in [(-40, 40, 15), (0, -60, 20), (30, 0, -40)]:
        voxel = apply_affine(np.linalg.inv(affine), point)
        index = np.round(apply_affine(np.linalg.inv(prepared.to_scan), voxel)).astype(int)
        marked = torch.zeros(SMALL.shape)
        marked[tuple(index)] = 1
        there = restore(marked, prepared, scan)
        assert there.shape == voxels.shape and there.dtype == np.float32
        weight = there / there.sum()
        back = [float((weight * at).sum()) for at in np.indices(there.shape)]
        assert np.abs(np.array(back) - apply_affine(prepared.to_scan, index)).max() < 0.5
        assert np.abs(np.array(back) - voxel).max() <= 1


def test_a_coarse_scan_reads_a_fine_map_at_its_own_voxels():
    """Nothing is blurred on the way back: the scan's voxel (2, 3, 4) lies on the grid's (6, 9, 12)."""
    scan = Scan(np.zeros((10, 10, 10), np.float32), np.eye(4), "volume", {})
    fine = np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    marked = torch.zeros(30, 30, 30)
    marked[6, 9, 12] = 1
    prepared = preparing.Prepared(marked[None], fine, marked > 0, fine, [], {})
    expected = np.zeros((10, 10, 10))
    expected[2, 3, 4] = 1
    np.testing.assert_allclose(restore(marked, prepared, scan), expected, atol=1e-6)


def test_a_restored_head_is_the_head(phantom, plain):
    scan = Scan(*phantom, "volume", {})
    restored = restore(plain.tensor[0], plain, scan)
    seen = restored != 0
    assert np.corrcoef(restored[seen], phantom[0][seen])[0, 1] > 0.97


def test_the_full_grid_and_the_published_one(phantom):
    prepared = prepare(*phantom, HEAD)
    assert prepared.tensor.shape == (1, 166, 256, 256) and torch.isfinite(prepared.tensor).all()
    assert prepare(*phantom, PUBLISHED).tensor.shape == (1, 160, 256, 256)


# People's heads stay out of the repository; where they lie beside it, they are prepared like the phantoms.
@pytest.mark.skipif(not T1, reason="the real heads in ../shared/data/t1 are not on this machine")
@pytest.mark.parametrize("path", T1, ids=lambda path: path.name)
def test_real_heads_come_out_upright_and_whole(path):
    prepared = preparing.prepare(read(path), SMALL)
    mask = prepared.foreground.numpy()
    across, along, up = (mask.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
    top = np.flatnonzero(up).max()
    assert 128 * 0.6 < top < 126  # the vertex is on the grid, in its upper part
    assert not along[[0, -1]].all() and 40 < across.sum() <= 84 and 50 < along.sum() <= 128
    values = prepared.tensor[0].numpy()
    middle = values.shape[0] // 2
    mirrored = np.corrcoef(values[middle - 30 : middle].ravel(), values[-middle : -middle + 30][::-1].ravel())[
        0, 1
    ]
    assert mirrored > 0.6  # left and right mirror one another only about the sagittal plane


# --- pictures ------------------------------------------------------------------------------------------------


def picture(pixels, tmp_path, contract):
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    scan = read(tmp_path / "picture.png")
    return scan, preparing.prepare(scan, contract)


RAMP = np.add.outer(np.arange(120), np.arange(200)).astype(np.uint8) // 2


def test_a_picture_is_cropped_to_its_centre(tmp_path):
    _, prepared = picture(RAMP, tmp_path, Contract("image", (60, 60), place="crop", scale="unit"))
    assert prepared.tensor.shape == (1, 60, 60)
    np.testing.assert_allclose(apply_affine(prepared.to_scan, [29.5, 29.5, 0])[:2], [59.5, 99.5])
    for row, column in [(10, 10), (50, 30)]:
        y, x = apply_affine(prepared.to_scan, [row, column, 0])[:2]
        assert float(prepared.tensor[0, row, column]) * 255 == pytest.approx((y + x) / 2, abs=1.5)


def test_a_picture_is_squeezed_and_scaled_as_imagenet(tmp_path):
    colour = np.stack([RAMP, RAMP // 2, RAMP // 4], -1)
    contract = Contract("image", (40, 80), channels=3, place="squeeze", scale="imagenet")
    _, prepared = picture(colour, tmp_path, contract)
    assert prepared.tensor.shape == (3, 40, 80)
    y, x = apply_affine(prepared.to_scan, [20, 40, 0])[:2]
    expected = ((y + x) / 2 / 255 - 0.485) / 0.229
    assert float(prepared.tensor[0, 20, 40]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("place", ["crop", "squeeze"])
def test_a_grey_picture_fills_three_channels_and_a_map_returns_to_it(tmp_path, place):
    scan, prepared = picture(RAMP, tmp_path, Contract("image", (60, 60), channels=3, place=place, scale="unit"))
    assert torch.equal(prepared.tensor[0], prepared.tensor[2])
    marked = torch.zeros(60, 60)
    marked[20, 40] = 1
    there = restore(marked, prepared, scan)
    assert there.shape == (120, 200)
    weight = there / there.sum()
    back = [float((weight * index).sum()) for index in np.indices(there.shape)]
    np.testing.assert_allclose(back, apply_affine(prepared.to_scan, [20, 40, 0])[:2], atol=0.5)


def test_a_volume_and_a_picture_are_not_mixed_up(phantom, tmp_path):
    with pytest.raises(ScanError, match="this study reads an image") as refused:
        prepare(*phantom, Contract("image", (60, 60)))
    assert refused.value.code == "wrong-kind" and ".png" in str(refused.value)
    with pytest.raises(ScanError, match="zip of its DICOM series"):
        picture(RAMP, tmp_path, HEAD)
