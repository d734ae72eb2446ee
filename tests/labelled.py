"""Small labelled scans on disk, and cases without any."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from studies import STUDIES, Contract, Label, Study

VOLUME = replace(
    STUDIES["alzheimers"],
    contract=Contract(
        kind="volume", shape=(12, 14, 10), spacing=(2.0, 2.0, 2.0), place="head", anchor=(0.5, 0.5, 0.5)
    ),
)
PICTURE = Study(
    key="spots",
    title="Spots",
    question="Is there a spot?",
    labels=(Label("no", "none"), Label("yes", "a spot")),
    contract=Contract(kind="image", shape=(16, 16), place="squeeze", scale="unit"),
    network="any",
    networks=("any",),
    use="Tests.",
)


def volume(path: Path, seed: int = 0, bad: bool = False) -> Path:
    """A bright ball in noise; a bad one is cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, z = np.indices((14, 16, 12)) - np.array([7, 8, 6])[:, None, None, None]
    ball = 100.0 * (x * x + y * y + z * z < 25) + np.random.default_rng(seed).random((14, 16, 12)) * 20
    nibabel.save(nibabel.Nifti1Image(ball.astype(np.float32), np.diag([2, 2, 2, 1.0])), path)
    if bad:
        path.write_bytes(path.read_bytes()[:400])
    return path


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20), np.uint8)).save(path)
    return path


def empty(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8-sig")
    return path
