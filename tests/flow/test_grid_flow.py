import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.flow import FlowEstimator, GridFlow, RigidFlow, check_label_free, settings_of
from equilidar.structures import SweepPair, SweepPairBatch

from .pairs import moved, rigid_matrix, sweep_pair
from .street import PARKED, WALLS, Thing, street_pair

CAR = Thing((-6.0, 2.0), shift=(1.3, 0.0))
VAN = Thing((8.0, -3.0), (5.5, 2.0, 2.3), math.pi, (-0.9, 0.1), 0.03)
WALKER = Thing((2.0, 7.0), (0.5, 0.6, 1.75), 0.0, (0.05, -0.16))
STREET = (*WALLS, *PARKED, CAR, VAN, WALKER)
FIRST_MOVER = len(WALLS) + len(PARKED)
LOW = 0.1  # metres above ground: points that may be taken for it


def errors(pair: SweepPair, estimator: FlowEstimator | None = None) -> torch.Tensor:
    field = (estimator or GridFlow())(SweepPairBatch.collate([pair]))
    assert field.valid.float().mean() > 0.99 and field.flow.isfinite().all()
    assert pair.flow is not None
    return (field.flow - pair.flow).norm(dim=1)


def above(pair: SweepPair) -> torch.Tensor:
    return pair.source.xyz[:, 2] > -1.8 + LOW


def turned(pair: SweepPair, yaw: float) -> SweepPair:
    """Both sweeps turned about their sensors, and all that belongs to them."""
    turn = rigid_matrix(yaw, (0.0, 0.0, 0.0))
    flow = None if pair.flow is None else moved(pair.flow, turn)
    motion = turn @ pair.target_T_source @ turn.inverse()
    return sweep_pair(moved(pair.source.xyz, turn), moved(pair.target.xyz, turn), motion, "turned", flow=flow)


def test_movers_are_found_and_what_rests_has_the_ego_motion():
    pair, owner = street_pair(STREET, rigid_matrix(0.02, (-0.8, 0.1, 0.0)), seed=3)
    error = errors(pair)
    for row in range(FIRST_MOVER, len(STREET)):
        assert error[(owner == row) & above(pair)].mean() < 0.06, STREET[row]
    assert error[owner < FIRST_MOVER].max() < 1e-4


@given(st.floats(-math.pi, math.pi), st.floats(0.2, 2.2), st.floats(-0.1, 0.1), st.integers(0, 99))
@settings(max_examples=4, deadline=None)
def test_flow_of_a_rigidly_moved_object_is_that_motion(heading: float, way: float, turn: float, seed: int):
    car = Thing((7.0, 1.0), yaw=heading, shift=(way * math.cos(heading), way * math.sin(heading)), turn=turn)
    pair, owner = street_pair((*WALLS, car), rigid_matrix(-0.01, (-1.0, 0.0, 0.0)), seed=seed, resampled=False)
    assert errors(pair)[(owner == 2) & above(pair)].max() < 0.02


@given(st.floats(-math.pi, math.pi), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
@settings(max_examples=3, deadline=None)
def test_flow_of_a_rigidly_moved_cloud_is_that_motion(yaw: float, x: float, y: float):
    pair, _ = street_pair((*WALLS, *PARKED), rigid_matrix(yaw, (x, y, 0.1)), resampled=False)
    assert errors(pair).max() < 0.02


@given(st.floats(-math.pi, math.pi))
@settings(max_examples=3, deadline=None)
def test_turning_both_sweeps_turns_the_flow(yaw: float):
    pair, owner = street_pair(STREET, rigid_matrix(0.01, (-0.5, 0.0, 0.0)), seed=5)
    plain, other = (
        GridFlow()(SweepPairBatch.collate([p])).flow[(owner >= 0) & above(pair)] for p in (pair, turned(pair, yaw))
    )
    difference = (moved(plain, rigid_matrix(yaw, (0.0, 0.0, 0.0))) - other).norm(dim=1)
    assert difference.mean() < 0.01 and difference.quantile(0.999) < 0.05


def test_forward_and_backward_flow_cancel():
    motion = rigid_matrix(0.02, (-0.6, 0.1, 0.0))
    pair, owner = street_pair(STREET, motion, seed=6)
    back = sweep_pair(pair.target.xyz, pair.source.xyz, motion.inverse(), "back")
    forward = GridFlow()(SweepPairBatch.collate([pair]))
    backward = GridFlow()(SweepPairBatch.collate([back]))
    end = pair.source.xyz + forward.flow
    for row in range(FIRST_MOVER, len(STREET)):
        points = end[(owner == row) & above(pair)]
        distance, match = torch.cdist(points, pair.target.xyz).min(1)
        returned = points + backward.flow[match] - pair.source.xyz[(owner == row) & above(pair)]
        assert returned[distance < 0.1].norm(dim=1).mean() < 0.1, STREET[row]


def test_a_batch_gives_what_its_pairs_give_alone_again_and_again():
    pairs = [street_pair(STREET, seed=seed, name=f"s{seed}")[0] for seed in (1, 2)]
    pairs[1].target.timestamp = 0.2
    fields = [GridFlow()(SweepPairBatch.collate(chosen)) for chosen in (pairs, pairs, pairs[:1], pairs[1:])]
    assert fields[0].flow.equal(fields[1].flow) and fields[0].confidence.equal(fields[1].confidence)
    alone = torch.cat([fields[2].flow, fields[3].flow])
    assert (fields[0].flow - alone).norm(dim=1).mean() < 0.01


def test_cars_in_a_queue_may_take_the_place_of_those_before_them():
    queue = tuple(Thing((x, 2.0), shift=(1.8, 0.0)) for x in (-12.0, -6.5, -1.0, 4.5))
    pair, owner = street_pair((*WALLS, *queue), seed=2)
    assert errors(pair)[(owner >= 2) & above(pair)].mean() < 0.06


def test_all_things_may_move():
    things = tuple(Thing((x, y), shift=(s, 0.2)) for x, y, s in ((-9.0, 3.0, 1.0), (0.0, -4.0, -0.7), (8.0, 5.0, 0.4)))
    pair, owner = street_pair(things, seed=1)
    assert errors(pair)[(owner >= 0) & above(pair)].mean() < 0.06


def test_a_hidden_thing_does_not_jump_onto_another():
    vanished = replace(PARKED[0], place=(3.0, 4.0))
    pair, owner = street_pair((*WALLS, *PARKED, vanished), seed=4)
    gone = (pair.target.xyz - torch.tensor([3.0, 4.0, -1.0])).abs().amax(1) < 2.6
    pair.target.xyz = pair.target.xyz[~(gone & (pair.target.xyz[:, 2] > -1.78))]
    pair.target.features = pair.target.features[: len(pair.target.xyz)]
    assert errors(pair)[owner >= 0].max() < 1e-4
    confidence = GridFlow()(SweepPairBatch.collate([pair])).confidence
    hidden = (owner == len(WALLS) + len(PARKED)) & above(pair)
    assert confidence[hidden].mean() < 0.5 < 0.7 < confidence[(owner >= 0) & ~hidden].mean()


def test_confidence_falls_and_validity_ends_with_distance_to_the_target():
    pair, _ = street_pair((*WALLS, *PARKED), seed=0)
    apart = torch.eye(4, dtype=torch.float64)
    apart[0, 3] = 500.0
    lost = GridFlow()(SweepPairBatch.collate([sweep_pair(pair.source.xyz, pair.target.xyz, apart)]))
    assert not lost.valid.any() and lost.confidence.eq(0).all() and lost.flow.isfinite().all()
    found = GridFlow()(SweepPairBatch.collate([pair]))
    assert found.valid.all() and found.confidence.mean() > 0.8


@pytest.mark.parametrize("num_points", [1, 5, 99])
def test_few_points_have_the_ego_motion(num_points: int):
    source = torch.rand(num_points, 3, generator=torch.Generator().manual_seed(0)) * 10
    motion = rigid_matrix(0.1, (0.5, 0.0, 0.0))
    batch = SweepPairBatch.collate([sweep_pair(source, moved(source, motion), motion)])
    field = GridFlow()(batch)
    torch.testing.assert_close(field.flow, RigidFlow()(batch).flow, atol=0.02, rtol=0)
    assert field.valid.all()


def test_empty_sweeps_stand_beside_others_in_a_batch():
    pair, _ = street_pair(STREET, seed=1)
    none, some, eye = torch.zeros(0, 3), pair.source.xyz, torch.eye(4, dtype=torch.float64)
    empty = [sweep_pair(a, b, eye, name) for a, b, name in ((none, some, "a"), (some, none, "b"), (none, none, "c"))]
    for estimated in (GridFlow()(SweepPairBatch.collate([*empty, pair])), GridFlow()(SweepPairBatch.collate(empty))):
        assert not estimated.valid[: len(some)].any() and estimated.flow[: len(some)].eq(0).all()
        assert estimated.flow.isfinite().all()


def test_points_that_are_not_finite_are_not_valid():
    pair, _ = street_pair(STREET, seed=1)
    pair.source.xyz[7], pair.target.xyz[9, 1] = math.nan, math.inf
    field = GridFlow()(SweepPairBatch.collate([pair]))
    assert not field.valid[7] and field.flow.isfinite().all() and field.valid.sum() == len(field.valid) - 1


def test_a_gap_in_time_costs_no_more_than_the_longest_reach():
    pair, owner = street_pair((*WALLS, replace(CAR, shift=(6.0, 0.0))), seed=1, gap=0.5)
    assert errors(pair)[(owner == 2) & above(pair)].mean() < 0.1
    pair.target.timestamp = 60.0
    field = GridFlow()(SweepPairBatch.collate([pair]))
    assert field.flow.norm(dim=1).max() < 11.0


def test_it_works_under_inference_mode():
    pair, owner = street_pair((*WALLS, CAR), seed=1)
    with torch.inference_mode():
        assert errors(pair)[(owner == 2) & above(pair)].mean() < 0.06


def test_it_is_label_free_and_its_settings_are_told():
    estimator = GridFlow()
    assert isinstance(estimator, FlowEstimator)
    check_label_free(estimator)
    assert settings_of(estimator)["search"]["max_speed"] == 25.0


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="flow=grid_flow needs"):
        GridFlow(foot_radius=0.0)
    for name, wrong in (("search", {"step": 0.0}), ("grid", {"cell": -1.0}), ("surface", {"voxel": 0.0}),
                        ("refinement", {"trim": 0.0}), ("static", {"taken_radius": 0.0})):  # fmt: skip
        with pytest.raises(ValueError, match=r"positive|> 0"):
            replace(getattr(GridFlow(), name), **wrong)


def test_sample_argoverse2_movers_are_found_and_the_rest_rests(samples: Path):
    roots = sorted({path.parents[1] for path in (samples / "argoverse2").rglob("flow_labels.feather")})
    if not roots:
        pytest.skip("no flow files among the recordings")
    for root in roots:
        pairs = Argoverse2Flow(root)
        for pair in (pairs[index] for index in range(len(pairs))):
            batch = SweepPairBatch.collate([pair])
            assert pair.flow is not None and pair.flow_valid is not None
            at_rest = (RigidFlow()(batch).flow - pair.flow).norm(dim=1)
            error = (GridFlow()(batch).flow - pair.flow).norm(dim=1)
            moves = at_rest > 0.05
            assert error[pair.flow_valid & moves].mean() < 0.35 * at_rest[pair.flow_valid & moves].mean(), pair.key
            assert error[pair.flow_valid & ~moves].mean() < 0.02, pair.key
