"""Batches, faults in workers, and resuming of the loader."""

from pathlib import Path

import pytest
import torch

from equilidar.data.faults import Fault
from equilidar.data.loading import LoadedBatch, make_loader, place_in_epoch
from equilidar.data.sampler import sample_seed
from equilidar.structures import LabelledBatch, SweepPairBatch
from tests.data.fake_data import FakeSamples


def contents(loaded: LoadedBatch) -> tuple:
    batch = loaded.batch
    if batch is None:
        return None, loaded.faults
    points = batch.source if isinstance(batch, SweepPairBatch) else batch.points
    return batch.keys, batch.seeds.tolist(), points.xyz.tolist(), loaded.faults


def test_batches_hold_the_samples_and_their_seeds():
    loader = make_loader(FakeSamples(8), "pairs", 2, seed=3, shuffle=False)
    batches = list(loader)

    assert len(loader) == len(batches) == 4
    assert [b.batch.keys for b in batches] == [
        tuple(f"fake/{i}->fake/{i}" for i in (2 * step, 2 * step + 1)) for step in range(4)
    ]
    assert batches[1].batch.seeds.tolist() == [sample_seed(3, 0, 2), sample_seed(3, 0, 3)]
    assert batches[0].batch.gap.tolist() == pytest.approx([0.1, 0.1])


def test_labelled_sweeps_become_labelled_batches():
    (loaded,) = make_loader(FakeSamples(3, "labelled"), "labelled", 3, seed=0)
    assert isinstance(loaded.batch, LabelledBatch)
    assert sorted(loaded.batch.keys) == ["fake/0", "fake/1", "fake/2"]


@pytest.mark.parametrize(("workers_before", "workers_after"), [(0, 0), (2, 2), (2, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("taken", [0, 1, 3, 5])
def test_resumed_loader_yields_identical_batches_over_epochs(
    workers_before: int, workers_after: int, taken: int, tmp_path: Path
):
    """5 batches an epoch: before, within, and at the end of it; then two epochs more."""

    def loader(num_workers: int):
        return make_loader(FakeSamples(11, faulty=frozenset({4})), "pairs", 2, seed=9, num_workers=num_workers)

    unbroken = loader(0)
    expected = [[contents(b) for b in unbroken] for _ in range(3)]

    broken = loader(workers_before)
    iterator = iter(broken)
    head = [contents(next(iterator)) for _ in range(taken)]
    torch.save(place_in_epoch(broken), tmp_path / "place.pt")
    place = torch.load(tmp_path / "place.pt", weights_only=True)
    del iterator, broken
    resumed = loader(workers_after)
    resumed.sampler.resume(place)
    rest = [contents(b) for b in resumed]

    assert head + rest == expected[0]
    assert [[contents(b) for b in resumed] for _ in range(2)] == expected[1:]


def test_resume_in_a_later_epoch():
    unbroken = make_loader(FakeSamples(11), "pairs", 2, seed=9)
    expected = [[contents(b) for b in unbroken] for _ in range(3)]

    broken = make_loader(FakeSamples(11), "pairs", 2, seed=9, num_workers=2)
    list(broken)
    iterator = iter(broken)
    head = [contents(next(iterator)) for _ in range(2)]
    resumed = make_loader(FakeSamples(11), "pairs", 2, seed=9, num_workers=2)
    resumed.sampler.resume(place_in_epoch(broken))

    assert head + [contents(b) for b in resumed] == expected[1]
    assert [contents(b) for b in resumed] == expected[2]


def test_a_place_of_other_data_is_refused():
    loader = make_loader(FakeSamples(11), "pairs", 2, seed=9)
    next(iter(loader))
    other = make_loader(FakeSamples(12), "pairs", 2, seed=9)
    with pytest.raises(ValueError, match="cannot resume: the checkpoint was made with num_samples 11, this run has 12"):
        other.sampler.resume(place_in_epoch(loader))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_do_not_change_batches(num_workers: int):
    reference = [contents(b) for b in make_loader(FakeSamples(9), "pairs", 2, seed=1)]
    loader = make_loader(FakeSamples(9), "pairs", 2, seed=1, num_workers=num_workers)
    assert [contents(b) for b in loader] == reference


def test_persistent_workers_go_through_the_epochs():
    plain = make_loader(FakeSamples(9), "pairs", 2, seed=1)
    kept = make_loader(FakeSamples(9), "pairs", 2, seed=1, num_workers=1, persistent_workers=True)
    for _ in range(3):
        assert [contents(b) for b in kept] == [contents(b) for b in plain]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_faults_travel_to_the_main_process_and_the_rest_of_the_batch_stays(num_workers: int):
    dataset = FakeSamples(6, faulty=frozenset({1, 2, 3}))
    batches = list(make_loader(dataset, "pairs", 2, seed=0, shuffle=False, num_workers=num_workers))

    assert batches[0].batch.keys == ("fake/0->fake/0",)
    assert batches[0].faults == [Fault("fake/1", "file 1 is broken")]
    assert batches[1].batch is None
    assert [fault.key for fault in batches[1].faults] == ["fake/2", "fake/3"]
    assert batches[2].faults == []
    assert [b.num_seen for b in batches] == [2, 2, 2]


def test_evaluation_over_processes_drops_padding():
    loaders = [
        make_loader(
            FakeSamples(5, "labelled"), "labelled", 2, seed=0, shuffle=False, drop_last=False, rank=r, world_size=2
        )
        for r in range(2)
    ]
    streams = [list(loader) for loader in loaders]

    assert [len(stream) for stream in streams] == [2, 2]
    keys = [key for stream in streams for b in stream if b.batch is not None for key in b.batch.keys]
    assert sorted(keys) == [f"fake/{i}" for i in range(5)]
    assert streams[1][1].batch is None
    assert streams[1][1].num_seen == 0


def test_global_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(make_loader(FakeSamples(4), "pairs", 2, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_moves_with_its_faults():
    loaded = next(iter(make_loader(FakeSamples(2, faulty=frozenset({0})), "pairs", 2, seed=0)))
    moved = loaded.to("meta")
    assert moved.batch.source.xyz.device.type == "meta"
    assert moved.faults == loaded.faults
    assert LoadedBatch(None, []).to("cpu").batch is None
