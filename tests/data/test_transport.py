"""Batches through slabs: nothing that is still held is overwritten, and slabs are used again."""

import gc
import pickle
from collections.abc import Iterator

import pytest
import torch

from equilidar.data import transport
from equilidar.data.faults import Fault
from equilidar.data.loading import LoadedBatch, make_loader
from equilidar.data.transport import Arena, room_for
from tests.data.fake_data import FakeSamples


class Growing(FakeSamples):
    """Sweeps of ever more points, as many as make slabs too small."""

    def _sweep(self, index, time):
        sweep = super()._sweep(index, time)
        sweep.xyz = torch.arange(3 * 200 * (index + 1), dtype=torch.float32).view(-1, 3) + index
        sweep.features = torch.full((len(sweep.xyz), 1), float(index))
        return sweep


def points(loaded: LoadedBatch) -> tuple[list, list]:
    assert loaded.batch is not None
    return loaded.batch.source.xyz.tolist(), loaded.batch.target.features.tolist()


@pytest.fixture
def slabs_of_main() -> Iterator[dict]:
    transport._mapped.clear()
    yield transport._mapped
    transport._mapped.clear()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_that_are_kept_stay_as_they_were(num_workers: int, slabs_of_main: dict):
    expected = [points(loaded) for loaded in make_loader(Growing(16), "pairs", 2, seed=4)]
    kept = list(make_loader(Growing(16), "pairs", 2, seed=4, num_workers=num_workers))
    assert [points(loaded) for loaded in kept] == expected, "of workers that are gone by now"
    assert len(slabs_of_main) >= len(kept)


def test_slabs_are_used_again_once_a_batch_is_gone(slabs_of_main: dict):
    expected = [points(loaded) for loaded in make_loader(FakeSamples(200), "pairs", 2, seed=4)]
    loader = make_loader(FakeSamples(200), "pairs", 2, seed=4, num_workers=1)
    assert [points(loaded) for loaded in loader] == expected
    assert 1 <= len(slabs_of_main) <= 6, "two read ahead, one in use, few on their way"


def test_one_tensor_of_a_batch_keeps_its_slab(slabs_of_main: dict):
    features = [loaded.batch.source.features for loaded in make_loader(Growing(12), "pairs", 2, seed=0, num_workers=1)]
    gc.collect()
    again = [loaded.batch.source.features for loaded in make_loader(Growing(12), "pairs", 2, seed=0)]
    assert all(torch.equal(one, other) for one, other in zip(features, again, strict=True))


def test_slabs_of_workers_that_ended_are_let_go(slabs_of_main: dict):
    for _ in range(3):
        for _ in make_loader(FakeSamples(8), "pairs", 2, seed=0, num_workers=2):
            pass
    assert len({process for process, _ in slabs_of_main}) <= 2


def test_a_loaded_batch_can_be_pickled_anywhere():
    (loaded,) = make_loader(Growing(3, faulty=frozenset({1})), "pairs", 3, seed=0)
    again = pickle.loads(pickle.dumps(loaded))
    assert points(again) == points(loaded)
    assert again.batch.keys == loaded.batch.keys and again.faults == [Fault("fake/1", "file 1 is broken")]
    assert torch.equal(again.batch.target_T_source.linear, loaded.batch.target_T_source.linear)
    nothing = pickle.loads(pickle.dumps(LoadedBatch(None, [])))
    assert nothing.batch is None and nothing.faults == []


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> list:
    monkeypatch.setattr(transport, "get_worker_info", lambda: "a worker")
    monkeypatch.setattr(transport, "_slabs", slabs := [])
    return slabs


def test_an_arena_concatenates_into_a_slab(as_worker: list):
    parts = [torch.rand(3, 2), torch.rand(0, 2), torch.rand(5, 2)]
    flags = [torch.tensor([True]), torch.tensor([False])]
    with Arena(room_for([*parts, *flags])) as arena:
        first, second = arena.concatenate(parts), arena.concatenate(flags)
    assert torch.equal(first, torch.cat(parts)) and second.tolist() == [True, False]
    (slab,) = as_worker
    assert {t.untyped_storage().data_ptr() for t in (first, second)} == {slab.memory.data_ptr()}
    assert not slab.is_free

    with Arena(8) as small:  # another slab, and what does not fit into it is ordinary memory
        outside = small.concatenate([torch.zeros(1000)])
    assert len(as_worker) == 2 and len(outside) == 1000
    assert outside.untyped_storage().data_ptr() not in {s.memory.data_ptr() for s in as_worker}


def test_a_batch_that_fails_frees_its_slab(as_worker: list):
    with pytest.raises(RuntimeError), Arena(100) as arena:
        arena.concatenate([torch.zeros(2, 3), torch.zeros(2, 4)])
    assert [slab.is_free for slab in as_worker] == [True]
