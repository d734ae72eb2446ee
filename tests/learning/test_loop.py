"""The training loop: order, schedules and loss by hand, an early end."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import train
from data.cases import Case
from learning import loop, losses
from learning.run import open_run
from learning.settings import Settings
from networks.base import in_memory_format
from tests.small_networks import SMALL, small
from tests.tiny_cohorts import VOLUME, arguments, cohort, state


def test_patience_ends_early(tmp_path):
    data, out = cohort(tmp_path / "data", VOLUME), tmp_path / "run"
    more = ("--epochs", "9", "--lr", "0", "--patience", "2", "--schedule", "constant")
    assert train.main(arguments(VOLUME, data, out, *more)) == 0
    assert len(state(out)["history"]) == 3  # the first is the best; two more are not better


def test_a_loss_that_is_no_number_ends_in_words(tmp_path, capsys):
    data = cohort(tmp_path / "data", VOLUME)
    more = ("--lr", "1e30", "--clip", "0", "--schedule", "constant", "--optimiser", "sgd")
    assert train.main(arguments(VOLUME, data, tmp_path / "run", *more)) == 1
    assert "use a smaller --lr" in capsys.readouterr().err


def test_the_order_is_a_function_of_seed_and_epoch():
    one = loop.epoch_order(range(10), 3, 5, 4)
    assert one == loop.epoch_order(range(10), 3, 5, 4)
    assert one != loop.epoch_order(range(10), 3, 6, 4) and one != loop.epoch_order(range(10), 4, 5, 4)
    assert len(one) == 12 and set(one) == set(range(10))  # whole steps, nobody left out
    assert len(loop.epoch_order(range(3), 0, 0, 8)) == 8


@pytest.mark.parametrize("schedule", loop.SCHEDULES)
def test_schedules_rise_to_the_full_rate_and_fall(schedule):
    rates = [loop.rate_share(schedule, i / 1000) for i in range(1001)]
    assert max(rates) == pytest.approx(1) and min(rates) > 0
    if schedule != "constant":
        peak = rates.index(max(rates))
        assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[0] < 0.11 and rates[-1] <= 0.01


def test_the_loss_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    loss = losses.Loss(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 1.0]), 4.0)
    # expected severities .125 + .25 = .375 and .05 + .8 = .85; true 0.5 (class 1) and 1 (class 2)
    entropy = (2 * -np.log(0.25) + 3 * -np.log(0.8)) / 2
    squares = ((0.375 - 0.5) ** 2 + (0.85 - 1) ** 2) / 2
    assert float(loss(logits, torch.tensor([1, 2]))) == pytest.approx(entropy + 4 * squares, rel=1e-5)


def test_class_weights_have_mean_one_over_the_cases():
    codes = ["low"] * 6 + ["mid"] * 2
    cases = [Case(Path(f"{i}"), code, str(i), "train") for i, code in enumerate(codes)]
    weights = loop.loss_of(VOLUME, cases, Settings("tiny", "data", class_weights=True), torch.device("cpu"))
    assert weights.class_weights[:2].tolist() == pytest.approx([8 / 12, 8 / 4])


def test_only_the_ends_come_first(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    run, _ = open_run(train.parse(arguments(VOLUME, data, tmp_path / "run", "--ends-first", "1")))
    cases = loop.cases_of(run.cases, "train")
    assert {cases[i].label for i in run.indices(0)} == {"low", "high"}
    assert {cases[i].label for i in run.indices(1)} == {"low", "mid", "high"}


def test_gradients_of_a_grey_scan_need_no_copy_among_processes():
    """torch warns ("Grad strides do not match …") where one does; here a warning is an error."""
    network, x = small(), torch.randn(2, 1, *SMALL)
    in_memory_format(network, torch.channels_last_3d)
    plain = copy.deepcopy(network)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        together = loop.laid_out(network)
        for one in (torch.nn.parallel.DistributedDataParallel(together), plain):
            one.eval()(x.to(memory_format=torch.channels_last_3d)).square().sum().backward()
    finally:
        dist.destroy_process_group()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
