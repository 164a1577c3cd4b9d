"""Noise, losses, intensity, rolling shutter, boxes."""

from dataclasses import replace

import numpy as np
import pytest

from equilidar.data.simulator import Sensor, SimulatedSweep, make_sensor, simulate_sweep
from equilidar.data.simulator.annotate import rate_difficulty
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.objects.vehicles import make_car
from equilidar.data.simulator.scene import Scene
from tests.data.simulator.stage import stage, straight, wall


def distance_to_boxes(sweep: SimulatedSweep) -> np.ndarray:
    """Return (M, N): how far each point is outside of each box; negative inside."""
    objects = sweep.objects
    delta = sweep.xyz[None].astype(np.float64) - objects.center[:, None]
    cos, sin = np.cos(objects.yaw)[:, None], np.sin(objects.yaw)[:, None]
    along, across = delta[..., 0] * cos + delta[..., 1] * sin, delta[..., 1] * cos - delta[..., 0] * sin
    return (np.abs(np.stack([along, across, delta[..., 2]], -1)) - objects.size[:, None] / 2).max(-1)


@pytest.mark.parametrize("frame", [0, 57, 140])
def test_boxes_hold_exactly_the_points_of_their_object(scenes: list[Scene], exact: Sensor, frame: int) -> None:
    for scene in scenes[:2]:
        sweep = simulate_sweep(scene, replace(exact, azimuth_steps=512), frame)
        outside = distance_to_boxes(sweep)
        own = sweep.instance[None] == sweep.objects.track[:, None]
        assert own.any(1).sum() > 10
        assert np.all(outside[own] < 1e-4)
        assert np.all(outside[~own] > -1e-4)
        np.testing.assert_array_equal(own.sum(1), sweep.objects.num_points)


def test_with_noise_points_stay_within_three_sigma(scenes: list[Scene]) -> None:
    sensor = make_sensor(azimuth_steps=720, range_noise=0.02)
    sweep = simulate_sweep(scenes[2], sensor, 40)
    own = sweep.instance[None] == sweep.objects.track[:, None]
    outside = distance_to_boxes(sweep)[own]
    assert len(outside) > 1000
    assert np.mean(outside < 3 * 0.02) > 0.996
    assert outside.max() > 1e-3  # the noise is there


def test_range_noise_has_the_given_spread() -> None:
    sensor = replace(make_sensor(azimuth_steps=512, range_noise=0.05, dropout=0.0, intensity_noise=0.0))
    scene = stage([wall(20.0)])
    noisy, clean = simulate_sweep(scene, sensor, 0), simulate_sweep(scene, sensor.noise_free(), 0)
    error = np.linalg.norm(noisy.xyz.astype(float), axis=1) - np.linalg.norm(clean.xyz.astype(float), axis=1)
    assert abs(error.mean()) < 0.002
    assert error.std() == pytest.approx(0.05, rel=0.05)


def _share_seen(distance: float, yaw: float, reflectance: float) -> float:
    """Return the share of the rays on a tilted board that come back."""
    board = Shape()
    board.prism((0.0, 0.0, 2.0), (0.02, 6.0, 4.0), reflectance)
    scene = stage([(board, "Car", (distance, 0.0, yaw))])
    sensor = make_sensor(azimuth_steps=2048, max_range=200.0)
    kept = simulate_sweep(scene, sensor, 0).objects.num_points[0]
    return kept / simulate_sweep(scene, sensor.noise_free(), 0).objects.num_points[0]


def test_losses_grow_with_range_and_grazing_angle_and_darkness() -> None:
    by_range = [_share_seen(distance, 0.0, 0.02) for distance in (10.0, 50.0, 90.0)]
    assert by_range[0] > by_range[1] + 0.05 > by_range[2] + 0.1
    assert by_range[0] > 0.93
    by_angle = [_share_seen(50.0, yaw, 0.02) for yaw in (0.0, 1.0, 1.4)]
    assert by_angle[0] > by_angle[1] + 0.05 > by_angle[2] + 0.1
    assert _share_seen(60.0, 0.0, 0.6) > _share_seen(60.0, 0.0, 0.01) + 0.3


def test_intensity_follows_material_and_incidence() -> None:
    sensor = make_sensor(azimuth_steps=1024).noise_free()

    def brightness(reflectance: float, yaw: float) -> float:
        board = Shape()
        board.prism((0.0, 0.0, 2.0), (0.02, 3.0, 4.0), reflectance)
        sweep = simulate_sweep(stage([(board, "Car", (10.0, 0.0, yaw))]), sensor, 0)
        return float(sweep.intensity[sweep.instance == 0].mean())

    assert brightness(0.6, 0.0) > 1.8 * brightness(0.3, 0.0) > 0
    assert brightness(0.6, 0.0) > brightness(0.6, 1.3) + 0.05
    assert 0 <= brightness(3.0, 0.0) <= 1


def test_difficulty_follows_points_and_occlusion() -> None:
    points = np.array([500, 50, 50, 49, 15, 15, 14, 5, 5, 4, 900])
    occluded = np.array([0.0, 0.15, 0.2, 0.0, 0.5, 0.6, 0.0, 0.8, 0.9, 0.0, 1.0])
    np.testing.assert_array_equal(rate_difficulty(points, occluded), [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])


def test_rolling_shutter_bends_what_moves_and_the_time_channel_undoes_it() -> None:
    speed = 20.0
    scene = stage([], [(make_car(np.random.default_rng(0)), "Car", straight(-10.0, 6.0, speed), None)])
    sensor = replace(make_sensor(azimuth_steps=1024).noise_free(), rolling_shutter=True)
    sweep = simulate_sweep(scene, sensor, 5)
    assert sensor.contract.channels == ("intensity", "time")
    # Clockwise from behind, facing forward in the middle: time falls with the azimuth.
    azimuth = np.arctan2(sweep.xyz[:, 1], sweep.xyz[:, 0])
    np.testing.assert_allclose(sweep.time, -azimuth / (2 * np.pi) * sensor.period, atol=0.6 * sensor.period / 64)
    car = sweep.instance == 0
    assert car.sum() > 50
    still = sweep.xyz[car].astype(np.float64)
    still[:, 0] -= speed * sweep.time[car]
    objects = sweep.objects
    inside = np.abs(still - objects.center[0]) <= objects.size[0] / 2 + 1e-3
    assert inside.all()
    raw = np.abs(sweep.xyz[car] - objects.center[0]) <= objects.size[0] / 2 + 1e-3
    assert not raw.all()
    assert make_sensor().contract.channels == ("intensity",)
