"""A scene: ground, solids that stand and solids that move, and the ego vehicle's way through them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.data.simulator.ground import Ground
from equilidar.data.simulator.traffic import BEGIN, HORIZON, TICK


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a sweep is made from; a function of (seed, sequence) alone.

    Objects are numbered 0..M - 1 (their instance and track ids). The ones that move come with a path.

    Attributes:
        seed: of the data set.
        sequence: number of the scene.
        ground: the ground.
        parts: (P, K) rows of `primitives`, those of one object next to each other.
        part_object: (P,) the object of each part, rising.
        semantic: (M,) index into `classes.SEMANTICS`.
        low, high: (M, 3) corners, in the object's frame, of all that its parts sweep over a stride.
        pose: (M, 5) x, y, z, yaw and limb phase of what stands.
        path_of: (M,) row of `paths` or -1.
        paths: (N, T, 5) poses at `traffic.ticks()`.
        ego: (T, 4) x, y, z and yaw of the ground under the sensor, at the same times.
    """

    seed: int
    sequence: int
    ground: Ground
    parts: Float64[np.ndarray, "P K"]
    part_object: Int64[np.ndarray, " P"]
    semantic: Int64[np.ndarray, " M"]
    low: Float64[np.ndarray, "M 3"]
    high: Float64[np.ndarray, "M 3"]
    pose: Float64[np.ndarray, "M 5"]
    path_of: Int64[np.ndarray, " M"]
    paths: Float64[np.ndarray, "N T 5"]
    ego: Float64[np.ndarray, "T 4"]

    @property
    def num_objects(self) -> int:
        return len(self.semantic)

    def poses(self, time: float) -> Float64[np.ndarray, "M 5"]:
        """Return x, y, z, yaw and limb phase of all objects.

        Raises:
            ValueError: the scene does not last that long.
        """
        poses = self.pose.copy()
        moving = self.path_of >= 0
        poses[moving] = _interpolate(self.paths.swapaxes(0, 1), time)[self.path_of[moving]]
        return poses

    def velocities(self, time: float) -> Float64[np.ndarray, "M 3"]:
        """Return velocities over ground in world axes, m/s (central difference over two ticks)."""
        before, after = self.poses(max(time - TICK, BEGIN)), self.poses(time + TICK)
        return (after[:, :3] - before[:, :3]) / (time + TICK - max(time - TICK, BEGIN))

    def sensor_pose(self, time: float, height: float) -> Float64[np.ndarray, " 4"]:
        """Return world x, y, z and yaw of a sensor `height` metres above the ground under the vehicle."""
        pose = _interpolate(self.ego, time)
        pose[2] += height
        return pose


def _interpolate(table: np.ndarray, time: float) -> np.ndarray:
    tick = (time - BEGIN) / TICK
    if not 0 <= tick <= len(table) - 1:
        raise ValueError(f"time {time:.2f} s lies outside of the scene, which lasts {HORIZON:.0f} s")
    index = min(int(tick), len(table) - 2)
    weight = tick - index
    return table[index] * (1 - weight) + table[index + 1] * weight


def pose_matrix(pose: Float64[np.ndarray, " 4"]) -> Float64[np.ndarray, "4 4"]:
    """Return the homogeneous matrix of x, y, z, yaw."""
    matrix = np.eye(4)
    cos, sin = np.cos(pose[3]), np.sin(pose[3])
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = pose[:3]
    return matrix
