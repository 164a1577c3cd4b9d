from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from equilidar.flow import FlowEstimator, GridFlow, GridFlowMulti, RigidFlow, bound, check_label_free, settings_of
from equilidar.structures import Sweep, SweepPair, SweepPairBatch

from .pairs import CONTRACT, moved, rigid_matrix
from .street import PARKED, WALLS, Thing, street_points

CAR = Thing((-6.0, 2.0), shift=(1.3, 0.0))
WALKER = Thing((2.0, 7.0), (0.5, 0.6, 1.75), 0.0, (0.05, -0.16))
STREET = (*WALLS, *PARKED, CAR, WALKER)


class Drive:
    """Sweeps of a street from a vehicle that moves and turns, and the pairs of neighbours."""

    def __init__(self, num_sweeps: int, with_poses: bool = True) -> None:
        self.with_poses = with_poses
        self.sweep_keys = [f"street/0/{index}" for index in range(num_sweeps)]
        self.read: list[int] = []

    def sweep(self, index: int) -> Sweep:
        self.read.append(index)
        xyz = street_points(STREET, index, np.random.default_rng(index), 20.0)[0]
        pose = self.pose(index)
        seen = moved(xyz, pose.inverse())
        sweep = Sweep(seen, torch.zeros(len(seen), 1), CONTRACT, self.sweep_keys[index], 0.1 * index)
        return replace(sweep, world_T_sensor=pose) if self.with_poses else sweep

    def sweep_runs(self) -> list[range]:
        return [range(len(self.sweep_keys))]

    def pose(self, index: int) -> Tensor:
        return rigid_matrix(0.03 * index, (0.7 * index, 0.1 * index, 0.0))

    def pair(self, index: int) -> tuple[SweepPair, Tensor, Tensor]:
        """Return a pair, its true flow and the row in STREET of each source point."""
        motion = self.pose(index + 1).inverse() @ self.pose(index)
        pair = SweepPair(self.sweep(index), self.sweep(index + 1), motion)
        _, end, owner = street_points(STREET, index, np.random.default_rng(index), 20.0)
        self.read.clear()
        return pair, moved(end, self.pose(index + 1).inverse()) - pair.source.xyz, owner


def test_five_sweeps_tell_the_motion_that_two_do():
    drive = Drive(5)
    pair, flow, owner = drive.pair(2)
    estimator = bound(GridFlowMulti(), drive)
    error = (estimator(SweepPairBatch.collate([pair])).flow - flow).norm(dim=1)
    assert drive.read == [2, 3, 1, 4, 0]
    above = pair.source.xyz[:, 2] > -1.7
    for row in range(len(STREET)):
        assert error[(owner == row) & above].mean() < (0.05 if STREET[row].shift != (0.0, 0.0) else 1e-4), STREET[row]


def test_where_a_sequence_has_no_more_sweeps_the_pair_stands_alone():
    drive = Drive(2)
    batch = SweepPairBatch.collate([drive.pair(0)[0]])
    assert GridFlowMulti().bound_to(drive)(batch).flow.equal(GridFlow()(batch).flow)
    longer = Drive(3)
    batch = SweepPairBatch.collate([longer.pair(0)[0], longer.pair(1)[0]])
    field = GridFlowMulti().bound_to(longer)(batch)
    assert field.flow.isfinite().all() and longer.read == [0, 1, 2, 1, 2, 0]


def test_what_it_cannot_work_with_is_said():
    drive = Drive(3)
    batch = SweepPairBatch.collate([drive.pair(0)[0]])
    with pytest.raises(ValueError, match="bound_to"):
        GridFlowMulti()(batch)
    with pytest.raises(ValueError, match="single sweeps"):
        GridFlowMulti().bound_to([])
    with pytest.raises(ValueError, match="need poses"):
        GridFlowMulti().bound_to(Drive(3, with_poses=False))(batch)
    batch.keys = ("other/0/0->other/0/1",)
    with pytest.raises(ValueError, match="not of the dataset"):
        GridFlowMulti().bound_to(drive)(batch)
    with pytest.raises(ValueError, match="at least 2"):
        GridFlowMulti(num_sweeps=1)


@pytest.mark.parametrize("estimator", [RigidFlow(), GridFlow()], ids=lambda estimator: estimator.name)
def test_only_estimators_that_ask_are_given_the_dataset(estimator: FlowEstimator):
    assert bound(estimator, Drive(2)) is estimator


def test_its_settings_are_those_of_the_pair_and_the_number_of_sweeps():
    estimator = GridFlowMulti().bound_to(Drive(2))
    assert isinstance(estimator, FlowEstimator)
    check_label_free(estimator)
    assert settings_of(estimator) == {"num_sweeps": 5, **GridFlowMulti().settings}
    assert settings_of(estimator)["static"]["min_speed"] == pytest.approx(0.4)
