"""Passes with dropout: what they repeat, that they repeat it the same, and how their spread behaves."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import model
from networks import dropout
from networks.forward import Forward
from studies import STUDIES

INPUTS = {
    "ClassificationModel3D": (1, 80, 79, 84),
    "SliceCNN": (3, 100, 100),
    "SmallCNN": (3, 64, 64),
    "vgg11_bn": (3, 64, 64),
    "VGGFeatures": (3, 224, 224),
}
ARGUMENTS = {"ClassificationModel3D": {"shape": (80, 79, 84)}}
BARE = {"resnet18", "densenet121", "AttentionPyramid"}


def network(name: str, seed: int = 1, **arguments) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model.NETWORKS[name](3, **ARGUMENTS.get(name, {}), **arguments)
    return made.eval().requires_grad_(False)


def forward(made: nn.Module) -> Forward:
    return Forward(made)


def scan(name: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, *INPUTS[name], generator=torch.Generator().manual_seed(seed))


def test_every_network_is_known_to_drop_or_not():
    for study in STUDIES.values():
        assert set(study.networks) <= set(INPUTS) | BARE
    assert set(model.NETWORKS) == set(INPUTS) | BARE


@pytest.mark.parametrize("name", sorted(BARE))
def test_a_network_without_dropout_has_no_passes(name):
    assert forward(network(name)).passes is None


@pytest.mark.parametrize("name", INPUTS)
def test_base_and_answer_are_the_plain_network(name):
    made, x = network(name), scan(name)
    with torch.inference_mode():
        expected = made.head(made.features(x)), made.features(x)
    ours = forward(made)
    for found in (ours(x), ours.answer(ours.base(x))):
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).abs().max()) < 1e-4


@pytest.mark.parametrize("name", INPUTS)
def test_passes_differ_from_each_other_and_not_from_run_to_run(name):
    made, x = network(name), scan(name)
    base = forward(made).base(x)
    torch.manual_seed(11)
    once = forward(made).passes(base)
    torch.manual_seed(12)
    state = torch.get_rng_state()
    again = forward(made).passes(base)
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are touched
    assert once.shape == (dropout.PASSES, 3) and torch.equal(once, again)
    assert (once.std(0) > 0).all() and len(once.unique(dim=0)) == dropout.PASSES
    assert not made.training and not any(module.training for module in made.modules())


@pytest.mark.parametrize("name", INPUTS)
def test_the_weights_are_shared_not_copied(name):
    made = network(name)
    passes = dropout.Passes(made)
    own = {value.data_ptr() for value in made.state_dict().values()}
    assert {value.data_ptr() for value in passes.network.state_dict().values()} <= own
    assert any(isinstance(module, nn.Dropout) for module in made.modules())  # the original is as it was


def test_dropping_is_fair():
    drop = dropout.Drop(0.4, seed=3)
    found = drop(torch.ones(50, 2000))
    share = float((found == 0).float().mean())
    assert share == pytest.approx(0.4, abs=4 * (0.24 / 100_000) ** 0.5)  # four deviations of a count
    assert float(found.max()) == pytest.approx(1 / 0.6)
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(drop(torch.ones(50, 2000)), found)


def test_the_mean_over_many_passes_is_that_of_torch_dropout():
    made, x = network("ClassificationModel3D"), scan("ClassificationModel3D")
    base = forward(made).base(x)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = made.train().head(made.top(base.expand(4000, *base.shape[1:])))
        made.eval()
    ours = forward(made).passes(base, 4000)
    error = (ours.var(0) / 4000 + theirs.var(0) / 4000).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.1)


def test_a_linear_head_answers_on_average_as_without_dropout():
    """Behind the last hidden layer all is linear: there the mean over passes is the plain answer."""
    made, x = network("SliceCNN", dropout=0.5), scan("SliceCNN")
    ours = forward(made)
    base = ours.base(x)
    passes = ours.passes(base, 4000)
    assert ((passes.mean(0) - ours.answer(base)[0][0]).abs() < 4 * passes.std(0) / 4000**0.5).all()


@pytest.mark.parametrize("name", ["ClassificationModel3D", "SliceCNN", "VGGFeatures"])
def test_zero_dropout_gives_zero_width(name):
    made, x = network(name, dropout=0.0), scan(name)
    ours = forward(made)
    chances = model.probabilities(ours.passes(ours.base(x)))
    point = model.probabilities(ours(x)[0])[0]
    for (low, high), value in zip(dropout.intervals(chances), point, strict=True):
        assert high - low < 1e-6 and low == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", INPUTS)
def test_intervals_hold_the_point_estimate_mostly(name):
    held = []
    for seed in range(2 if "vgg" in name.lower() else 6):  # to draw VGG's weights takes a second
        ours = forward(network(name, seed))
        base = ours.base(scan(name, seed))
        ends = dropout.intervals(model.probabilities(ours.passes(base)))
        point = model.probabilities(ours.answer(base)[0])[0]
        assert all(0 <= low <= high <= 1 for low, high in ends)
        held += [low <= value <= high for (low, high), value in zip(ends, point, strict=True)]
    assert np.mean(held) >= 0.8


def test_intervals_are_the_fifth_and_ninety_fifth_percentile():
    values = np.linspace(0, 1, 21)[:, None] * [1.0, 0.5]  # 0, 0.05 … 1 and half of it
    assert dropout.intervals(values) == [pytest.approx((0.05, 0.95)), pytest.approx((0.025, 0.475))]


def test_threads_get_the_same_passes():
    ours = forward(network("ClassificationModel3D"))
    bases = [ours.base(scan("ClassificationModel3D", seed)) for seed in range(4)]
    alone = [forward(network("ClassificationModel3D")).passes(base) for base in bases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ours.passes, bases))
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
