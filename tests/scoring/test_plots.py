"""The plots: pictures of the size that cards are made for, whatever classes and epochs occur."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
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


def opened(drawn: bytes | Figure) -> np.ndarray:
    png = drawn if isinstance(drawn, bytes) else plots.png(drawn)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))  # (rows, columns, 3)


def test_the_curve_tells_its_area_and_carries_a_band():
    truth, subjects = np.array([0, 1, 2] * 10), [str(i) for i in range(30)]
    p = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    areas = {"roc_auc.AD": {"value": 0.5, "low": 0.25, "high": 0.75}, "roc_auc.CN": {"value": None}}
    figure = plots.roc(truth, p, STUDY, subjects, areas)
    (axes,) = figure.axes
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == ["AD, AUC 0.50 (0.25–0.75)", "CN, AUC not defined", "MCI", "chance"]
    assert len(axes.collections) == 3  # a band each
    for band in axes.collections:
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() >= 0 and heights.max() <= 1


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_the_same_lines_for_print(name):
    first, second = (plots.svg(PLOTS[name]()) for _ in range(2))
    assert first == second and first.startswith(b"<?xml") and b"<dc:date>" not in first


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
