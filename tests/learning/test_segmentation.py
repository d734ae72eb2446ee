"""Learning to segment: the loss, a run that stops, the calibration of volumes."""

import numpy as np
import pytest
import torch

from learning import segmentation
from learning.segmentation import Row, Settings
from networks.segmenter import Segmenter
from simulation import labelled
from tests.label_maps import save_map


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    save_map(folder, "map_0")
    save_map(folder, "map_1")
    return folder


def train(folder, state, check=None):
    return segmentation.train(
        [labelled.read_map(path) for path in labelled.find_maps(folder)],
        [],
        Settings(steps=4),
        state,
        torch.device("cpu"),
        workers=0,
        say=lambda text: None,
        check=check,
        check_every=2,
        keep_every=2,
        shape=(64, 64, 64),
        whole=(64, 80, 64),
    )[0]


class Stop(Exception):
    pass


def test_a_run_that_stops_goes_on_as_if_it_had_not(folder, tmp_path):
    def stop(network):
        raise Stop

    straight = train(folder, tmp_path / "straight.state")
    with pytest.raises(Stop):
        train(folder, tmp_path / "stopped.state", stop)
    torch.manual_seed(5)
    again = train(folder, tmp_path / "stopped.state")
    for one, two in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_learning_lowers_the_loss():
    torch.manual_seed(1)
    network = Segmenter(widths=(8, 8))
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    image = torch.rand(1, 16, 16, 16) * 0.1
    image[:, 8:] += 1
    classes = (image > 0.5).to(torch.uint8) * 3
    kept = torch.ones(16**3 // 8, dtype=torch.bool)
    losses = [segmentation.take_step(network, optimiser, image, classes, torch.ones(11), kept) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_of_a_sure_and_right_answer_is_nothing():
    truth = torch.randint(0, 11, (8, 50), generator=torch.Generator().manual_seed(0))
    scores = torch.nn.functional.one_hot(truth, 11).permute(0, 2, 1) * 50.0
    assert segmentation.loss_of(scores, truth, torch.ones(11)) == pytest.approx(0, abs=1e-4)


def test_the_overlap_counts_until_half_of_the_fall_of_the_rate():
    settings = segmentation.Settings(steps=1000, fall_from=0.6)
    assert [settings.overlap(step) for step in (0, 600, 700, 800, 999)] == pytest.approx([1, 1, 0.5, 0, 0])
    truth, scores = torch.ones(8, 5, dtype=torch.long), torch.zeros(8, 11, 5)
    entropy = segmentation.loss_of(scores, truth, torch.ones(11), 0.0)
    assert float(entropy) == pytest.approx(np.log(11))
    missed = 1 - (2 * 40 / 11 + 20) / (40 + 40 / 11 + 20)  # a share of 1/11 in each of 40 voxels
    assert float(segmentation.loss_of(scores, truth, torch.ones(11), 0.5) - entropy) == pytest.approx(missed / 2)


def test_calibration_brings_the_median_to_the_truth_and_holds_nine_of_ten():
    rows = [Row("h", "third", 0.8, 1.0 + 0.01 * k, 2.0, 1.5) for k in range(11)]
    found = segmentation.calibration_of(rows)["third"]
    assert found["factor"] == pytest.approx(1.05 / 2)  # the median truth over what was found
    # Of eleven truths 0 to 0.05 off the median the tenth is 0.05 off; the reach of 1.5 shrinks with the factor.
    assert found["doubt"] == pytest.approx(0.05 / (0.525 ** (2 / 3) * 1.5), abs=0.001)
