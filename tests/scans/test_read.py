"""The one way to read a file: which reader takes it, and what is said of a file that none can."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from scans.read import IMAGES, safe_name
from tests.heads import save
from tests.volumes import AFFINE, numbers, refusal


def test_missing(tmp_path):
    error = refusal(tmp_path / "gone.nii.gz")
    assert error.code == "missing" and "gone.nii.gz: no such file" in str(error)


def test_empty(tmp_path):
    (tmp_path / "head.nii.gz").touch()
    error = refusal(tmp_path / "head.nii.gz")
    assert error.code == "empty" and "0 bytes" in str(error)


@pytest.mark.parametrize("name", ["notes.txt", "head", "head.gz", "head.hdr", ""])
def test_unknown_type(name):
    error = refusal(b"something", name)
    assert error.code == "unknown-type" and ".nii.gz" in str(error)


@pytest.mark.parametrize(
    "suffix, other, words",
    [
        (".nii.gz", ".nii", "not gzip-compressed but an uncompressed NIfTI"),
        (".nii", ".nii.gz", "a gzip file"),
        (".nii", ".png", "a PNG picture"),
        (".nii.gz", ".png", "a PNG picture"),
        (".png", ".nii", "an uncompressed NIfTI"),
        (".jpg", ".nii.gz", "a gzip file"),
        (".mgh", ".png", "a PNG picture"),
        (".mgz", ".nii.gz", "no MGH volume"),
        (".zip", ".nii.gz", "not a zip but a gzip file"),
        (".dcm", ".png", "a PNG picture"),
    ],
)
def test_not_what_its_suffix_says(tmp_path, suffix, other, words):
    path = tmp_path / f"real{other}"
    if other == ".png":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)).save(path)
    else:
        save(path, numbers(), AFFINE)
    error = refusal(path.read_bytes(), f"head{suffix}")
    assert error.code == "not-what-it-says" and words in str(error) and f"head{suffix}" in str(error)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh", *IMAGES])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    path = tmp_path / f"head{suffix}"
    if suffix in IMAGES:
        Image.fromarray(noise[0]).save(path)
    else:
        nibabel.save((nibabel.MGHImage if ".mg" in suffix else nibabel.Nifti1Image)(noise, np.eye(4)), path)
    data = path.read_bytes()
    assert refusal(data[: int(share * len(data))], path.name).code == "truncated"


@pytest.mark.parametrize(
    "name, safe",
    [
        ("../../etc/passwd.nii", "passwd.nii"),
        ("C:\\scans\\head.nii.gz", "head.nii.gz"),
        ("a<b>.nii", "a_b_.nii"),
        ("x" * 300 + ".nii.gz", "x" * 73 + ".nii.gz"),
        ("..", "scan"),
        ("", "scan"),
        ("Größe 1.nii", "Größe 1.nii"),
        ("a\x00b\n.nii", "a_b_.nii"),
    ],
)
def test_safe_names(name, safe):
    assert safe_name(name) == safe
