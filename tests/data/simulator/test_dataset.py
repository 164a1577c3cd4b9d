"""The simulator as datasets."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from equilidar.data.protocols import LabelledDataset, PairDataset
from equilidar.data.simulator import Sensor, SimulatedPairs, SimulatedSweeps, simulate_sweep
from equilidar.data.simulator.classes import SEMANTICS
from equilidar.data.simulator.scene import Scene

SMALL = {"name": "hdl64e", "azimuth_steps": 180, "beam_stride": 4}


def _first(items: list) -> object:
    return items[0]


@pytest.fixture(scope="module")
def pairs() -> SimulatedPairs:
    return SimulatedPairs(SMALL, 2, 3, seed=3, exact_flow=True, frame_step=5)


def test_a_pair_holds_poses_and_ego_motion(pairs: SimulatedPairs) -> None:
    assert isinstance(pairs, PairDataset)
    pair = pairs[4]
    assert pair.key == pairs.keys[4] == "simulator-3/0001/0005->simulator-3/0001/0006"
    assert pair.source.world_T_sensor is not None
    assert pair.target.world_T_sensor is not None
    expected = torch.linalg.inv(pair.target.world_T_sensor) @ pair.source.world_T_sensor
    torch.testing.assert_close(pair.target_T_source, expected)
    assert pair.target.timestamp - pair.source.timestamp == pytest.approx(0.1)
    assert pair.source.contract == pairs.contract
    assert pair.source.features.shape == (len(pair.source.xyz), 1)
    assert pair.source.xyz.dtype == pair.source.features.dtype == torch.float32
    assert len(set(pairs.keys)) == len(pairs) == 6


def test_the_target_is_the_next_pairs_source() -> None:
    consecutive = SimulatedPairs(SMALL, 1, 3, seed=1)
    assert torch.equal(consecutive[0].target.xyz, consecutive[1].source.xyz)
    wide = SimulatedPairs(SMALL, 1, 2, seed=1, gap=2)
    assert torch.equal(wide[0].target.xyz, consecutive[2].source.xyz)


def test_flow_is_given_only_if_asked_for_and_says_that_it_is_from_labels(pairs: SimulatedPairs) -> None:
    assert pairs.from_labels
    pair = pairs[0]
    assert pair.flow is not None
    assert pair.flow.shape == pair.source.xyz.shape
    blind = SimulatedPairs(SMALL, 1, 1, seed=3)
    assert not blind.from_labels
    assert blind[0].flow is None
    assert blind[0].flow_valid is None


def test_any_order_and_any_number_of_workers_give_the_same_bits(pairs: SimulatedPairs) -> None:
    straight = [pairs[i] for i in range(6)]
    again = SimulatedPairs(SMALL, 2, 3, seed=3, exact_flow=True, frame_step=5, cache_scenes=1)
    for index in (5, 0, 3):
        assert torch.equal(again[index].source.xyz, straight[index].source.xyz)
        assert torch.equal(again[index].flow, straight[index].flow)
    unused = SimulatedPairs(SMALL, 2, 3, seed=3, exact_flow=True, frame_step=5)
    loader = DataLoader(unused, batch_size=1, num_workers=2, collate_fn=_first, multiprocessing_context="fork")
    for index, pair in enumerate(loader):
        assert torch.equal(pair.source.xyz, straight[index].source.xyz)
        assert torch.equal(pair.source.features, straight[index].source.features)
        assert torch.equal(pair.target.xyz, straight[index].target.xyz)
        assert torch.equal(pair.flow, straight[index].flow)


@pytest.mark.slow
def test_spawned_workers_give_the_same_bits(pairs: SimulatedPairs) -> None:
    loader = DataLoader(pairs, batch_size=1, num_workers=2, collate_fn=_first, multiprocessing_context="spawn")
    for index, pair in enumerate(loader):
        assert torch.equal(pair.source.xyz, pairs[index].source.xyz)


def test_datasets_are_small_when_pickled(pairs: SimulatedPairs) -> None:
    _ = pairs[0]
    data = pickle.dumps(pairs)
    assert len(data) < 20_000
    assert torch.equal(pickle.loads(data)[0].source.xyz, pairs[0].source.xyz)


def test_labelled_sweeps_and_their_annotations() -> None:
    dataset = SimulatedSweeps(SMALL, 2, 2, seed=5, frame_step=40)
    assert isinstance(dataset, LabelledDataset)
    for index in range(len(dataset)):
        item, annotations = dataset[index], dataset.annotations(index)
        assert item.key == dataset.keys[index]
        assert set(item.boxes.label.tolist()) <= {0, 1, 2}
        # All that is to be learned is also asked for, with the same boxes.
        learned, asked = set(item.boxes.track.tolist()), annotations.boxes.track.tolist()
        counted = [t for t, n, d in zip(asked, annotations.num_points, annotations.difficulty, strict=True) if n >= 5]
        assert learned <= set(counted)
        assert torch.all(annotations.num_points >= 1)
        inside = item.boxes.contains(item.sweep.xyz, margin=0.08).sum(1)
        assert torch.all(inside >= 5)
        assert annotations.occluded.min() >= 0
        assert annotations.occluded.max() <= 1
        assert annotations.difficulty.dtype == torch.int64


def test_vans_are_neither_right_nor_wrong_for_cars() -> None:
    cars = SimulatedSweeps(SMALL, 2, 2, seed=6, class_names=("Car",), frame_step=60)
    found = 0
    for index in range(len(cars)):
        objects = cars.simulate(index).objects
        vans = objects.track[(objects.semantic == SEMANTICS.index("Van")) & (objects.num_points > 0)]
        both = cars.annotations(index)
        as_van = torch.isin(both.boxes.track, torch.from_numpy(vans))
        assert int(as_van.sum()) == len(vans)
        assert torch.all(both.difficulty[as_van] == 3)
        assert not set(cars[index].boxes.track.tolist()) & set(vans.tolist())
        found += len(vans)
    assert found > 0


def test_region_leaves_objects_out() -> None:
    front = SimulatedSweeps(SMALL, 1, 1, seed=2, region=[0.0, -20.0, 40.0, 20.0])
    everything = front.simulate(0)
    assert torch.equal(front[0].sweep.xyz, torch.from_numpy(everything.xyz))
    center = front.annotations(0).boxes.center
    assert 0 < len(center) < (everything.objects.num_points > 0).sum()
    assert torch.all((center[:, 0] >= 0) & (center[:, 0] < 40) & (center[:, 1].abs() <= 20))


def test_rolling_shutter_adds_the_time_channel() -> None:
    pair = SimulatedPairs(SMALL, 1, 1, seed=0, rolling_shutter=True)[0]
    assert pair.source.contract.channels == ("intensity", "time")
    time = pair.source.features[:, 1]
    assert -0.05 <= float(time.min()) < -0.04
    assert 0.04 < float(time.max()) <= 0.05


def test_provenance_changes_with_the_data() -> None:
    base = SimulatedPairs(SMALL, 1, 1, seed=0).provenance()
    assert base["num_samples"] == 1
    others = [
        SimulatedPairs(SMALL, 1, 1, seed=1),
        SimulatedPairs({**SMALL, "beam_stride": 2}, 1, 1, seed=0),
        SimulatedPairs(SMALL, 1, 1, seed=0, scene={"people": 0.5}),
        SimulatedPairs(SMALL, 1, 1, seed=0, gap=2),
    ]
    assert len({base["hash"], *(other.provenance()["hash"] for other in others)}) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sequences": 0}, "num_sequences"),
        ({"seed": -1}, "seed"),
        ({"frames_per_sequence": 100, "frame_step": 4}, "fewer frames"),
        ({"class_names": ("Tram",)}, "Tram"),
        ({"region": [0, 0, 0, 1]}, "region"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatedSweeps(SMALL, **arguments)


def test_an_index_out_of_range_is_an_index_error(pairs: SimulatedPairs) -> None:
    with pytest.raises(IndexError, match="no item 6"):
        pairs[6]


def test_points_are_where_kitti_has_them(scenes: list[Scene], exact: Sensor) -> None:
    """Sensor frame: the ground about 1.73 m below, the road ahead along x."""
    for scene in scenes:
        xyz = simulate_sweep(scene, exact, 0).xyz
        near = (np.abs(xyz[:, 1]) < 1.0) & (np.abs(xyz[:, 0]) < 8)
        assert abs(np.median(xyz[near, 2]) + 1.73) < 0.1
