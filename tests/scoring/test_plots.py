"""The plots: pictures of the size that cards are made for, whatever classes and epochs occur."""

import io

import numpy as np
import pytest
from PIL import Image

from scoring import plots
from tests.scored import STUDY

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])
ROWS = [{"confidence": 0.35, "accuracy": 0.5, "count": 2}, {"confidence": 0.95, "accuracy": 1.0, "count": 7}]
EPOCH = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.2, "train_accuracy": 0.4}
PLOTS = {
    "confusion": lambda: plots.confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 5]]), STUDY),
    "every class": lambda: plots.roc(np.array([0, 1, 2]), P, STUDY),
    "a class that nobody has": lambda: plots.roc(np.array([0, 1, 1]), P, STUDY),
    "reliability": lambda: plots.reliability_plot(ROWS),
}


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))  # (rows, columns, 3)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_square_picture_with_something_on_it(name):
    assert opened(PLOTS[name]()).shape == (495, 550, 3)  # 5 × 4.5 inches of 110 dots
    assert opened(PLOTS[name]()).std() > 5


def test_curves_bear_measures_that_came_later():
    later = EPOCH | {"epoch": 2, "val_accuracy": 0.5, "val_correlation": 0.6}
    assert opened(plots.curves([EPOCH, later])).shape == (352, 880, 3)
    assert (opened(plots.curves([EPOCH, later])) != opened(plots.curves([EPOCH, EPOCH | {"epoch": 2}]))).any()


def test_the_darkest_cell_is_where_all_of_a_class_are():
    plain = opened(plots.confusion(np.diag([4, 4, 4]), STUDY)).astype(int)
    blue = (plain[..., 2] - plain[..., 0] > 60).sum()
    spread = opened(plots.confusion(np.ones((3, 3), int), STUDY)).astype(int)
    assert blue > (spread[..., 2] - spread[..., 0] > 60).sum()
