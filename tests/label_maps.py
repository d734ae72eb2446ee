"""A label map of blocks, numbered as FreeSurfer does, and an untrained segmenter's file."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

import model
from learning import segmentation
from networks.segmenter import Segmenter


def map_of_blocks():
    """FreeSurfer's numbers on 1 mm: a scalp around fluid around white matter, with hippocampi and ventricles."""
    numbers = np.zeros((80, 80, 80), np.int32)
    for number, reach in ((511, 36), (515, 33), (24, 30), (3, 27), (2, 22)):
        numbers[40 - reach : 40 + reach, 40 - reach : 40 + reach, 40 - reach : 40 + reach] = number
    numbers[28:36, 32:48, 40:50], numbers[44:52, 32:48, 40:50] = 4, 43
    numbers[24:32, 30:46, 26:32], numbers[48:56, 30:46, 26:32] = 17, 53
    return numbers


def save_map(folder: Path, name: str = "map_0", numbers: np.ndarray | None = None, spacing: float = 1.0) -> Path:
    numbers = map_of_blocks() if numbers is None else numbers
    nib.save(nib.Nifti1Image(numbers, np.diag([spacing] * 3 + [1])), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def untrained(folder: Path) -> Path:
    torch.manual_seed(3)
    return segmentation.write(folder / model.SEGMENTER, Segmenter(), {"title": "untrained", "calibration": {}})
