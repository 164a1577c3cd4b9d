"""Schedules against their formulas."""

import math

import pytest
import torch

from equilidar.training.schedules import constant, cosine, one_cycle


def _trace(make, steps, **arguments):
    weights = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weights], lr=0.2)
    schedule = make(optimizer, total_steps=steps, **arguments)
    rates, betas = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        schedule.step() if len(rates) < steps else None
    return rates, betas


def test_cosine_with_warmup():
    rates, _ = _trace(cosine, 20, warmup=0.25, final=0.1)
    assert rates[:5] == pytest.approx([0.2 * (i + 1) / 5 for i in range(5)])
    for i in range(5, 20):
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (i - 5) / 15)) / 2
        assert rates[i] == pytest.approx(0.2 * expected)


def test_one_cycle_starts_low_peaks_and_ends_lower():
    rates, betas = _trace(one_cycle, 101, warmup=0.4, div_factor=10.0, final_div_factor=1000.0)
    assert rates[0] == pytest.approx(0.02) and rates[-1] == pytest.approx(0.02 / 1000)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.2, rel=1e-3) and peak in (39, 40)
    assert betas[0] == pytest.approx(0.95) and betas[peak] == pytest.approx(0.85, abs=1e-3)
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_constant():
    assert set(_trace(constant, 4)[0]) == {0.2}


@pytest.mark.parametrize(("make", "warmup"), [(cosine, 1.0), (cosine, -0.1), (one_cycle, 0.0), (one_cycle, 1.0)])
def test_impossible_warmup(make, warmup):
    with pytest.raises(ValueError, match="warmup"):
        _trace(make, 4, warmup=warmup)
