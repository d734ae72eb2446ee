"""Pictures: read as stored, by their content, turned as their camera says, bounded in size."""

import numpy as np
import pytest
from PIL import Image

from scans import pictures as picture_module
from scans.pictures import FORMATS
from scans.read import read
from tests.volumes import refusal


@pytest.mark.parametrize(
    "suffix, mode",
    [
        (".png", "L"),
        (".png", "RGB"),
        (".jpg", "L"),
        (".jpeg", "RGB"),
        (".png", "RGBA"),
        (".png", "P"),
        (".png", "I;16"),
        (".png", "1"),
        (".bmp", "L"),
        (".bmp", "RGB"),
        (".gif", "P"),
    ],
)
def test_pictures(tmp_path, suffix, mode):
    pixels = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)
    deep = pixels.astype(np.uint16)
    picture = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / f"slice{suffix}")
    scan = read(tmp_path / f"slice{suffix}")
    assert scan.kind == "image" and scan.voxels.shape == ((20, 30) if mode[0] in "LI1" else (20, 30, 3))
    if mode != "1":
        grey = scan.voxels if scan.voxels.ndim == 2 else scan.voxels[..., 0]
        assert np.abs(grey.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_read_by_its_content_whatever_its_name_says(tmp_path, form):
    pixels = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slice.jpg", form)
    scan = read(tmp_path / "slice.jpg")
    assert scan.facts["format"] == form
    assert np.abs(scan.voxels.reshape(40, 60, -1)[..., 0].astype(int) - pixels).max() <= 6


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter
    Image.fromarray(np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)).save(
        tmp_path / "slice.jpg", exif=exif
    )
    assert read(tmp_path / "slice.jpg").voxels.shape == (30, 20)


def test_a_blank_picture(tmp_path):
    Image.new("L", (30, 30), 9).save(tmp_path / "slice.png")
    assert refusal(tmp_path / "slice.png").code == "constant"


def test_a_picture_of_too_many_pixels(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 9, (50, 60)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "slice.png")
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 2000)
    error = refusal(tmp_path / "slice.png")
    assert error.code == "too-large" and "50×60" in str(error)
