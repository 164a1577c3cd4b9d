import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow import ExactFlow, FlowEstimator, NearestFlow, RigidFlow, ShuffledFlow, ZeroFlow, check_label_free
from equilidar.structures import SweepPairBatch

from .pairs import grid_points, moved, rigid_matrix, sweep_pair

ESTIMATORS = [ExactFlow(), NearestFlow(), RigidFlow(), ZeroFlow(), ShuffledFlow(RigidFlow())]


def moving_object_batch(motion=None, object_shift=(1.0, 0.0, 0.0)) -> tuple[SweepPairBatch, torch.Tensor]:
    """A static lattice, and a lattice that moves by itself besides; returns the true flow, too."""
    motion = rigid_matrix(0.02, (-0.5, 0.1, 0.0)) if motion is None else motion
    static, mover = grid_points(6, 5.0), grid_points(3, 5.0) + torch.tensor([100.0, 0.0, 0.0])
    source = torch.cat([static, mover])
    shifted = torch.cat([static, mover + torch.tensor(object_shift)])
    target = moved(shifted, motion)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    pair = sweep_pair(source, target[order], motion, flow=target - source)
    return SweepPairBatch.collate([pair]), target - source


@given(st.floats(-3.0, 3.0), st.floats(-5, 5), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_rigid_flow_of_a_rigidly_moved_cloud_is_that_motion(yaw: float, x: float, y: float):
    motion = rigid_matrix(yaw, (x, y, 0.3))
    source = grid_points(4, 3.0)
    batch = SweepPairBatch.collate([sweep_pair(source, moved(source, motion), motion)])
    field = RigidFlow()(batch)
    torch.testing.assert_close(source + field.flow, batch.target.xyz, atol=1e-4, rtol=0)
    assert field.valid.all() and field.confidence.eq(1).all()


def test_nearest_flow_finds_motion_beyond_the_egos():
    batch, true = moving_object_batch()
    field = NearestFlow(radius=2.0)(batch)
    torch.testing.assert_close(field.flow, true, atol=1e-3, rtol=0)
    assert field.valid.all()
    # One metre off at a radius of two: half the confidence.
    torch.testing.assert_close(field.confidence[-18:], torch.full((18,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(field.confidence[:-18], torch.ones(72), atol=1e-3, rtol=0)


def test_nearest_flow_is_no_faster_than_an_object_can_be():
    batch, _ = moving_object_batch(torch.eye(4, dtype=torch.float64))
    field = NearestFlow(radius=2.0, max_speed=4.0)(batch)
    expected = torch.tensor([0.4, 0.0, 0.0]).expand(18, 3)  # 4 m/s for 0.1 s along the true direction
    torch.testing.assert_close(field.flow[-18:], expected, atol=1e-3, rtol=0)


def test_nearest_flow_calls_slow_residuals_static():
    batch, _ = moving_object_batch(torch.eye(4, dtype=torch.float64), (0.04, 0.0, 0.0))
    assert NearestFlow(min_speed=0.5)(batch).flow.abs().max() < 1e-5
    assert NearestFlow(min_speed=0.0)(batch).flow[-18:, 0].min() > 0.039


def test_nearest_flow_says_where_it_knows_nothing():
    batch, _ = moving_object_batch()
    field = NearestFlow(radius=0.9)(batch)
    assert field.valid.tolist() == [True] * 72 + [False] * 18
    assert field.confidence[-18:].eq(0).all() and field.flow.isfinite().all()


def test_zero_flow_leaves_every_point():
    batch, _ = moving_object_batch()
    assert ZeroFlow()(batch).flow.eq(0).all()


def test_exact_flow_is_the_given_one_and_needs_it():
    batch, true = moving_object_batch()
    batch.flow[3] = math.nan
    field = ExactFlow()(batch)
    known = torch.arange(len(true)) != 3
    assert field.flow[known].equal(true[known]) and field.valid.equal(known) and field.flow.isfinite().all()
    batch.flow = batch.flow_valid = None
    with pytest.raises(ValueError, match="carry no flow"):
        ExactFlow()(batch)


def test_shuffled_flow_is_the_same_flow_at_other_points_of_the_same_sweep():
    pairs = []
    for i, num in enumerate((4, 3, 5)):
        source = grid_points(num, 2.0) + i
        pairs.append(sweep_pair(source, source, rigid_matrix(0.3, (1.0, float(i), 0.0)), f"s{i}"))
    batch = SweepPairBatch.collate(pairs, [8, 9, 10])
    plain, dealt = RigidFlow()(batch), ShuffledFlow(RigidFlow())(batch)
    assert not plain.flow.eq(dealt.flow).all(1).float().mean() > 0.2
    for start, stop in ((0, 32), (32, 50), (50, 100)):
        ordered = (sorted(rows[start:stop].tolist()) for rows in (plain.flow, dealt.flow))
        assert len({str(rows) for rows in ordered}) == 1
    alone = ShuffledFlow(RigidFlow())(SweepPairBatch.collate(pairs[1:2], [9]))
    assert alone.flow.equal(dealt.flow[32:50])


def test_flow_from_labels_is_refused_unless_allowed():
    for estimator in ESTIMATORS[1:]:
        check_label_free(estimator)
    for labelled in (ExactFlow(), ShuffledFlow(ExactFlow())):
        with pytest.raises(ValueError, match=r"flow\.allow_labels=true"):
            check_label_free(labelled)
        check_label_free(labelled, allow_labels=True)
    check_label_free(ExactFlow(allow_labels=True))
    with pytest.raises(ValueError, match="not label-free"):
        check_label_free(ShuffledFlow(ExactFlow(allow_labels=True)))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
def test_every_estimator_keeps_the_protocol_on_empty_sweeps(estimator: FlowEstimator):
    assert isinstance(estimator, FlowEstimator)
    none, some = torch.zeros(0, 3), grid_points(2, 1.0)
    eye = torch.eye(4, dtype=torch.float64)
    pairs = [sweep_pair(a, b, eye, flow=torch.zeros_like(a)) for a, b in ((none, some), (some, none), (none, none))]
    batch = SweepPairBatch.collate(pairs)
    field = estimator(batch)
    assert field.flow.shape == (8, 3) and field.flow.isfinite().all()
    assert field.valid.shape == field.confidence.shape == (8,)
    assert ((field.confidence >= 0) & (field.confidence <= 1)).all()


@pytest.mark.parametrize("arguments", [{"radius": 0.0}, {"min_speed": 5.0, "max_speed": 1.0}])
def test_impossible_settings_are_refused(arguments: dict):
    with pytest.raises(ValueError, match="flow=nearest needs"):
        NearestFlow(**arguments)
