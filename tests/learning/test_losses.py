"""The loss and the measures of an epoch: by hand, and by what a constant answer must give."""

import math

import pytest
import torch

from learning.losses import Loss, correlation, score_of, validation
from tests.tiny_cohorts import IMAGE, VOLUME

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, -1.0, 2.0]])
TRUTH = torch.tensor([0, 1, 1, 2])
PLAIN = Loss(torch.ones(3), torch.tensor([0.0, 0.5, 1.0]), 0.0)


def test_the_measures_of_an_epoch():
    row = validation(VOLUME, PLAIN, LOGITS, TRUTH)
    assert row["val_accuracy"] == 0.75
    assert row["val_balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    # class 0 beats one of its rivals and ties with another of three; class 1 ties once in four; class 2 wins
    assert row["val_roc_auc"] == pytest.approx((2.5 / 3 + 3.5 / 4 + 1) / 3)
    wrong, last = math.log(math.exp(2) + 2), math.log(math.exp(2) + 1 + math.exp(-1)) - 2
    assert row["val_loss"] == pytest.approx((2 * (wrong - 2) + wrong + last) / 4, rel=1e-6)
    assert 0 < row["val_correlation"] < 1
    assert "val_correlation" not in validation(IMAGE, PLAIN, LOGITS, TRUTH)


def test_a_class_alone_defines_no_ranking():
    row = validation(VOLUME, PLAIN, LOGITS[:1], TRUTH[:1])
    assert math.isnan(row["val_roc_auc"]) and math.isnan(row["val_correlation"])
    assert math.isnan(correlation(torch.ones(3), torch.arange(3.0)))
    assert correlation(torch.arange(3.0), -torch.arange(3.0)) == pytest.approx(-1)


def test_the_lower_score_is_the_better_and_none_the_worst():
    row = {"val_loss": 0.5, "val_accuracy": 0.75, "val_roc_auc": math.nan}
    assert score_of(row, "loss") == 0.5
    assert score_of(row, "accuracy") == -0.75
    assert score_of(row, "roc_auc") == math.inf


def test_a_case_s_own_severity_stands_for_that_of_its_class():
    """Where both are the same, so is the loss; where they differ, only the error changes."""
    loss = Loss(torch.ones(3), torch.tensor([0.0, 0.5, 1.0]), 2.0)
    own = torch.tensor([0.0, 0.4, 0.7, 1.0])
    both = torch.stack([TRUTH.float(), torch.tensor([0.0, 0.5, 0.5, 1.0])], 1)
    assert loss(LOGITS, both) == pytest.approx(float(loss(LOGITS, TRUTH)))
    expected = LOGITS.softmax(1) @ torch.tensor([0.0, 0.5, 1.0])
    off = (expected - own).square().mean() - (expected - both[:, 1]).square().mean()
    both[:, 1] = own
    assert float(loss(LOGITS, both) - loss(LOGITS, TRUTH)) == pytest.approx(2 * float(off), abs=1e-6)
    assert loss.measured(LOGITS, both) == loss.measured(LOGITS, TRUTH) == 0.75
    rows = [validation(VOLUME, PLAIN, LOGITS, truth) for truth in (TRUTH, both)]
    assert rows[0] == rows[1]
