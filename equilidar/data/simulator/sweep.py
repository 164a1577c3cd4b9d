"""Measures one sweep of a scene, with everything that is known about each point."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from equilidar.compiled import compiled
from equilidar.data.simulator.annotate import ObjectTable, annotate
from equilidar.data.simulator.capture import Capture, Surroundings, capture
from equilidar.data.simulator.classes import semantic_id
from equilidar.data.simulator.primitives import REFLECTANCE
from equilidar.data.simulator.raycast import GROUND, NOTHING, Caster, Returns
from equilidar.data.simulator.scene import Scene, pose_matrix
from equilidar.data.simulator.sensor import Sensor

ROAD, SIDEWALK, TERRAIN = (semantic_id(name) for name in ("Road", "Sidewalk", "Terrain"))
_GROUND_REFLECTANCE = np.array([0.3, 0.42, 0.36])
_MARKING = 0.85


@dataclass(slots=True)
class SimulatedSweep:
    """A sweep and its whole truth.

    Coordinates are x forward, y left, z up in the sensor's frame. With rolling shutter each point is in the sensor's
    frame at its own capture time, as a real sensor reports it before any correction; `world_T_sensor` and the objects
    are those of the reference time, when the sensor faces forward.

    Attributes:
        xyz: (N, 3) metres.
        intensity: (N,) 0..1.
        time: (N,) seconds from the reference time to the capture; 0 without rolling shutter.
        column, beam: (N,) where the point is in the range image (beam 0 is the lowest).
        instance: (N,) object number in the scene, -1 on the ground.
        part: (N,) row of the scene's parts, -1 on the ground.
        semantic: (N,) index into `classes.SEMANTICS`.
        flow: (N, 3) metres: where the point is at the target's reference time in the target's sensor frame, minus
            `xyz`. Ego motion is included; limbs move with their own limb.
        rest: (N, 3) metres: the flow that the point would have if it stood still over ground from its capture on.
        world_T_sensor: (4, 4) pose at the reference time.
        target_T_sensor: (4, 4) ego motion from this sweep's to the target's reference time.
        timestamp: the reference time, seconds.
        objects: the boxed objects that have points, or would have if nothing hid them.
    """

    xyz: Float32[np.ndarray, "N 3"]
    intensity: Float32[np.ndarray, " N"]
    time: Float32[np.ndarray, " N"]
    column: Int64[np.ndarray, " N"]
    beam: Int64[np.ndarray, " N"]
    instance: Int64[np.ndarray, " N"]
    part: Int64[np.ndarray, " N"]
    semantic: Int64[np.ndarray, " N"]
    flow: Float32[np.ndarray, "N 3"]
    rest: Float32[np.ndarray, "N 3"]
    world_T_sensor: Float64[np.ndarray, "4 4"]
    target_T_sensor: Float64[np.ndarray, "4 4"]
    timestamp: float
    objects: ObjectTable


def simulate_sweep(scene: Scene, sensor: Sensor, frame: int, gap: int = 1) -> SimulatedSweep:
    """Measure frame `frame` of a scene; the same bits whenever and wherever it is called.

    Args:
        scene: what there is.
        sensor: what measures.
        frame: number of the turn; frame 0 is at time 0.
        gap: turns to the target that the flow leads to.

    Raises:
        ValueError: the scene ends before the frame or its target.
    """
    rng = np.random.default_rng(np.random.SeedSequence([scene.seed, scene.sequence, frame, 1]))
    now, then = frame * sensor.period, (frame + gap) * sensor.period
    bounds = np.linspace(0, sensor.azimuth_steps, _groups(sensor) + 1).round().astype(np.int64)
    returns, captures = _cast(scene, sensor, now, bounds, int(rng.integers(2**63)))
    semantic, reflectance = _surfaces(scene, sensor, returns, captures, bounds)
    distance, intensity, kept = _measure(sensor, returns, reflectance, rng)
    column, beam = np.nonzero(kept)
    xyz = _directions(sensor)[column, beam] * distance[column, beam, None]
    part = returns.part[column, beam].astype(np.int64)
    target = capture(scene, sensor, then, np.unique(part[part >= 0]))
    group = np.searchsorted(bounds, column, side="right") - 1
    instance = np.append(scene.part_object, -1)[part]
    world_T_sensor = pose_matrix(scene.sensor_pose(now, sensor.height))
    return SimulatedSweep(
        xyz=xyz.astype(np.float32),
        intensity=intensity[column, beam].astype(np.float32),
        time=np.array([moment.time - now for moment in captures])[group].astype(np.float32),
        column=column,
        beam=beam,
        instance=instance,
        part=part,
        semantic=semantic[column, beam],
        flow=(_advect(xyz, part, group, captures, target) - xyz).astype(np.float32),
        rest=(_advect(xyz, np.full_like(part, -1), group, captures, target) - xyz).astype(np.float32),
        world_T_sensor=world_T_sensor,
        target_T_sensor=np.linalg.inv(pose_matrix(target.sensor)) @ world_T_sensor,
        timestamp=now,
        objects=annotate(scene, sensor, now, instance, returns.alone, returns.seen),
    )


def _groups(sensor: Sensor) -> int:
    return min(sensor.packets, sensor.azimuth_steps) if sensor.rolling_shutter else 1


def _cast(scene: Scene, sensor: Sensor, now: float, bounds: np.ndarray, seed: int) -> tuple[Returns, list[Capture]]:
    """Cast one turn; the columns between two `bounds` see the world at the same moment."""
    caster = Caster(sensor, scene.ground, scene.parts, scene.part_object, scene.num_objects, seed)
    surroundings = Surroundings(scene, sensor, now)
    captures: list[Capture] = []
    for first, last in itertools.pairwise(bounds.tolist()):
        time, rows = now, surroundings.rows()
        if sensor.rolling_shutter:
            middle, width = (first + last) / (2 * sensor.azimuth_steps), (last - first) / sensor.azimuth_steps
            time = now + (middle - 0.5) * sensor.period
            rows = surroundings.rows(np.pi * (1 - 2 * middle), np.pi * width)
        captures.append(capture(scene, sensor, time, rows))
        caster.cast(captures[-1], first, last)
    return caster.finish(), captures


def _directions(sensor: Sensor) -> np.ndarray:
    """Return unit vectors (columns, beams, 3)."""
    azimuth, elevation = sensor.azimuth()[:, None], np.radians(np.array(sensor.elevation))[None]
    x, y = np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation)
    return np.stack([x, y, np.broadcast_to(np.sin(elevation), x.shape)], -1)


def _surfaces(
    scene: Scene,
    sensor: Sensor,
    returns: Returns,
    captures: list[Capture],
    bounds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the semantic class and the reflectance that each ray met (columns, beams)."""
    part = returns.part
    # One more row at the end, for what is no part.
    semantic = np.append(scene.semantic[scene.part_object], 0)[np.maximum(part, -1)]
    reflectance = np.append(scene.parts[:, REFLECTANCE], 0.0)[np.maximum(part, -1)]
    column, beam = np.nonzero(part == GROUND)
    sensors = np.array([moment.sensor for moment in captures])
    pose = sensors[np.searchsorted(bounds, column, side="right") - 1]
    reach = returns.distance[column, beam] * np.cos(np.radians(np.array(sensor.elevation)))[beam]
    angle = sensor.azimuth()[column] + pose[:, 3]
    xy = np.stack([pose[:, 0] + reach * np.cos(angle), pose[:, 1] + reach * np.sin(angle)], 1)
    edge = scene.ground.edges(xy)
    kind = np.digitize(edge, [0.0, 2.6])
    semantic[column, beam] = np.array([ROAD, SIDEWALK, TERRAIN])[kind]
    # Lines beside the driving lanes.
    marked = np.abs(edge + 0.25) < 0.07
    reflectance[column, beam] = np.where(marked, _MARKING, _GROUND_REFLECTANCE[kind])
    return semantic, reflectance


def _measure(
    sensor: Sensor, returns: Returns, reflectance: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, "C B"]]:
    """Return the measured range, the intensity and which rays came back (columns, beams)."""
    shape = returns.part.shape
    noise, speckle = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)
    chance = rng.random(shape, np.float32)
    met = returns.part != NOTHING
    distance = np.where(met, returns.distance, 1.0)
    kept = met
    if sensor.dropout > 0:
        signal = reflectance * returns.cosine * (sensor.sensitivity / distance) ** 2
        kept = met & (chance < (1.0 - sensor.dropout) * -np.expm1(-signal))
    brightness = reflectance * (0.4 + 0.6 * np.sqrt(returns.cosine)) * np.exp(-distance / 200.0)
    brightness = brightness * (1.0 + 5.0 * sensor.intensity_noise * speckle)
    # Velodyne reports whole hundredths.
    intensity = np.clip(np.round(brightness * 100.0) / 100.0, 0.0, 0.99)
    distance = distance + sensor.range_noise * noise
    return distance, intensity, kept & (distance > 0)


def _advect(
    xyz: np.ndarray, part: np.ndarray, group: np.ndarray, captures: list[Capture], target: Capture
) -> np.ndarray:
    """Return where points (N, 3), in order of their groups, are at the target's time in the target's sensor frame."""
    moved = np.empty_like(xyz)
    bounds = np.searchsorted(group, np.arange(len(captures) + 1))
    into = np.searchsorted(target.rows, part)
    for moment, first, last in zip(captures, bounds[:-1], bounds[1:], strict=True):
        motion = np.linalg.inv(pose_matrix(target.sensor)) @ pose_matrix(moment.sensor)
        out_of = np.where(part[first:last] >= 0, np.searchsorted(moment.rows, part[first:last]), -1)
        solids = (moment.rotation, moment.center, target.rotation, target.center)
        _carry(xyz[first:last], out_of, into[first:last], motion, *solids, moved[first:last])
    return moved


@compiled
def _carry(xyz, out_of, into, motion, rotation, center, new_rotation, new_center, moved):  # pragma: no cover - compiled
    own = np.empty(3)
    for n in range(len(xyz)):
        p, q = out_of[n], into[n]
        if p < 0:
            for i in range(3):
                m = motion[i]
                moved[n, i] = m[0] * xyz[n, 0] + m[1] * xyz[n, 1] + m[2] * xyz[n, 2] + m[3]
            continue
        # Into the part's own frame as it was, and out of it as it will be.
        x, y, z = xyz[n, 0] - center[p, 0], xyz[n, 1] - center[p, 1], xyz[n, 2] - center[p, 2]
        for i in range(3):
            own[i] = rotation[p, 0, i] * x + rotation[p, 1, i] * y + rotation[p, 2, i] * z
        for i in range(3):
            r = new_rotation[q, i]
            moved[n, i] = new_center[q, i] + r[0] * own[0] + r[1] * own[1] + r[2] * own[2]
