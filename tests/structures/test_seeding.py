import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures.seeding import random_keys, scramble, uniform


def test_scramble_is_splitmix64():
    # The reference generator's state advances by the constant step and its output is the finaliser of the new state:
    # scramble(0), scramble(step) are its first two outputs for seed 0 (published test vector).
    step = torch.tensor([0x9E3779B97F4A7C15 - 2**64])
    outputs = [value % 2**64 for value in torch.cat([scramble(step * 0), scramble(step)]).tolist()]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_uniform_fills_the_unit_interval_evenly():
    draws = uniform(torch.arange(20_000), 3, 2)
    counts = torch.histc(draws[:, 0], 20, 0, 1)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 45.3  # 99.95 % point of 19 degrees of freedom
    assert draws.min() >= 0 and draws.max() < 1
    assert torch.corrcoef(draws.T)[0, 1].abs() < 0.03
    assert torch.corrcoef(torch.stack([draws[:-1, 0], draws[1:, 0]]))[0, 1].abs() < 0.03


def test_streams_are_independent():
    seeds = torch.arange(20_000)
    pair = torch.stack([uniform(seeds, 0, 1)[:, 0], uniform(seeds, 1, 1)[:, 0]])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.03


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=5), st.integers(0, 1000))
def test_draws_do_not_depend_on_the_batch(seeds: list[int], stream: int):
    together = uniform(torch.tensor(seeds), stream, 4)
    alone = torch.cat([uniform(torch.tensor([seed]), stream, 4) for seed in seeds])
    assert together.equal(alone)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_random_keys_do_not_depend_on_the_batch(lengths: list[int]):
    seeds = torch.arange(len(lengths)) + 7
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    together = random_keys(offsets, sum(lengths), seeds, 5)
    alone = [random_keys(torch.tensor([0, n]), n, seeds[i : i + 1], 5) for i, n in enumerate(lengths)]
    assert together.equal(torch.cat(alone))
    assert (together >= 0).all() and len(together.unique()) == len(together)
