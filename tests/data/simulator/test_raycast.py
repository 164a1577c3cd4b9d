"""What rays meet: known ranges, occlusion, and the sector search against brute force."""

from dataclasses import replace

import numpy as np
import pytest

from equilidar.data.simulator import Sensor, make_sensor, simulate_sweep
from equilidar.data.simulator.capture import capture
from equilidar.data.simulator.classes import SEMANTICS
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.objects.vehicles import make_car
from equilidar.data.simulator.primitives import place_parts
from equilidar.data.simulator.scene import Scene
from tests.data.simulator.stage import brute_force, stage, wall


@pytest.mark.parametrize("name", ["hdl64e", "hdl32e", "vls128"])
@pytest.mark.parametrize("distance", [4.0, 17.3, 55.0])
def test_a_wall_returns_its_range(name: str, distance: float) -> None:
    sensor = make_sensor(name, azimuth_steps=256).noise_free()
    sweep = simulate_sweep(stage([wall(distance)]), sensor, 0)
    on_wall = sweep.semantic == SEMANTICS.index("Wall")
    assert on_wall.sum() > 100
    ahead = on_wall & (np.abs(sweep.xyz[:, 1]) < 20)
    np.testing.assert_allclose(sweep.xyz[ahead, 0], distance, atol=1e-4)
    # The range along each ray follows from its angles alone.
    azimuth, elevation = sensor.azimuth()[sweep.column], np.radians(np.array(sensor.elevation))[sweep.beam]
    expected = distance / (np.cos(azimuth) * np.cos(elevation))
    measured = np.linalg.norm(sweep.xyz.astype(np.float64), axis=1)
    np.testing.assert_allclose(measured[ahead], expected[ahead], rtol=1e-5)


@pytest.mark.parametrize("name", ["hdl64e", "hdl32e", "vls128"])
def test_the_ground_is_met_where_beams_point(name: str) -> None:
    sensor = make_sensor(name, azimuth_steps=64).noise_free()
    sweep = simulate_sweep(stage([]), sensor, 0)
    np.testing.assert_allclose(sweep.xyz[:, 2], -1.73, atol=1e-4)
    elevation = np.radians(np.array(sensor.elevation))
    reach = 1.73 / -np.sin(elevation[elevation < 0])
    assert len(sweep.xyz) == 64 * (reach <= sensor.max_range).sum()


def test_nothing_is_seen_behind_an_occluder() -> None:
    rng = np.random.default_rng(0)
    screen = Shape()
    screen.prism((0.0, 0.0, 2.0), (0.2, 3.0, 4.0), 0.5)
    car = make_car(rng)
    sensor = make_sensor(azimuth_steps=720).noise_free()
    alone = simulate_sweep(stage([(car, "Car", (20.0, 0.0, 0.0))]), sensor, 0)
    assert alone.objects.num_points[0] > 100
    assert alone.objects.occluded[0] == 0.0
    hidden = simulate_sweep(stage([(car, "Car", (20.0, 0.0, 0.0)), (screen, "Wall", (6.0, 0.0, 0.0))]), sensor, 0)
    assert hidden.objects.num_points[0] == 0
    assert hidden.objects.occluded[0] == 1.0
    # No point at all lies in the shadow: the cone from the sensor through the screen's face, beyond the screen.
    xyz = hidden.xyz.astype(np.float64)
    face = 5.9
    shadow = (xyz[:, 0] > 6.2) & (np.abs(xyz[:, 1] / xyz[:, 0]) < 1.49 / face)
    below_top = (xyz[:, 2] / xyz[:, 0]) * face + 1.73 < 3.99
    assert not np.any(shadow & below_top)


def test_occlusion_is_the_share_of_hidden_rays() -> None:
    board = Shape()
    board.prism((0.0, 0.0, 2.0), (0.1, 2.0, 4.0), 0.5)
    shade = Shape()
    shade.prism((0.0, 0.0, 3.0), (0.1, 4.0, 6.0), 0.5)
    sensor = make_sensor(azimuth_steps=2048).noise_free()
    # The shade ends exactly on the line of sight to the board's middle: half of it is hidden.
    placed = [(board, "Car", (20.0, 0.0, 0.0)), (shade, "Wall", (10.0, 2.0, 0.0))]
    sweep = simulate_sweep(stage(placed), sensor, 0)
    assert sweep.objects.occluded[0] == pytest.approx(0.5, abs=0.06)


def test_sectors_lose_nothing_against_brute_force(solid_scene: Scene, exact: Sensor) -> None:
    sensor = replace(exact, azimuth_steps=180)
    sweep = simulate_sweep(solid_scene, sensor, 12)
    moment = capture(solid_scene, sensor, 1.2, np.arange(len(solid_scene.parts)))
    azimuth, elevation = sensor.azimuth(), np.radians(np.array(sensor.elevation))
    rng = np.random.default_rng(0)
    column, beam = rng.integers(0, 180, 800), rng.integers(0, 64, 800)
    a, e = azimuth[column], elevation[beam]
    directions = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], 1)
    distance, which = brute_force(solid_scene.parts, moment.rotation, moment.center, directions, sensor.min_range)
    measured = np.full((180, 64), np.inf)
    part = np.full((180, 64), -2)
    measured[sweep.column, sweep.beam] = np.linalg.norm(sweep.xyz.astype(np.float64), axis=1)
    part[sweep.column, sweep.beam] = sweep.part
    ours, rows = measured[column, beam], part[column, beam]
    solid = rows >= 0
    assert solid.sum() > 150
    np.testing.assert_allclose(ours[solid], distance[solid], rtol=1e-5)
    np.testing.assert_array_equal(rows[solid], which[solid])
    # Where the ground or nothing was met, no solid stands before it.
    assert np.all(distance[~solid] >= np.minimum(ours[~solid], sensor.max_range) - 1e-4)


def test_ground_points_lie_on_the_first_ground_of_their_ray(scenes: list[Scene], exact: Sensor) -> None:
    scene = scenes[0]
    sweep = simulate_sweep(scene, exact, 30)
    ground = np.flatnonzero(sweep.part < 0)
    pose = sweep.world_T_sensor
    world = sweep.xyz[ground].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(world[:, 2], scene.ground.heights(world[:, :2]), atol=2e-5)
    # Nowhere before does the ray dip under the ground by more than the marching step can miss.
    chosen = np.random.default_rng(0).choice(len(world), 300, replace=False)
    start = pose[:3, 3]
    share = np.linspace(0.1, 0.995, 400)[:, None, None]
    points = start + share * (world[chosen] - start)
    heights = scene.ground.heights(points[..., :2].reshape(-1, 2)).reshape(points.shape[:2])
    under = (heights - points[..., 2]).max(0)
    assert np.quantile(under, 0.98) < 0.005
    assert under.max() < 0.1


def test_packets_lose_nothing(solid_scene: Scene, exact: Sensor) -> None:
    """With rolling shutter only the parts of each packet's sector are looked at; here all moments are the same one."""
    slow = replace(exact, rate=1e5, packets=30)
    whole, packets = (simulate_sweep(solid_scene, sensor, 0) for sensor in (slow, replace(slow, rolling_shutter=True)))
    assert len(whole.xyz) == len(packets.xyz)
    # Parts of one object that share a face may take turns.
    np.testing.assert_array_equal(whole.instance, packets.instance)
    np.testing.assert_allclose(whole.xyz, packets.xyz, atol=1e-2)
    np.testing.assert_array_equal(whole.objects.occluded, packets.objects.occluded)


def test_placed_parts_follow_their_object() -> None:
    shape = Shape()
    shape.prism((1.0, 0.0, 0.5), (1.0, 1.0, 1.0), 0.5)
    _, center = place_parts(shape.rows(), np.zeros(1, dtype=np.int64), np.array([[10.0, 5.0, 2.0, np.pi / 2, 0.0]]))
    np.testing.assert_allclose(center, [[10.0, 6.0, 2.5]], atol=1e-12)
