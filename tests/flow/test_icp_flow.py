import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from equilidar.data.simulator import SimulatedPairs
from equilidar.data.simulator.classes import BOXED, SEMANTICS
from equilidar.flow import FlowEstimator, IcpFlow, RigidFlow, check_label_free
from equilidar.flow.protocol import settings_of
from equilidar.structures import SweepPair, SweepPairBatch

from .pairs import moved, rigid_matrix, sweep_pair
from .streets import backward, street, turned

FLOW = IcpFlow()


def estimate(pair: SweepPair, flow: IcpFlow = FLOW):
    return flow(SweepPairBatch.collate([pair]))


def test_it_keeps_the_protocol_and_tells_its_settings():
    assert isinstance(FLOW, FlowEstimator)
    check_label_free(FLOW)
    assert settings_of(FLOW)["registration"]["far"] == FLOW.registration.far


@given(st.integers(0, 1000), st.floats(-3.0, 3.0), st.floats(-1.5, 1.5))
@settings(max_examples=4, deadline=None)
def test_flow_of_movers_is_their_motion_and_all_else_stands(seed: int, yaw: float, speed: float):
    shifts = [(speed, 0.3, 0.02), (-0.4, 0.2, 0.0)]
    pair, true, moving = street(seed=seed, yaw=yaw, shifts=shifts)
    field = estimate(pair)
    error = (field.flow - true).norm(dim=1)
    assert error[~moving].max() < 0.02
    assert error[moving].mean() < 0.06
    assert field.valid.all() and field.confidence.min() >= 0 and field.confidence.max() <= 1
    assert field.confidence[moving].mean() > 0.7


@given(st.floats(-0.1, 0.1), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
@settings(max_examples=4, deadline=None)
def test_flow_of_a_rigidly_moved_cloud_is_that_motion(yaw: float, x: float, y: float):
    motion = rigid_matrix(yaw, (x, y, 0.05))
    source = street()[0].source.xyz
    target = moved(source, motion)
    field = estimate(sweep_pair(source, target, motion))
    assert (source + field.flow - target).norm(dim=1).max() < 0.02


def test_flow_of_a_moved_cloud_is_that_motion_though_the_pose_says_none():
    # All-dynamic, as far as the poses tell: the world moves and the ego stands.
    source = street()[0].source.xyz
    target = moved(source, rigid_matrix(0.005, (0.2, -0.1, 0.0)))
    field = estimate(sweep_pair(source, target, torch.eye(4, dtype=torch.float64)))
    assert (source + field.flow - target).norm(dim=1).mean() < 0.02


def test_a_scene_in_which_every_object_moves_by_itself():
    shifts = [(0.9, 0.0, 0.0), (-0.6, 0.0, 0.0), (0.0, 0.7, 0.0), (0.3, -0.3, 0.0)]
    boxes = [(8.0, 5.0, 0.0, 4.2, 1.8, 1.5), (-9.0, 6.0, 0.0, 4.2, 1.8, 1.5), (14.0, -6.0, 1.57, 4.2, 1.8, 1.5),
             (-6.0, -7.0, 0.8, 0.7, 0.7, 1.7)]  # fmt: skip
    pair, true, moving = street(movers=boxes, shifts=shifts, static=[])
    error = (estimate(pair).flow - true).norm(dim=1)
    assert error[moving].mean() < 0.08 and error[~moving].max() < 0.03


@given(st.integers(0, 5), st.floats(-3.1, 3.1))
@settings(max_examples=5, deadline=None)
def test_rotating_both_sweeps_rotates_the_flow_of_every_point(seed: int, yaw: float):
    pair, true, moving = street(seed=seed)
    plain, other = estimate(pair).flow, estimate(turned(pair, yaw)).flow
    turn = rigid_matrix(yaw, (0.0, 0.0, 0.0))
    difference = (moved(plain, turn) - other).norm(dim=1)
    assert difference[~moving].max() < 0.001
    # Of every point of every mover: a mean would let a bicycle be off by a decimetre beside a car.
    assert difference[moving].max() < 0.05
    assert (moved(true, turn) - other).norm(dim=1)[moving].max() < 0.05


@pytest.mark.parametrize("seed", [0, 5])
def test_forward_and_backward_flow_cancel_on_matched_points(seed: int):
    pair, _, _ = street(seed=seed)
    forth, back = estimate(pair).flow, estimate(backward(pair)).flow
    away, match = KDTree(pair.target.xyz).query(pair.source.xyz + forth)
    matched = torch.from_numpy(away < 0.1)
    total = (forth + back[torch.from_numpy(match)]).norm(dim=1)[matched]
    assert matched.float().mean() > 0.5
    assert total.mean() < 0.02 and total.quantile(0.95) < 0.1


def test_a_wrong_pose_is_corrected_and_a_right_one_is_left_alone():
    pair, true, moving = street()
    field = estimate(pair)
    rigid = RigidFlow()(SweepPairBatch.collate([pair])).flow
    assert field.flow[~moving].equal(rigid[~moving])
    pair.target_T_source = rigid_matrix(0.004, (0.15, -0.1, 0.0)) @ pair.target_T_source
    error = (estimate(pair).flow - true).norm(dim=1)
    assert error[~moving].mean() < 0.02 and error[moving].mean() < 0.12
    assert (estimate(pair, IcpFlow(refine_ego=False)).flow - true).norm(dim=1)[~moving].mean() > 0.1


def test_each_pair_of_a_batch_is_as_alone_and_runs_repeat():
    pairs = [street(seed=seed, name=f"s{seed}")[0] for seed in (1, 2)]
    together, again = (FLOW(SweepPairBatch.collate(pairs)) for _ in range(2))
    alone = [estimate(pair) for pair in pairs]
    for name in ("flow", "valid", "confidence"):
        assert getattr(together, name).equal(torch.cat([getattr(field, name) for field in alone]))
        assert getattr(together, name).equal(getattr(again, name))


def test_objects_follow_the_slope_of_the_ground():
    pair, _, moving = street()
    slope = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.06, 0, 1.0, 0], [0, 0, 0, 1.0]], dtype=torch.float64)
    pair.target_T_source = torch.eye(4, dtype=torch.float64)
    level = street(ego=pair.target_T_source)[0]
    source, target = moved(level.source.xyz, slope), moved(level.target.xyz, slope)
    field = estimate(sweep_pair(source, target, torch.eye(4, dtype=torch.float64)))
    first = moving & (source[:, 0] > 0)
    assert field.flow[first, 2].mean() == pytest.approx(0.06 * field.flow[first, 0].mean().item(), abs=0.01)
    assert field.flow[first, 0].mean() > 0.9


def test_pairs_that_tell_nothing_are_not_valid_and_that_is_said(caplog: pytest.LogCaptureFixture):
    pair = street(name="full")[0]
    none, few = torch.zeros(0, 3), pair.source.xyz[:99]
    far = pair.target.xyz + torch.tensor([80.0, 60.0, 0.0])
    eye = torch.eye(4, dtype=torch.float64)
    pairs = [
        sweep_pair(pair.source.xyz, none, eye, "empty-target"),
        sweep_pair(none, pair.source.xyz, eye, "empty-source"),
        sweep_pair(few, pair.target.xyz, eye, "few"),
        sweep_pair(pair.source.xyz, far, eye, "apart"),
        pair,
    ]
    batch = SweepPairBatch.collate(pairs)
    with caplog.at_level(logging.WARNING):
        field = FLOW(batch)
    bounds = batch.source.offsets.tolist()
    valid = [field.valid[start:stop].float().mean() for start, stop in itertools.pairwise(bounds)]
    assert valid[0] == valid[2] == valid[3] == 0 and valid[4] == 1
    assert field.flow.isfinite().all() and field.confidence[~field.valid].eq(0).all()
    for name, what in (("empty-target", "points"), ("few", "99"), ("apart", "do not overlap")):
        assert any(name in line and what in line for line in caplog.messages)


def test_over_a_gap_in_time_only_what_is_found_at_rest_is_valid(caplog: pytest.LogCaptureFixture):
    pair, true, moving = street(gap=2.0, shifts=[(6.0, 0.0, 0.0), (-7.0, 0.0, 0.0)])
    with caplog.at_level(logging.WARNING):
        field = estimate(pair)
    assert any("spans 2.00 s" in line and "max_gap" in line for line in caplog.messages)
    assert field.valid[~moving].float().mean() > 0.99 and field.valid[moving].float().mean() < 0.4
    assert (field.flow - true).norm(dim=1)[~moving].max() < 0.02


def test_what_vanishes_is_not_valid():
    pair, _, moving = street()
    kept = (pair.target.xyz[:, None] - moved(torch.tensor([[9.0, -2.5, -1.0]]), pair.target_T_source)).norm(dim=2) > 5
    target = pair.target.xyz[kept[:, 0]]
    field = estimate(sweep_pair(pair.source.xyz, target, pair.target_T_source))
    gone = moving & ((pair.source.xyz - torch.tensor([9.0, -2.5, -1.0])).norm(dim=1) < 3)
    assert gone.sum() > 300 and field.valid[gone].float().mean() < 0.1
    assert field.valid[~moving].float().mean() > 0.98


@pytest.mark.parametrize("reverse", ["poses", "sweeps"])
def test_a_wrong_order_of_poses_is_refused(reverse: str):
    pair = street(name="odd")[0]
    if reverse == "poses":
        pair.target_T_source = pair.target_T_source.inverse()
    else:
        pair.source, pair.target = pair.target, pair.source
    with pytest.raises(ValueError, match=r"pair odd/.* fits backwards"):
        estimate(pair)


def test_a_gap_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="time stamps"):
        estimate(street(gap=float("nan"))[0])


@pytest.mark.parametrize("rolling_shutter", [False, True])
def test_simulated_movers_are_followed(rolling_shutter: bool):
    pairs = SimulatedPairs(
        {"name": "hdl64e", "azimuth_steps": 720, "beam_stride": 2}, 3, 1, 11, exact_flow=True,
        rolling_shutter=rolling_shutter,
    )  # fmt: skip
    boxed = [SEMANTICS.index(name) for name in BOXED]
    errors, rests, still = [], [], []
    for index in range(len(pairs)):
        pair = pairs[index]
        assert pair.flow is not None
        batch = SweepPairBatch.collate([pair])
        error = (FLOW(batch).flow - pair.flow).norm(dim=1)
        rest = (RigidFlow()(batch).flow - pair.flow).norm(dim=1)
        foreground = torch.from_numpy(np.isin(pairs.simulate(index).semantic, boxed))
        dynamic = foreground & (rest > 0.05)
        errors.append(error[dynamic])
        rests.append(rest[dynamic])
        still.append(error[~foreground])
    if not rolling_shutter:
        assert torch.cat(errors).mean() < 0.25 * torch.cat(rests).mean()
        assert torch.cat(still).mean() < 0.03
    else:
        # Each point's own capture time is in the truth and not in the pair's poses: that much stays.
        assert torch.cat(errors).mean() < 0.7 * torch.cat(rests).mean()


def test_sample_argoverse2_movers_are_followed(samples):
    from equilidar.data.argoverse2_flow import Argoverse2Flow
    from equilidar.data.feather import read_feather

    root = samples / "argoverse2"
    if not sorted(root.rglob("flow_labels.feather")):
        pytest.skip("no flow_labels.feather in the samples")
    pairs = Argoverse2Flow(root, ("train", "val", "test"))
    for index, path in enumerate(pairs.flow_files):
        pair = pairs[index]
        assert pair.flow is not None and pair.flow_valid is not None
        columns = read_feather(path, ("classes", "dynamic"))
        boxed, dynamic = (torch.from_numpy(columns[name] > 0) for name in ("classes", "dynamic"))
        batch = SweepPairBatch.collate([pair])
        error = (FLOW(batch).flow - pair.flow).norm(dim=1)
        rest = (RigidFlow()(batch).flow - pair.flow).norm(dim=1)
        movers, ground = (boxed & dynamic & pair.flow_valid, ~boxed & ~dynamic & pair.flow_valid)
        assert error[movers].mean() < 0.35 * rest[movers].mean()
        assert error[ground].mean() < 0.02


@pytest.mark.parametrize(
    "arguments",
    [{"skirt": 0.5}, {"ceiling": 0.1}, {"min_speed": 40.0}, {"max_gap": 0.0}, {"spacing": -0.1}, {"min_points": 0}],
)
def test_impossible_settings_are_refused(arguments: dict):
    with pytest.raises(ValueError, match="flow=icp_flow needs"):
        IcpFlow(**arguments)
