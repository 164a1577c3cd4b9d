import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.augment.crop import Disc, FrontWedge
from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.flow import RigidFlow
from equilidar.structures import (
    Affine3,
    FlowField,
    GridSpec,
    SensorContract,
    Sweep,
    SweepPair,
    SweepPairBatch,
)

GRID = GridSpec((-20.0, -20.0, -3.0), (20.0, 20.0, 3.0), (0.5, 0.5, 0.5))
FRONT = GridSpec((0.0, -20.0, -3.0), (40.0, 20.0, 3.0), (0.5, 0.5, 0.5))
CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


def ego_motion(yaw: float, forward: float) -> torch.Tensor:
    motion = torch.eye(4, dtype=torch.float64)
    motion[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    motion[0, 3] = -forward
    return motion


def static_pair(num: int, seed: int, yaw: float = 0.05, forward: float = 1.0) -> SweepPair:
    """Two looks at the same points of a scene in which nothing moves but the sensor."""
    generator = torch.Generator().manual_seed(seed)
    source = (torch.rand(num, 3, generator=generator) - 0.5) * torch.tensor([50.0, 50.0, 4.0])
    motion = ego_motion(yaw, forward)
    target = Affine3.from_matrix(motion[None].float()).apply(source, torch.tensor([0, num]))
    intensity = torch.arange(num).float()[:, None]
    return SweepPair(
        Sweep(source, intensity, CONTRACT, f"s/{seed}/0", 0.0),
        Sweep(target, intensity, CONTRACT, f"s/{seed}/1", 0.1),
        motion,
    )


def batch_of(*nums: int) -> SweepPairBatch:
    return SweepPairBatch.collate(
        [static_pair(num, i) for i, num in enumerate(nums)], [11 + i for i in range(len(nums))]
    )


def views_of(batch: SweepPairBatch, **arguments):
    pipeline = ViewPipeline(arguments.pop("grid", GRID), arguments.pop("group", SpatialGroup()), **arguments)
    return pipeline(batch, RigidFlow()(batch))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(0, 2**31), st.sampled_from([GRID, FRONT]))
@settings(max_examples=40, deadline=None)
def test_matches_are_the_same_physical_points(nums: list[int], seed: int, grid: GridSpec):
    batch = SweepPairBatch.collate(
        [static_pair(num, i) for i, num in enumerate(nums)], [seed + i for i in range(len(nums))]
    )
    views = ViewPipeline(grid, SpatialGroup())(batch, None)
    a, b = views.a, views.b
    back_a = a.view_T_sweep.inverse().apply(a.points.xyz, a.points.offsets)[views.matches[:, 0]]
    back_b = b.view_T_sweep.inverse().apply(b.points.xyz, b.points.offsets)[views.matches[:, 1]]
    torch.testing.assert_close(back_a, back_b, atol=1e-4, rtol=0)
    rows = a.origin[views.matches[:, 0]]
    assert rows.equal(b.origin[views.matches[:, 1]])
    torch.testing.assert_close(back_a, batch.target.xyz[rows], atol=1e-4, rtol=0)
    # All of them, each once, and counted for the item to which they belong.
    assert rows.tolist() == sorted(set(a.origin.tolist()) & set(b.origin.tolist()))
    item = batch.target.batch_index[rows]
    assert views.match_offsets.diff().tolist() == [int((item == i).sum()) for i in range(len(nums))]


def test_views_hold_what_the_grid_holds_after_the_motion():
    batch = batch_of(300, 200)
    views = views_of(batch)
    for view in (views.a, views.b):
        moved = view.view_T_sweep.apply(batch.target.xyz, batch.target.offsets)
        inside = GRID.contains(moved)
        assert view.origin.tolist() == inside.nonzero()[:, 0].tolist()
        torch.testing.assert_close(view.points.xyz, moved[inside])
        assert view.points.features[:, 0].equal(batch.target.features[inside, 0])
    assert not views.a.view_T_sweep.linear.equal(views.b.view_T_sweep.linear)


def test_points_warped_by_rigid_flow_fall_on_the_static_target():
    batch = batch_of(400, 300)
    views = views_of(batch)
    source = views.source
    # Row i of source and target is one physical point, so its place in view a is known without any flow.
    expected = views.a.view_T_sweep.apply(batch.target.xyz, batch.target.offsets)[source.view.origin]
    torch.testing.assert_close(source.warped, expected, atol=1e-4, rtol=0)
    assert source.valid.all() and source.weight.eq(1).all()


def test_the_source_keeps_its_ego_motion():
    batch = batch_of(400)
    source = views_of(batch).source
    own = source.view.view_T_sweep.inverse().apply(source.view.points.xyz, source.view.points.offsets)
    torch.testing.assert_close(own, batch.source.xyz[source.view.origin], atol=1e-4, rtol=0)
    assert (source.warped - source.view.points.xyz).norm(dim=1).mean() > 0.5


def test_unknown_flow_is_marked_and_finite():
    batch = batch_of(100)
    flow = FlowField(torch.full((100, 3), math.nan), torch.arange(100) % 2 == 0, torch.ones(100))
    source = ViewPipeline(GRID, SpatialGroup())(batch, flow).source
    assert not source.valid.any() and source.weight.eq(0).all() and source.warped.isfinite().all()


def test_rotate_then_crop_fills_the_front_view_and_crop_then_rotate_does_not():
    batch, group = batch_of(4000), SpatialGroup((math.pi / 2, math.pi / 2), (1, 1), 0.0, (0, 0))
    full = views_of(batch, grid=FRONT, group=group, crop=FrontWedge(math.pi / 4))
    azimuth = torch.atan2(full.a.points.xyz[:, 1], full.a.points.xyz[:, 0])
    assert azimuth.min() < -0.7 and azimuth.max() > 0.7
    # The wedge that was ahead lies to the left after the turn, with its outline at 45 degrees.
    cropped = views_of(batch, grid=GRID, group=group, crop=FrontWedge(math.pi / 4), crop_then_rotate=True)
    azimuth = torch.atan2(cropped.a.points.xyz[:, 1], cropped.a.points.xyz[:, 0])
    assert azimuth.min() >= math.pi / 4 - 1e-4 and azimuth.max() <= 3 * math.pi / 4 + 1e-4 and len(azimuth) > 100


def test_a_disc_shows_the_same_points_at_every_angle():
    group = SpatialGroup((-math.pi, math.pi), (1, 1), 0.5, (0, 0))
    views = views_of(batch_of(500, 500), group=group, crop=Disc(15.0))
    assert views.a.origin.equal(views.b.origin) and len(views.a.origin) > 100


def test_ego_returns_are_removed_from_every_view():
    batch = batch_of(2000)
    views = views_of(batch, ego_radius=4.0)
    for view, sweep in ((views.a, batch.target), (views.b, batch.target), (views.source.view, batch.source)):
        assert sweep.xyz[:, :2].norm(dim=1).min() < 4 < sweep.xyz[view.origin, :2].norm(dim=1).min()


def test_shared_yaw_leaves_no_rotation_between_the_views():
    views = views_of(batch_of(10, 10, 10), shared=["yaw"])
    assert views.a.draw.yaw.equal(views.b.draw.yaw)
    assert not views.a.draw.scale.eq(views.b.draw.scale).any()


def test_parts_of_each_view_are_a_switch():
    views = views_of(batch_of(10, 10), parts_a=["yaw"], parts_b=[])
    assert views.a.draw.yaw.ne(0).all() and views.a.draw.scale.eq(1).all() and views.a.draw.translation.eq(0).all()
    assert views.b.view_T_sweep.matrix().equal(torch.eye(4).repeat(2, 1, 1))


def test_a_separate_temporal_view_is_unmoved_and_carries_the_source():
    batch = batch_of(300)
    views = views_of(batch, temporal="separate")
    assert views.temporal.points.xyz.equal(batch.target.xyz[views.temporal.origin])
    assert views.source.view.points.xyz.equal(batch.source.xyz[views.source.view.origin])
    torch.testing.assert_close(views.source.warped, batch.target.xyz[views.source.view.origin], atol=1e-4, rtol=0)
    moved = views_of(batch, temporal="separate", temporal_parts=["yaw"])
    assert moved.temporal.draw.yaw.equal(moved.source.view.draw.yaw)
    assert moved.temporal.draw.yaw.ne(0).all() and moved.temporal.draw.yaw.ne(moved.a.draw.yaw).all()


def test_views_do_not_depend_on_the_batch():
    pairs = [static_pair(50, 1), static_pair(70, 2)]
    together, alone = (SweepPairBatch.collate(p, s) for p, s in ((pairs, [5, 6]), (pairs[1:], [6])))
    whole, part = views_of(together), views_of(alone)
    assert whole.a.points.split()[1].xyz.equal(part.a.points.xyz)
    assert whole.b.points.split()[1].xyz.equal(part.b.points.xyz)
    assert whole.source.view.points.split()[1].xyz.equal(part.source.view.points.xyz)


def test_empty_sweeps_and_nan_points_give_empty_views():
    batch = batch_of(0, 5)
    batch.target.xyz[:] = math.nan
    views = views_of(batch)
    assert len(views.a.points.xyz) == len(views.matches) == 0
    assert views.match_offsets.tolist() == [0, 0, 0]


def test_unknown_switches_are_refused():
    with pytest.raises(ValueError, match=r"augment\.parts_a holds \['jaw'\]"):
        ViewPipeline(GRID, SpatialGroup(), parts_a=["jaw"])
    with pytest.raises(ValueError, match=r"augment\.temporal"):
        ViewPipeline(GRID, SpatialGroup(), temporal="b")
