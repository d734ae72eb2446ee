"""Augmentation: pure in its seed, true to geometry, and back on the contract's scale."""

import math

import pytest
import torch
from scipy import ndimage

from data import augment
from data.augment import generator

AIR = -2.0


def head(*size: int) -> torch.Tensor:
    """A blob with texture in air, its foreground scaled to mean 0 and deviation 1."""
    axes = [torch.linspace(-1, 1, n) for n in size]
    grids = torch.meshgrid(*axes, indexing="ij")
    inside = sum(grid.square() for grid in grids) < 0.4
    texture = 3 + torch.sin(6 * grids[0]) + grids[1]
    scaled = (texture - texture[inside].mean()) / texture[inside].std()
    return torch.where(inside, scaled, scaled[inside].min() - 3)[None]


def still(monkeypatch, **kept: float) -> None:
    """No change but those named."""
    for changes in (augment.VOLUME, augment.IMAGE):
        for name in list(changes):
            monkeypatch.setitem(changes, name, kept.get(name, 0))


SAMPLES = {"volume": head(40, 48, 36), "image": head(48, 40), "colour": head(48, 40).repeat(3, 1, 1)}


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("kind", SAMPLES)
def test_the_same_numbers_give_the_same_sample(kind, share):
    x = SAMPLES[kind]
    before = x.clone()
    one, again, later, beside = (
        augment.augment(x, "foreground", generator(*numbers), share)
        for numbers in ((5, 1, 2), (5, 1, 2), (5, 2, 2), (5, 1, 3))
    )
    assert torch.equal(one, again) and torch.equal(x, before)
    assert one.shape == x.shape and one.isfinite().all() and one.dtype == torch.float32
    assert not torch.equal(one, later) and not torch.equal(one, beside) and not torch.equal(one, x)


def test_the_background_is_the_level_of_air():
    x = head(40, 48, 36)
    air = x.min().item()
    assert augment.background(x).item() == pytest.approx(air)
    assert augment.background(torch.cat([x, x + 7])).tolist() == pytest.approx([air, air + 7])


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -3, 1), (-4, 4, 4)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_whole_voxel_shift_is_the_same_both_ways(shift, flip):
    x = torch.rand(1, 12, 14, 10, generator=torch.Generator().manual_seed(0))
    air = torch.tensor([AIR])
    moved = augment._shifted(x.flip(1) if flip else x, list(shift), air)
    through_affine = augment._resample(x, torch.eye(3), list(shift), flip, air)
    expected = ndimage.shift((x.flip(1) if flip else x)[0].numpy(), shift, order=0, cval=AIR)
    torch.testing.assert_close(moved[0], torch.from_numpy(expected))
    torch.testing.assert_close(through_affine, moved, rtol=0, atol=1e-4)


def test_the_affine_agrees_with_scipy():
    x = head(20, 26, 22)
    air = augment.background(x)
    matrix = augment._rotation([0.1, -0.07, 0.12]) / 1.05
    shift = [1.5, -2.0, 0.5]
    ours = augment._resample(x, matrix, shift, False, air)[0].numpy()
    centre = (torch.tensor(x.shape[1:]) - 1).numpy() / 2
    offset = centre - matrix.numpy() @ (centre + shift)
    theirs = ndimage.affine_transform(
        x[0].numpy(), matrix.numpy(), offset, order=1, mode="grid-constant", cval=air.item()
    )
    assert abs(ours - theirs).max() < 1e-3


def test_rotations_keep_lengths_and_turn_by_their_angle():
    turn = augment._rotation([0.3, -0.2, 0.1])
    torch.testing.assert_close(turn @ turn.T, torch.eye(3))
    assert torch.linalg.det(turn).item() == pytest.approx(1)
    about_z = augment._rotation([0, 0, math.pi / 2]) @ torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(about_z, torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_comes_from_outside_is_air(monkeypatch, share):
    still(monkeypatch, shift=4, zoom=0.07, rotation=8)
    x = head(40, 48, 36)
    for index in range(4):
        y = augment.augment(x, "foreground", generator(0, 0, index), share)
        for face in (y[0, 0], y[0, -1], y[0, :, 0], y[0, :, -1], y[0, :, :, 0], y[0, :, :, -1]):
            torch.testing.assert_close(face, torch.full_like(face, x.min().item()), atol=1e-3, rtol=0)


def test_half_of_the_samples_are_mirrored_left_to_right(monkeypatch):
    still(monkeypatch)
    x = torch.zeros(1, 8, 8, 8)
    x[0, 1, 3:5, 3:5] = 1
    seen = [
        augment.augment(x, "stored", generator(0, 0, index), index % 2)[0, :, 4, 4].argmax().item()
        for index in range(40)
    ]
    assert set(seen) == {1, 6} and 10 <= seen.count(6) <= 30


def test_a_changed_contrast_stays_on_the_scale_of_the_foreground(monkeypatch):
    still(monkeypatch, gamma=0.3, bias=0.2)
    x = head(40, 48, 36)
    foreground = x > (x.min() + x[x > x.min()].min()) / 2
    changed = 0
    for index in range(6):
        y = augment.augment(x, "foreground", generator(0, 0, index), 0.0)
        inside = foreground if torch.allclose(y[~foreground], y.min()) else foreground.flip(1)
        assert torch.allclose(y[~inside], y.min(), atol=1e-4)  # air stays even
        assert y[inside].mean().abs() < 0.1 and (y[inside].std() - 1).abs() < 0.1
        changed += not torch.allclose(y, x, atol=0.05) and not torch.allclose(y, x.flip(1), atol=0.05)
    assert changed >= 5


def test_the_bias_field_is_smooth_and_bounded():
    numbers = torch.Generator().manual_seed(0)
    coarse = torch.rand((4, 4, 4), generator=numbers) + 0.5
    whole = augment._field(coarse, (30, 34, 28), (slice(None),) * 3)
    expected = ndimage.zoom(coarse.numpy(), (30 / 4, 34 / 4, 28 / 4), order=1, mode="nearest")  # ends on the ends
    assert whole.shape == (30, 34, 28)
    torch.testing.assert_close(whole, torch.from_numpy(expected), atol=1e-5, rtol=0)
    few = (slice(None, None, 3), slice(None, None, 2), slice(1, 9))
    torch.testing.assert_close(augment._field(coarse, (30, 34, 28), few), whole[few])


def test_noise_has_its_level(monkeypatch):
    still(monkeypatch, noise=0.1)
    x = head(40, 48, 36)
    seen = []
    for index in range(12):
        y = augment.augment(x, "stored", generator(1, 0, index), 0.0)
        seen.append(y[0, :4].std().item())  # of air
    quiet = sum(level < 1e-5 for level in seen)
    assert 2 <= quiet <= 10 and max(seen) <= 0.1 * 1.1


def test_nothing_is_made_of_nothing():
    flat = torch.zeros(1, 8, 8, 8)
    assert torch.equal(augment.augment(flat, "foreground", generator(0, 0, 0), 1.0), flat)
    assert torch.equal(augment.augment(flat[0], "unit", generator(0, 0, 0)), flat[0])
