"""What is known of each object in a sweep."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.data.simulator.classes import BOXED, semantic_id
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.sensor import Sensor

# (fewest points, largest occluded fraction) of easy, moderate and hard objects.
DIFFICULTIES: tuple[tuple[int, float], ...] = ((50, 0.15), (15, 0.5), (5, 0.8))
TOO_HARD = 3


@dataclass(slots=True)
class ObjectTable:
    """Boxed objects of one sweep, in the sensor's frame at the reference time.

    Attributes:
        track: (M,) object number in the scene.
        semantic: (M,) index into `classes.SEMANTICS`.
        center: (M, 3) geometric centre, metres.
        size: (M, 3) length, width, height.
        yaw: (M,) counter-clockwise from +x.
        velocity: (M, 3) over ground, along the sensor's axes, m/s.
        num_points: (M,) returns, after noise and losses.
        occluded: (M,) fraction of the rays that would meet the object alone and meet something else before it.
        difficulty: (M,) 0 easy: at least 50 points, at most 15 % occluded; 1 moderate: 15 and 50 %; 2 hard: 5 and
            80 %; 3 the rest.
    """

    track: Int64[np.ndarray, " M"]
    semantic: Int64[np.ndarray, " M"]
    center: Float64[np.ndarray, "M 3"]
    size: Float64[np.ndarray, "M 3"]
    yaw: Float64[np.ndarray, " M"]
    velocity: Float64[np.ndarray, "M 3"]
    num_points: Int64[np.ndarray, " M"]
    occluded: Float64[np.ndarray, " M"]
    difficulty: Int64[np.ndarray, " M"]


def rate_difficulty(
    num_points: Int64[np.ndarray, " M"], occluded: Float64[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"]:
    """Return 0, 1 or 2 for the first level of `DIFFICULTIES` that an object meets, else 3."""
    difficulty = np.full(len(num_points), TOO_HARD, dtype=np.int64)
    for level in reversed(range(len(DIFFICULTIES))):
        fewest, most = DIFFICULTIES[level]
        difficulty[(num_points >= fewest) & (occluded <= most)] = level
    return difficulty


def annotate(
    scene: Scene,
    sensor: Sensor,
    time: float,
    instance: Int64[np.ndarray, " N"],
    alone: Int64[np.ndarray, " O"],
    seen: Int64[np.ndarray, " O"],
) -> ObjectTable:
    """Return the boxed objects that rays reach or would reach if nothing hid them.

    Args:
        scene: what there is.
        sensor: what measured.
        time: reference time, seconds.
        instance: object of each point that came back.
        alone: rays that would meet each object alone.
        seen: rays that meet it.
    """
    boxed = np.isin(scene.semantic, [semantic_id(name) for name in BOXED])
    track = np.flatnonzero(boxed & (alone > 0))
    pose, poses = scene.sensor_pose(time, sensor.height), scene.poses(time)[track]
    cos, sin = np.cos(pose[3]), np.sin(pose[3])
    into = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    middle = (scene.low[track] + scene.high[track]) / 2
    c, s = np.cos(poses[:, 3]), np.sin(poses[:, 3])
    offset = np.stack([c * middle[:, 0] - s * middle[:, 1], s * middle[:, 0] + c * middle[:, 1], middle[:, 2]], 1)
    num_points = np.bincount(instance[instance >= 0], minlength=scene.num_objects)[track]
    occluded = 1.0 - seen[track] / alone[track]
    return ObjectTable(
        track=track,
        semantic=scene.semantic[track],
        center=(poses[:, :3] + offset - pose[:3]) @ into.T,
        size=scene.high[track] - scene.low[track],
        yaw=(poses[:, 3] - pose[3] + np.pi) % (2 * np.pi) - np.pi,
        velocity=scene.velocities(time)[track] @ into.T,
        num_points=num_points,
        occluded=occluded,
        difficulty=rate_difficulty(num_points, occluded),
    )
