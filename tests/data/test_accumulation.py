"""Several sweeps as one: points, times, contracts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.accumulation import accumulate, accumulated_contract
from equilidar.data.recordings import Frame, RecordedPairs, Run
from equilidar.structures import SensorContract, Sweep
from tests.data.fake_data import CONTRACT, cloud
from tests.data.fake_kitti import camera_poses, static_world


def sweeps_of(poses: np.ndarray, seed: int = 0) -> list[Sweep]:
    """Return sweeps of a fixed world, the newest first; the points are the same ones in the same order."""
    found = [
        Sweep(torch.from_numpy(p[:, :3].copy()), torch.from_numpy(p[:, 3:].copy()), CONTRACT, f"fake/0/{i}", 0.1 * i,
              torch.from_numpy(poses[i].copy()))
        for i, p in enumerate(static_world(poses, seed))
    ]  # fmt: skip
    return found[::-1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_fixed_world_stays_where_it_is(seed: int, number: int):
    sweeps = sweeps_of(camera_poses(5, seed=seed), seed)[:number]
    joined = accumulate(sweeps)
    size = len(sweeps[0].xyz)
    for place in range(number):
        own = slice(place * size, (place + 1) * size)
        torch.testing.assert_close(joined.xyz[own], sweeps[0].xyz, atol=1e-4, rtol=0)
        torch.testing.assert_close(joined.features[own, 0], sweeps[0].features[:, 0])
        torch.testing.assert_close(joined.features[own, 1], torch.full((size,), 0.1 * place))
    assert joined.key == sweeps[0].key and joined.timestamp == sweeps[0].timestamp
    assert torch.equal(joined.xyz[:size], sweeps[0].xyz), "the sweep's own points are not touched"


def test_the_contract_says_what_the_time_is():
    contract = accumulated_contract(SensorContract(("intensity", "ring"), (255.0, 31.0), "ego"))
    assert contract == SensorContract(("intensity", "ring", "time"), (255.0, 31.0, -1.0), "ego")
    assert accumulated_contract(contract) == contract


def test_times_of_points_are_kept():
    """Sweeps with a time for each point, in tenths of a second after the time stamp."""
    contract = SensorContract(("time", "intensity"), (0.1, 1.0), "sensor")
    sweeps = sweeps_of(camera_poses(2))
    own = torch.linspace(0, 1, len(sweeps[0].xyz))
    timed = [replace(s, features=torch.stack([own, s.features[:, 0]], 1), contract=contract) for s in sweeps]
    joined = accumulate(timed)
    assert joined.contract == contract
    torch.testing.assert_close(joined.features[:, 0], torch.cat([own, own - 1.0]))
    assert torch.equal(timed[1].features[:, 0], own), "the sweeps that were given are left alone"


def test_errors():
    sweeps = sweeps_of(camera_poses(2))
    with pytest.raises(ValueError, match=r"fake/0/0 and fake/0/1 need poses"):
        accumulate([sweeps[0], replace(sweeps[1], world_T_sensor=None)])
    with pytest.raises(ValueError, match=r"fake/0/0 has SensorContract"):
        other = SensorContract(("intensity",), (255.0,), "sensor")
        accumulate([sweeps[0], replace(sweeps[1], contract=other)])
    with pytest.raises(ValueError, match="no sweeps"):
        accumulate([])
    alone = accumulate([replace(sweeps[0], world_T_sensor=None)])
    assert alone.features.shape == (len(sweeps[0].xyz), 2)


class Counting:
    """Reads the sweep of a frame's number, and counts."""

    contract = CONTRACT
    settings = "counting"

    def __init__(self) -> None:
        self.read_numbers: list[int] = []

    def read(self, frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
        self.read_numbers.append(frame.number)
        points = torch.from_numpy(cloud(frame.number))
        return points[:, :3], points[:, 3:]


def test_pairs_of_any_reader_accumulate_within_their_run(tmp_path):
    frames = [Frame(f"fake/0/{i}", tmp_path / "log", i, 0.1 * i) for i in range(6)]
    runs = [Run(frames[:2], camera_poses(2)), Run(frames[2:], camera_poses(4))]
    reader = Counting()
    data = RecordedPairs("fake", runs, reader, 1, accumulate=3)
    assert data.contract.channels == ("intensity", "time") and data.provenance()["accumulate"] == 3
    assert len(data) == 4
    size = len(cloud(0))
    # The first pair of the second run has one and two frames: nothing comes from the run before.
    assert (len(data[1].source.xyz), len(data[1].target.xyz)) == (size, 2 * size)
    reader.read_numbers.clear()
    pair = data[3]
    assert (len(pair.source.xyz), len(pair.target.xyz)) == (3 * size, 3 * size)
    assert sorted(reader.read_numbers) == [2, 3, 4, 5], "no frame is read twice for a pair"
    torch.testing.assert_close(pair.target.features[-size:, 1], torch.full((size,), 0.2))
    with pytest.raises(ValueError, match=r"dataset\.accumulate"):
        RecordedPairs("fake", runs, reader, 1, accumulate=0)


def test_only_wanted_targets(tmp_path):
    frames = [Frame(f"fake/0/{i}", tmp_path / "log", i, 0.1 * i) for i in range(5)]
    runs = [Run(frames, camera_poses(5))]
    data = RecordedPairs("fake", runs, Counting(), 2, target_keys={"fake/0/0", "fake/0/4"})
    assert data.keys == ["fake/0/2->fake/0/4"] and data.num_sweeps == 5
    with pytest.raises(ValueError, match="none of the sweeps that may be targets"):
        RecordedPairs("fake", runs, Counting(), 2, target_keys={"fake/0/1"})
