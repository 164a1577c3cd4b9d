"""The ground under a place: planes exactly, simulated streets against the truth, real frames against their boxes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.kitti_object import KittiObject
from equilidar.data.local_ground import LocalGround
from equilidar.data.simulator import SimulatedSweeps
from equilidar.ops.points_in_boxes import membership


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.12, 0.12), st.floats(-0.12, 0.12), st.floats(-3, 3), st.integers(0, 1000))
def test_planes_with_walls_and_stray_returns_below(a: float, b: float, height: float, seed: int):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-15, 15, (4000, 2))
    z = height + xy @ np.array([a, b]) + rng.normal(0, 0.01, len(xy))
    wall = np.abs(xy[:, 0] - 4) < 0.5
    z[wall] += rng.uniform(1.0, 3.0, wall.sum())
    z[rng.permutation(len(z))[:10]] -= 8.0
    places = rng.uniform(-10, 10, (10, 2))
    found = LocalGround.of_points(np.column_stack([xy, z]).astype(np.float32)).heights(places)
    expected = height + places @ np.array([a, b])
    assert np.isfinite(found).all()
    # The lowest of the returns in a cell is taken, so it lies a little low.
    np.testing.assert_allclose(found, expected, atol=0.06 + 0.5 * np.hypot(a, b))


def test_no_ground_is_no_answer():
    assert np.isnan(LocalGround.of_points(np.zeros((0, 3), np.float32)).heights(np.zeros((2, 2)))).all()
    far = np.random.default_rng(0).uniform(20, 40, (500, 3)).astype(np.float32)
    assert np.isnan(LocalGround.of_points(far).heights(np.zeros((1, 2)))).all()
    crown = np.random.default_rng(0).uniform(-4, 4, (300, 3)).astype(np.float32)
    assert np.isnan(LocalGround.of_points(crown).heights(np.array([[3.1, 0.0], [1.0, 0.0]]))).all()


def test_points_anywhere_move_the_answer_along():
    xyz = np.random.default_rng(1).uniform([-8, -8, -1.72], [8, 8, -1.70], (2000, 3))
    places = np.array([[0.0, 0.0], [3.0, -2.0]])
    shift = np.array([64.0, -32.0, 4.0])  # whole cells
    here = LocalGround.of_points(xyz.astype(np.float32)).heights(places)
    there = LocalGround.of_points((xyz + shift).astype(np.float32)).heights(places + shift[:2])
    np.testing.assert_allclose(there, here + 4, atol=1e-4)


def test_simulated_streets_against_the_truth():
    dataset = SimulatedSweeps({"name": "hdl64e", "azimuth_steps": 720, "beam_stride": 2}, 3, 2, seed=5, frame_step=16)
    rng = np.random.default_rng(0)
    errors, num = [], 0
    for index in range(len(dataset)):
        item = dataset[index]
        xyz = item.sweep.xyz[~membership(item.sweep.xyz, item.boxes.as_tensor()).any(0)]
        places = rng.uniform(-30, 30, (60, 2))
        found = LocalGround.of_points(xyz.numpy()).heights(places)
        assert item.sweep.world_T_sensor is not None
        world_T_sensor = item.sweep.world_T_sensor.numpy()
        true = np.full(len(places), -1.7)
        for _ in range(5):  # the sensor is tilted a little: straight down in its frame is found step by step
            world = np.column_stack([places, true, np.ones(len(places))]) @ world_T_sensor.T
            true += dataset.scene(index // 2).ground.heights(world[:, :2].copy()) - world[:, 2]
        seen = np.isfinite(found)
        errors.append(np.abs(found - true)[seen])
        num += len(places)
    error = np.concatenate(errors)
    assert len(error) > 0.5 * num
    assert np.median(error) < 0.05 and np.quantile(error, 0.95) < 0.25


def test_sample_kitti_boxes_stand_on_the_ground(samples: Path):
    if not (samples / "kitti_object").is_dir():
        pytest.skip(f"no KITTI frames under {samples}")
    dataset = KittiObject(samples / "kitti_object", "all")
    gaps = []
    for index in range(min(len(dataset), 20)):
        item = dataset[index]
        if len(item.boxes):
            xyz = item.sweep.xyz[~membership(item.sweep.xyz, item.boxes.as_tensor()).any(0)]
            bottom = (item.boxes.center[:, 2] - item.boxes.size[:, 2] / 2).numpy()
            gaps.append(LocalGround.of_points(xyz.numpy()).heights(item.boxes.center[:, :2].numpy()) - bottom)
    gap = np.concatenate(gaps)
    assert np.isfinite(gap).mean() > 0.7
    assert abs(np.nanmedian(gap)) < 0.1 and np.nanquantile(np.abs(gap), 0.9) < 0.3
