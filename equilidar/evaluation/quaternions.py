"""Unit quaternions w, x, y, z as nuScenes and Argoverse 2 write rotations."""

import numpy as np
from jaxtyping import Float64


def yaw_of(quaternion: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, " N"]:
    """Return where the rotated x axis points, seen from above: radians, counter-clockwise from +x; any norm will do.

    It is also the z angle of the decomposition Rz Ry Rx. An x axis that points straight up has yaw 0.
    """
    w, x, y, z = quaternion.T
    return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)


def rotation_of(quaternion: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 3 3"]:
    """Return rotation matrices; quaternions are normalised first."""
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
