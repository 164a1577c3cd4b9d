"""Objects of what a network calls moving: grouped, fitted to the points, and at rest where that fits as well."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow.flow_network import FlowAnswer
from equilidar.flow.flow_pillars import FlowNetworkShape, PillarPair, pillars_of
from equilidar.flow.moving_objects import ObjectSettings, moving_objects
from equilidar.flow.object_motion import ObjectFit
from equilidar.flow.object_refinement import ObjectRefinement
from equilidar.structures import PointCloudBatch, SparseVoxels

SHAPE = FlowNetworkShape(extent=12.8, cell=0.2, reach=1.6)
CAR = (4.0, 1.8, 1.4)


def surface(size: tuple[float, float, float], at: tuple[float, float, float], seed: int) -> torch.Tensor:
    """Points on two sides and the roof of a box, as a sensor sees it."""
    points = torch.rand(600, 3, generator=torch.Generator().manual_seed(seed))
    points[:200, 0], points[200:400, 1], points[400:, 2] = 0.0, 0.0, 1.0
    return points * torch.tensor(size) + torch.tensor(at)


def turned(xyz: torch.Tensor, yaw: float, shift: tuple[float, float]) -> torch.Tensor:
    """Turn about the points' middle, then shift."""
    middle = xyz.mean(0)
    cos, sin = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return (xyz - middle) @ turn.T + middle + torch.tensor([*shift, 0.0])


def ground() -> torch.Tensor:
    axis = torch.arange(-12.0, 12.1, 0.5)
    return torch.cartesian_prod(axis, axis, torch.tensor([-1.7]))


def cloud(*parts: torch.Tensor) -> PointCloudBatch:
    xyz = torch.cat(parts)
    return PointCloudBatch(xyz, xyz[:, :0], torch.tensor([0, len(xyz)]), ())


def answer_of(
    source: PointCloudBatch, target: PointCloudBatch, points: torch.Tensor, motion: tuple[float, float]
) -> tuple[PillarPair, FlowAnswer]:
    """Give the squares of some points a motion, as a network would that is sure."""
    pair = pillars_of(source, target, SHAPE)
    coords = pair.pillars.coords[pair.pillars.coords[:, 0] < source.batch_size].clone()
    coords[:, 2:] //= 2
    coords, square = coords.unique(dim=0, return_inverse=True)
    rows = torch.where(pair.rows >= 0, square[pair.rows.clamp_min(0)], -1)
    grid = SHAPE.grid
    shape = (1, grid.shape[1] // 2, grid.shape[2] // 2)
    squares = SparseVoxels(coords, torch.zeros(len(coords), 1), grid, shape, (1, 2, 2), source.batch_size)
    moves = torch.full((len(coords),), -4.0)
    moves[rows[points][rows[points] >= 0]] = 4.0
    told = torch.where(moves[:, None] > 0, torch.tensor([*motion, 0.0]), 0.0)
    shifts = torch.zeros(len(coords), (2 * SHAPE.steps + 1) ** 2)
    return pair, FlowAnswer(told, moves, shifts, rows, squares)


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.06, 0.06), st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_rough_answer_becomes_the_rigid_motion(yaw: float, x: float, y: float, off_x: float, off_y: float):
    if math.hypot(x, y) < 0.3:
        x += 0.6
    car = surface(CAR, (2.0, 1.0, -1.6), 0)
    wall = surface((0.3, 8.0, 2.5), (-6.0, -4.0, -1.6), 1)
    moved = turned(car, yaw, (x, y))
    source, target = cloud(car, wall, ground()), cloud(moved, wall, ground())
    pair, answer = answer_of(source, target, torch.arange(600), (x + off_x, y + off_y))
    own, moving = ObjectRefinement()(source, target, pair, answer, 0.5, torch.tensor([0.1]))
    standing = pair.rows[:600] >= 0
    assert moving[:600][standing].all() and not moving[600:1200].any()
    error = (own[:600] - (moved - car))[standing].norm(dim=1)
    assert error.mean() < 0.05
    assert (own[600:1200] == 0).all()


def test_what_fits_at_rest_as_well_rests_and_items_do_not_mix():
    car, far = surface(CAR, (2.0, 1.0, -1.6), 0), surface(CAR, (-7.0, -6.0, -1.6), 2)
    moved = turned(car, 0.0, (1.0, 0.0))
    alike = [cloud(car, far, ground()), cloud(car, far, ground())]
    then = [cloud(car, far, ground()), cloud(moved, far, ground())]
    source, target = PointCloudBatch.collate(alike), PointCloudBatch.collate(then)
    num = len(alike[0].xyz)
    called = torch.cat([torch.arange(600), num + torch.arange(600)])
    pair, answer = answer_of(source, target, called, (0.8, 0.1))
    objects, count = moving_objects(answer, 0.5, ObjectSettings())
    assert count == 2 and objects.max() == 1
    own, moving = ObjectRefinement()(source, target, pair, answer, 0.5, torch.tensor([0.1, 0.1]))
    assert not moving[:num].any() and moving[num : num + 600].float().mean() > 0.9
    assert (own[num : num + 600][moving[num : num + 600]] - torch.tensor([1.0, 0, 0])).norm(dim=1).mean() < 0.05
    quiet = FlowAnswer(answer.motion, answer.moves - 9, answer.shifts, answer.rows, answer.squares)
    own, moving = ObjectRefinement()(source, target, pair, quiet, 0.5, torch.tensor([0.1, 0.1]))
    assert not moving.any() and (own == 0).all()


def test_neighbours_whose_motions_differ_are_two_objects():
    left, right = surface(CAR, (0.0, 1.0, -1.6), 0), surface(CAR, (0.0, -1.3, -1.6), 3)
    source = cloud(left, right, ground())
    _, answer = answer_of(source, source, torch.arange(1200), (1.0, 0.0))
    assert moving_objects(answer, 0.5, ObjectSettings())[1] == 1
    opposite = answer.squares.centers()[:, 1] < 0.8
    motion = torch.where(opposite[:, None], -answer.motion, answer.motion)
    parted = FlowAnswer(motion, answer.moves, answer.shifts, answer.rows, answer.squares)
    objects, count = moving_objects(parted, 0.5, ObjectSettings())
    assert count == 2
    taken = objects >= 0
    assert (objects[taken & opposite].unique().numel(), objects[taken & ~opposite].unique().numel()) == (1, 1)


def test_settings_that_make_no_sense_are_refused():
    for make in (
        lambda: ObjectSettings(candidate=0.0),
        lambda: ObjectFit(iterations=0),
        lambda: ObjectFit(min_gain=-1.0),
        lambda: ObjectRefinement(spacing=0.0),
    ):
        with pytest.raises(ValueError, match=r"flow\.refine"):
            make()
