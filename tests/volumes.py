"""Small volumes of known numbers, and the words of a refusal."""

import numpy as np
import pytest

from scans.read import read
from scans.scan import ScanError

SHAPE = (9, 10, 11)
AFFINE = np.array([[0, 0, 2.0, -30], [-1.5, 0, 0, 40], [0, 1.2, 0, -20], [0, 0, 0, 1]])


def numbers(dtype="int16"):
    return (np.arange(np.prod(SHAPE)) % 120).reshape(SHAPE).astype(dtype)


def refusal(file, name=None, **options):
    with pytest.raises(ScanError) as refused:
        read(file, name, **options)
    return refused.value
