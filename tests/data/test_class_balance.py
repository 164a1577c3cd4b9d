"""Class-balanced resampling: its own formula, rare classes, repetitions that differ, resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equilidar.data.class_balance import KnowsLabels, balanced_pool
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.sampler import SamplerIterator, SeededSampler
from equilidar.data.subsets import LabelledSubset
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep
from tests.data.fake_nuscenes import VERSION, write_release

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


class Labels:
    """Sweeps that hold the given labels and nothing else; those of `known` tell them without being read."""

    name, contract = "labels", CONTRACT

    def __init__(self, labels: list[list[int]], class_names: tuple[str, ...]) -> None:
        self.all, self.class_names = labels, class_names
        self.keys = [f"labels/0/{i}" for i in range(len(labels))]

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> LabelledSweep:
        num = len(self.all[index])
        boxes = Boxes3D.make(torch.zeros(num, 3), torch.ones(num, 3), torch.zeros(num), label=self._label(index))
        return LabelledSweep(Sweep(torch.zeros(1, 3), torch.zeros(1, 1), CONTRACT, self.keys[index], 0.0), boxes)

    def _label(self, index: int) -> torch.Tensor:
        return torch.tensor(self.all[index], dtype=torch.int64)


def test_every_class_is_drawn_as_often_from_the_sweeps_that_hold_it() -> None:
    dataset = Labels([[0]] * 60 + [[0, 1]] * 30 + [[2]] * 3 + [[]] * 7, ("car", "truck", "bus"))
    pool = balanced_pool(dataset, seed=0)
    each = (90 + 30 + 3) // 3
    assert len(pool) == 3 * each
    assert all(index < 93 for index in pool), "sweeps without boxes are not drawn"
    assert sum(index >= 90 for index in pool) == each, "three sweeps with a bus stand for a third of the epoch"
    assert pool == balanced_pool(dataset, seed=0) != balanced_pool(dataset, seed=1)


def test_a_class_never_seen_is_left_out_and_no_class_at_all_is_an_error() -> None:
    pool = balanced_pool(Labels([[0], [0], [1], []], ("car", "truck", "bus")), seed=0)
    assert set(pool) <= {0, 1, 2} and 2 in pool
    with pytest.raises(ValueError, match=r"loader\.class_balanced: none of the labelled sweeps holds a box"):
        balanced_pool(Labels([[], []], ("car",)), seed=0)


def test_a_subset_is_balanced_over_its_own_sweeps() -> None:
    subset = LabelledSubset(Labels([[i % 2] for i in range(40)], ("car", "truck")), 0.25, 3)
    pool = balanced_pool(subset, seed=0)
    assert max(pool) < len(subset) and {int(subset[i].boxes.label[0]) for i in pool} == {0, 1}


def test_repetitions_have_seeds_of_their_own_and_processes_share_the_pool() -> None:
    pool = [4, 4, 4, 1, 0, 2]
    whole = SeededSampler(5, 6, 0, pool=pool).requests(2)
    assert sorted(request.index for request in whole) == sorted(pool)
    assert len({request.seed for request in whole}) == len(pool)
    halves = [SeededSampler(5, 3, 0, rank=rank, world_size=2, pool=pool).requests(2) for rank in range(2)]
    assert halves[0] + halves[1] == whole


def test_resuming_goes_on_in_the_same_pool_and_refuses_another() -> None:
    sampler = SeededSampler(5, 2, 0, pool=[4, 4, 1, 0])
    iterator = iter(sampler)
    first = [next(iterator) for _ in range(2)]
    place: dict[str, Any] = iterator.state_dict()
    again = SeededSampler(5, 2, 0, pool=[4, 4, 1, 0])
    again.resume(place)
    assert first + list(again) == sampler.requests(0)
    for other in (SeededSampler(5, 2, 0, pool=[4, 3, 1, 0]), SeededSampler(5, 2, 0, pool=[4, 3])):
        with pytest.raises(ValueError, match="cannot resume"):
            SamplerIterator(other).load_state_dict(place)
    plain = SeededSampler(4, 2, 0).__iter__().state_dict()
    with pytest.raises(ValueError, match="made with pool None"):
        SamplerIterator(sampler).load_state_dict(plain)
    with pytest.raises(ValueError, match=r"outside 0\.\.4"):
        SeededSampler(5, 2, 0, pool=[5, 0])


def test_nuscenes_tells_labels_without_reading_points(tmp_path: Path) -> None:
    release = write_release(tmp_path)
    dataset = NuScenesLabelled(release.root, VERSION, "all", accumulate=1)
    assert isinstance(dataset, KnowsLabels)
    for index in range(len(dataset)):
        np.testing.assert_array_equal(dataset.labels(index), dataset[index].boxes.label)
    for folder in ("samples", "sweeps"):
        for path in (release.root / folder).rglob("*.bin"):
            path.unlink()
    assert balanced_pool(dataset, seed=0)
