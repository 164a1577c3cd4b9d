"""Where the sensor and the parts of a scene are at one moment."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.data.simulator.primitives import place_parts
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.sensor import Sensor

# What an object may move in the sensor's frame within half a turn: metres, and radians for the sensor's own turning.
_DRIFT, _TURN = 4.0, 0.1


@dataclass(slots=True)
class Capture:
    """Solids in the frame of the sensor.

    Attributes:
        time: seconds.
        sensor: (4,) world x, y, z and yaw of the sensor.
        rows: (R,) rising rows of the scene's parts that are given.
        rotation: (R, 3, 3) from each part's own frame to the sensor's.
        center: (R, 3) metres.
    """

    time: float
    sensor: Float64[np.ndarray, " 4"]
    rows: Int64[np.ndarray, " R"]
    rotation: Float64[np.ndarray, "R 3 3"]
    center: Float64[np.ndarray, "R 3"]


def capture(scene: Scene, sensor: Sensor, time: float, rows: Int64[np.ndarray, " R"]) -> Capture:
    """Place parts in the frame of the sensor.

    Args:
        scene: what there is.
        sensor: what looks at it.
        time: seconds.
        rows: rising rows of the scene's parts.
    """
    pose = scene.sensor_pose(time, sensor.height)
    poses = scene.poses(time)
    cos, sin = np.cos(pose[3]), np.sin(pose[3])
    dx, dy = poses[:, 0] - pose[0], poses[:, 1] - pose[1]
    poses[:, 0], poses[:, 1] = cos * dx + sin * dy, cos * dy - sin * dx
    poses[:, 2] -= pose[2]
    poses[:, 3] -= pose[3]
    return Capture(time, pose, rows, *place_parts(scene.parts[rows], scene.part_object[rows], poses))


class Surroundings:
    """Tells which parts may be met in which direction around a moment.

    Args:
        scene: what there is.
        sensor: what looks at it.
        time: middle of the turn, seconds.
    """

    def __init__(self, scene: Scene, sensor: Sensor, time: float) -> None:
        pose = scene.sensor_pose(time, sensor.height)
        reach = np.abs(np.stack([scene.low, scene.high])).max(0)[:, :2]
        away = scene.poses(time)[:, :2] - pose[:2]
        radius, distance = np.hypot(*reach.T) + _DRIFT, np.hypot(*away.T)
        self._owner = scene.part_object
        self._near = distance < sensor.max_range + radius
        self._azimuth = np.arctan2(away[:, 1], away[:, 0]) - pose[3]
        around = distance <= radius
        self._half = np.where(around, np.pi, np.arcsin(np.minimum(radius / np.maximum(distance, 1e-9), 1.0)))

    def rows(self, azimuth: float = 0.0, half: float = np.pi) -> Int64[np.ndarray, " R"]:
        """Return the parts whose object may be met by rays within `half` radians of `azimuth`."""
        off = np.abs((self._azimuth - azimuth + np.pi) % (2 * np.pi) - np.pi)
        return np.flatnonzero((self._near & (off <= self._half + half + _TURN))[self._owner])
