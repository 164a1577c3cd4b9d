"""Scenes: seeds, roads, kinematics, what is in them."""

from collections import Counter

import numpy as np
import pytest

from equilidar.data.simulator import SceneOptions, make_scene, make_sensor, simulate_sweep
from equilidar.data.simulator.classes import BOXED, SEMANTICS
from equilidar.data.simulator.layout import LANE, make_layout
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.traffic import TICK


def _same(a: Scene, b: Scene) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("parts", "part_object", "semantic", "low", "high", "pose", "path_of", "paths", "ego")
    ) and np.array_equal(a.ground.grid, b.ground.grid)


def test_a_scene_is_a_function_of_seed_and_sequence(scenes: list[Scene]) -> None:
    assert _same(make_scene(11, 2), scenes[2])
    assert not _same(make_scene(12, 2), scenes[2])
    assert not _same(scenes[1], scenes[2])


def test_the_ego_vehicle_follows_the_road(scenes: list[Scene]) -> None:
    turned = []
    for scene in scenes:
        ego = scene.ego
        # It stays on the road, in its lane: at least half a vehicle's width from the kerb.
        edge = scene.ground.edges(ego[:, :2])
        assert edge.max() < -1.0
        steps = np.diff(ego[:, :2], axis=0)
        moving = np.hypot(steps[:, 0], steps[:, 1]) > 0.05
        heading = np.arctan2(steps[:, 1], steps[:, 0])
        error = (heading - (ego[1:, 3] + ego[:-1, 3]) / 2 + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(error[moving]).max() < 0.05
        turned.append(np.ptp(ego[:, 3]))
    assert max(turned) > 0.2


def test_routes_turn_and_branch_and_do_not_meet_themselves() -> None:
    turns, branches = [], []
    for seed in range(30):
        layout = make_layout(np.random.default_rng(seed))
        route = layout.streets[0]
        turns.append(np.ptp(route.yaw))
        branches.append(len(layout.streets) - 1)
        apart = np.abs(np.subtract.outer(np.arange(len(route.xy)), np.arange(len(route.xy)))) > 60
        distance = np.linalg.norm(route.xy[:, None] - route.xy[None], axis=-1)
        assert distance[apart].min() > 15.0
        assert np.abs(route.curvature).max() < 1 / (LANE + 3)
    assert np.mean(np.array(turns) > 1.3) > 0.3
    assert np.mean(branches) > 1.5


def test_roads_give_a_canonical_heading(scenes: list[Scene]) -> None:
    """Parked and moving cars are mostly parallel to the ego vehicle: rotation can be told from the scene."""
    off = []
    for scene in scenes:
        sensor = make_sensor(azimuth_steps=360, beam_stride=2)
        for frame in (0, 60, 120):
            objects = simulate_sweep(scene, sensor, frame).objects
            near = (np.abs(objects.center[:, :2]).max(1) < 25) & (objects.semantic == SEMANTICS.index("Car"))
            off.append(np.abs((objects.yaw[near] + np.pi / 2) % np.pi - np.pi / 2))
    parallel = np.mean(np.concatenate(off) < np.radians(20))
    assert parallel > 0.45  # 0.22 if headings were uniform


def test_vehicles_move_plausibly(scenes: list[Scene]) -> None:
    vehicles = [SEMANTICS.index(name) for name in ("Car", "Van", "Truck")]
    seen = 0
    for scene in scenes:
        movers = np.flatnonzero((scene.path_of >= 0) & np.isin(scene.semantic, vehicles))
        for path in [*scene.paths[scene.path_of[movers]][..., [0, 1, 3]], scene.ego[:, [0, 1, 3]]]:
            seen += 1
            velocity = np.diff(path[:, :2], axis=0) / TICK
            speed = np.hypot(velocity[:, 0], velocity[:, 1])
            assert speed.max() < 20
            # Smoothed over half a second: poses are sampled along a polyline.
            smooth = np.convolve(speed, np.ones(5) / 5, mode="valid")
            assert np.abs(np.diff(smooth)).max() / TICK < 6.0
            rate = np.abs(np.diff(np.unwrap(path[:, 2]))) / TICK
            assert np.all(rate * speed < 6.5)  # sideways acceleration, m/s^2
            heading = np.arctan2(velocity[:, 1], velocity[:, 0])
            error = (heading - path[1:, 2] + np.pi) % (2 * np.pi) - np.pi
            assert np.abs(error[speed > 1]).max() < 0.25  # they drive forwards
    assert seen > 15


def test_no_two_boxes_ever_overlap(scenes: list[Scene]) -> None:
    """Centres of one box never lie within another one."""
    for scene in scenes[:2]:
        boxed = np.flatnonzero(np.isin(scene.semantic, [SEMANTICS.index(name) for name in BOXED]))
        middle, half = (scene.low + scene.high)[boxed] / 2, (scene.high - scene.low)[boxed] / 2
        for time in (0.0, 7.3, 15.0):
            poses = scene.poses(time)[boxed]
            cos, sin = np.cos(poses[:, 3]), np.sin(poses[:, 3])
            x = poses[:, 0] + cos * middle[:, 0] - sin * middle[:, 1]
            y = poses[:, 1] + sin * middle[:, 0] + cos * middle[:, 1]
            dx, dy = x[None] - x[:, None], y[None] - y[:, None]
            along = np.abs(dx * cos[:, None] + dy * sin[:, None])
            across = np.abs(dy * cos[:, None] - dx * sin[:, None])
            inside = (along < half[:, :1]) & (across < half[:, 1:2])
            np.fill_diagonal(inside, False)
            assert not inside.any()


def test_sweeps_are_crowded_with_all_classes(scenes: list[Scene]) -> None:
    sensor = make_sensor(azimuth_steps=720)
    totals: Counter[str] = Counter()
    objects, levels = [], Counter()
    for scene in scenes:
        for frame in (0, 90):
            sweep = simulate_sweep(scene, sensor, frame)
            objects.append(len(np.unique(sweep.instance)))
            shown = sweep.objects.num_points >= 5
            totals.update(SEMANTICS[i] for i in sweep.objects.semantic[shown])
            levels.update(sweep.objects.difficulty.tolist())
    assert min(objects) > 60
    assert totals["Car"] / 6 > 8
    assert totals["Pedestrian"] / 6 > 3
    assert totals["Cyclist"] / 6 > 1
    assert totals["Van"] + totals["Truck"] > 4
    assert all(levels[level] > 6 for level in range(4))


def test_every_kind_of_surface_is_seen(scenes: list[Scene]) -> None:
    sensor = make_sensor(azimuth_steps=720)
    seen = np.concatenate([np.unique(simulate_sweep(scene, sensor, 0).semantic) for scene in scenes])
    assert set(seen.tolist()) >= set(range(len(SEMANTICS))) - {SEMANTICS.index("Truck")}


def test_options_empty_a_scene() -> None:
    nobody = SceneOptions(parked=0, traffic=0, people=0, cyclists=0, clutter=0)
    scene = make_scene(0, 0, nobody)
    assert not np.isin(scene.semantic, [SEMANTICS.index(name) for name in ("Pedestrian", "Cyclist", "Clutter")]).any()
    assert len(scene.paths) == 0
    with pytest.raises(ValueError, match="people"):
        SceneOptions(people=-1)


def test_a_scene_ends(scenes: list[Scene]) -> None:
    with pytest.raises(ValueError, match="20 s"):
        scenes[0].poses(30.0)
