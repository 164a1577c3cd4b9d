"""Exact flow: advected points lie on the target's surfaces."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from equilidar.data.simulator import Sensor, make_sensor, simulate_sweep
from equilidar.data.simulator.capture import capture
from equilidar.data.simulator.classes import SEMANTICS
from equilidar.data.simulator.objects.people import make_pedestrian
from equilidar.data.simulator.objects.vehicles import make_car
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.traffic import phases, ticks
from tests.data.simulator.stage import brute_force, stage, straight


@pytest.mark.parametrize("shutter", [False, True])
def test_advected_points_are_met_by_the_targets_rays(solid_scene: Scene, exact: Sensor, shutter: bool) -> None:
    """A ray of the target towards an advected point meets the same part there, or something that hides it."""
    sensor = replace(exact, rolling_shutter=shutter)
    source = simulate_sweep(solid_scene, sensor, 20)
    moment = capture(solid_scene, sensor, 21 * sensor.period, np.arange(len(solid_scene.parts)))
    # Points at least 2 m away, so that none has come closer than the ray's origin resolves.
    solid = np.flatnonzero((source.part >= 0) & (np.linalg.norm(source.xyz, axis=1) > 4))
    chosen = np.random.default_rng(0).choice(solid, 600, replace=False)
    moved = source.xyz[chosen].astype(np.float64) + source.flow[chosen]
    distance = np.linalg.norm(moved, axis=1)
    met, part = brute_force(solid_scene.parts, moment.rotation, moment.center, moved / distance[:, None], 0.5)
    assert np.all(met < distance + 1e-3)
    same = part == source.part[chosen]
    assert same.mean() > 0.85
    # The far side of a part may be what the source saw: the ray then meets the near side first.
    assert np.mean(np.abs(met - distance)[same] < 1e-3) > 0.95


def test_ground_points_stay_on_the_ground(scenes: list[Scene], exact: Sensor) -> None:
    source, target = (simulate_sweep(scenes[2], exact, frame) for frame in (10, 11))
    ground = source.part < 0
    moved = source.xyz[ground].astype(np.float64) + source.flow[ground]
    pose = target.world_T_sensor
    world = moved @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(world[:, 2], scenes[2].ground.heights(world[:, :2]), atol=2e-4)
    static = moved - (source.xyz[ground] @ source.target_T_sensor[:3, :3].T + source.target_T_sensor[:3, 3])
    assert np.abs(static).max() < 1e-4


def test_flow_joins_the_next_sweep(scenes: list[Scene]) -> None:
    sensor = make_sensor(azimuth_steps=1024, range_noise=0.01)
    source, target = (simulate_sweep(scenes[1], sensor, frame) for frame in (30, 31))
    residual = source.flow - (
        source.xyz @ source.target_T_sensor[:3, :3].T + source.target_T_sensor[:3, 3] - source.xyz
    )
    dynamic = (np.linalg.norm(residual, axis=1) > 0.3) & (np.linalg.norm(source.xyz, axis=1) < 30)
    assert dynamic.sum() > 50
    tree = cKDTree(target.xyz)
    with_flow = tree.query(source.xyz[dynamic] + source.flow[dynamic])[0]
    without = tree.query(source.xyz[dynamic] + (source.flow - residual)[dynamic])[0]
    assert np.median(with_flow) < 0.08
    # In the mean: what slides along itself finds neighbours without flow, too.
    assert with_flow.mean() < 0.5 * without.mean()


def test_ego_motion_is_part_of_the_flow() -> None:
    car = make_car(np.random.default_rng(0))
    sensor = make_sensor(azimuth_steps=720).noise_free()
    placed = [(car, "Car", (15.0, 5.0, 0.3))]
    moving = [(make_car(np.random.default_rng(1)), "Car", straight(12.0, -5.0, 7.0), None)]
    sweep = simulate_sweep(stage(placed, moving, ego_speed=10.0), sensor, 3, gap=2)
    # The ego vehicle covers 2 m in 0.2 s: what stands comes 2 m closer, what drives at 7 m/s 0.6 m.
    still, driving = sweep.instance == 0, sweep.instance == 1
    assert still.sum() > 50
    assert driving.sum() > 50
    np.testing.assert_allclose(sweep.flow[still], np.broadcast_to([-2.0, 0, 0], (still.sum(), 3)), atol=1e-5)
    np.testing.assert_allclose(sweep.flow[driving], np.broadcast_to([-0.6, 0, 0], (driving.sum(), 3)), atol=1e-5)
    np.testing.assert_allclose(sweep.objects.velocity, [[0, 0, 0], [7, 0, 0]], atol=1e-9)


def test_limbs_move_unlike_the_body() -> None:
    path = straight(8.0, -4.0, 1.4, np.pi / 2)
    person = make_pedestrian(np.random.default_rng(3))
    scene = stage([], [(person, "Pedestrian", path, phases(path, 1.45))])
    sensor = make_sensor("vls128", azimuth_steps=2048).noise_free()
    speeds = []
    for frame in range(10):
        sweep = simulate_sweep(scene, sensor, frame)
        own = sweep.instance == 0
        low = own & (sweep.xyz[:, 2] < -1.73 + 0.5)
        trunk = own & (np.abs(sweep.xyz[:, 2] + 1.73 - 1.15) < 0.12) & (np.abs(sweep.flow[:, 0]) < 1e-3)
        assert own.sum() > 100
        speeds.append(np.linalg.norm(sweep.flow[low], axis=1) / sensor.period)
        assert np.abs(np.median(np.linalg.norm(sweep.flow[trunk], axis=1)) / sensor.period - 1.4) < 0.15
    feet = np.concatenate(speeds)
    # Feet are much slower and much faster than the body within a stride.
    assert np.quantile(feet, 0.05) < 0.9
    assert np.quantile(feet, 0.95) > 1.9
    assert ticks()[2] == pytest.approx(0.0, abs=1e-12)


def test_people_of_scenes_swing_their_limbs(scenes: list[Scene]) -> None:
    walker = SEMANTICS.index("Pedestrian")
    moving = [i for scene in scenes for i in np.flatnonzero(scene.semantic == walker)]
    spans = [np.ptp(path[:, 4]) for scene in scenes for path in scene.paths]
    assert len(moving) > 40
    assert np.median(spans) > 10
