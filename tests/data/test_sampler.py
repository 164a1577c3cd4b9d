"""Order, seeds, slices over processes, and resuming of the sampler."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilidar.data.sampler import SeededSampler, sample_seed


@given(
    num=st.integers(1, 60),
    batch=st.integers(1, 5),
    world=st.integers(1, 4),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_evaluation_yields_every_sample_exactly_once(num: int, batch: int, world: int, epoch: int, shuffle: bool):
    ranks = [
        SeededSampler(num, batch, 7, rank=r, world_size=world, shuffle=shuffle, drop_last=False) for r in range(world)
    ]
    streams = [sampler.requests(epoch) for sampler in ranks]

    assert len({len(stream) for stream in streams}) == 1, "processes would wait for one another"
    assert all(len(stream) == len(ranks[0]) for stream in streams)
    assert len(streams[0]) % batch == 0
    assert sorted(q.index for stream in streams for q in stream if not q.padding) == list(range(num))


@given(num=st.integers(4, 60), world=st.sampled_from([1, 2, 4]), epoch=st.integers(0, 3))
def test_union_over_ranks_is_the_global_batch_of_one_process(num: int, world: int, epoch: int):
    alone = SeededSampler(num, 4, 3).requests(epoch)
    share = 4 // world
    ranks = [SeededSampler(num, share, 3, rank=r, world_size=world).requests(epoch) for r in range(world)]

    for step in range(len(alone) // 4):
        together = [q for stream in ranks for q in stream[step * share : (step + 1) * share]]
        assert together == alone[step * 4 : (step + 1) * 4]


def test_epochs_differ_in_order_and_seeds_and_repeat_exactly():
    sampler = SeededSampler(40, 4, 1)
    first, second = sampler.requests(0), sampler.requests(1)

    assert [q.index for q in first] != [q.index for q in second]
    assert {q.seed for q in first}.isdisjoint({q.seed for q in second})
    assert first == SeededSampler(40, 4, 1).requests(0)
    assert first != SeededSampler(40, 4, 2).requests(0)


def test_seed_depends_on_run_epoch_and_index_alone():
    by_index = {q.index: q.seed for q in SeededSampler(12, 2, 5).requests(3)}
    for rank in range(3):
        for request in SeededSampler(12, 1, 5, rank=rank, world_size=3).requests(3):
            assert request.seed == by_index[request.index] == sample_seed(5, 3, request.index)
    assert len({sample_seed(s, e, i) for s in range(5) for e in range(5) for i in range(5)}) == 125
    assert all(0 <= seed < 2**63 for seed in by_index.values())


def test_iterating_goes_on_to_the_next_epoch():
    sampler = SeededSampler(10, 2, 0)
    assert [list(sampler) for _ in range(3)] == [sampler.requests(e) for e in range(3)]
    sampler.set_epoch(7)
    assert list(sampler) == sampler.requests(7)


@pytest.mark.parametrize("position", [0, 3, 10])
def test_iterator_resumes_where_it_stood(position: int):
    sampler = SeededSampler(10, 2, 0)
    sampler.set_epoch(2)
    iterator = iter(sampler)
    head = [next(iterator) for _ in range(position)]

    other = SeededSampler(10, 2, 0)
    resumed = iter(other)
    resumed.load_state_dict(iterator.state_dict())

    assert head + list(resumed) == sampler.requests(2)
    assert list(other) == sampler.requests(3)


@pytest.mark.parametrize(
    "change", [{"num_samples": 11}, {"batch_size": 5}, {"seed": 1}, {"world_size": 2}, {"shuffle": False}]
)
def test_state_of_another_order_is_refused(change: dict):
    settings = {"num_samples": 10, "batch_size": 2, "seed": 0}
    state = iter(SeededSampler(**settings)).state_dict()
    (name,) = change
    with pytest.raises(ValueError, match=f"made with {name} "):
        iter(SeededSampler(**{**settings, **change})).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0, "batch_size": 1, "seed": 0}, "positive"),
        ({"num_samples": 3, "batch_size": 2, "seed": 0, "rank": 2, "world_size": 2}, "rank 2"),
        ({"num_samples": 3, "batch_size": 2, "seed": 0, "world_size": 2}, "smaller batch_size"),
    ],
)
def test_wrong_settings_say_what_to_do(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SeededSampler(**arguments)
