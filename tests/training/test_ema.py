"""The target network follows, and nothing else moves it."""

import math

import pytest
import torch
from torch import nn

from equilidar.training.ema import Momentum, TargetNetwork, WeightAverage, follow


def _network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_momentum_follows_its_formula():
    momentum = Momentum(0.99)
    for step in (0, 3, 10):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * step / 10) + 1) / 2
        assert momentum.at(step, 10) == pytest.approx(expected)
    assert momentum.at(0, 10) == pytest.approx(0.99) and momentum.at(10, 10) == momentum.at(11, 10) == 1.0
    assert {Momentum(0.9, 0.9).at(step, 5) for step in range(6)} == {0.9}


def test_momentum_that_falls_is_an_error():
    with pytest.raises(ValueError, match="base <= final"):
        Momentum(0.999, 0.9)


def test_follow_averages_parameters_and_copies_buffers():
    online = _network()
    target = TargetNetwork(online)
    before = [parameter.clone() for parameter in target.parameters()]
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(torch.randn_like(parameter, generator=None))
        online(torch.randn(8, 3))
    follow([(online, target.network)], 0.9)
    for old, current, new in zip(before, online.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * current)
    for current, new in zip(online.buffers(), target.buffers(), strict=True):
        assert torch.equal(new, current)


def test_momentum_one_moves_no_parameter_and_zero_copies():
    online, other = _network(), TargetNetwork(_network())
    before = [parameter.clone() for parameter in other.parameters()]
    follow([(online, other.network)], 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))
    follow([(online, other.network)], 0.0)
    assert all(torch.equal(a, b) for a, b in zip(online.parameters(), other.parameters(), strict=True))


def test_target_stays_in_eval_mode_without_gradient():
    holder = nn.ModuleDict({"target": TargetNetwork(_network())})
    holder.train()
    assert not any(module.training for module in holder["target"].modules())
    assert not any(parameter.requires_grad for parameter in holder.parameters())


def test_target_shares_nothing_with_the_online_network():
    online = _network()
    target = TargetNetwork(online)
    with torch.no_grad():
        online[0].weight.zero_()
    assert target.network[0].weight.abs().sum() > 0


def test_weight_average_forgets_its_start_first():
    average = WeightAverage(0.999)
    assert average.at(0) == pytest.approx(0.1) and average.at(90) == pytest.approx(0.91)
    assert average.at(10**6) == 0.999
    assert WeightAverage().decay == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_average(decay):
    with pytest.raises(ValueError, match=r"ema\.decay must be at least 0"):
        WeightAverage(decay)
