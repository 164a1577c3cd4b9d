"""Pose files: KITTI rows, numbered rows of KITTI-360, TUM rows, GPS/IMU packets of KITTI raw."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

_EARTH_RADIUS = 6378137.0  # metres, WGS 84 equator


def read_kitti_poses(path: Path) -> NDArray[np.float64]:
    """Read rows of 12 numbers: the upper three rows of a pose, row-major.

    Returns:
        (F, 4, 4) poses.

    Raises:
        ValueError: a row has another number of entries, or is no rigid transform.
    """
    table = _read_table(path, 12)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = table.reshape(-1, 3, 4)
    return _require_rigid(poses, path)


def read_numbered_poses(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read rows of a frame number and 12 or 16 numbers, a pose row-major (KITTI-360).

    Returns:
        (F,) frame numbers and (F, 4, 4) poses.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row has another number of entries, or is no rigid transform.
    """
    width = next((len(line.split()) for line in _lines(path)), 0)
    if width not in (13, 17):
        raise ValueError(f"{path}: rows of {width} numbers; expected a frame number and 12 or 16 more")
    table = _read_table(path, width)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = table[:, 1:13].reshape(-1, 3, 4)
    return table[:, 0].astype(np.int64), _require_rigid(poses, path)


def read_tum_poses(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read rows `time x y z qx qy qz qw`.

    Returns:
        (F,) seconds and (F, 4, 4) poses.

    Raises:
        ValueError: a row has another number of entries, or its quaternion is zero.
    """
    table = _read_table(path, 8)
    if len(table) and np.linalg.norm(table[:, 4:], axis=1).min() < 1e-3:
        raise ValueError(f"{path}: a quaternion of length zero")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    poses[:, :3, 3] = table[:, 1:4]
    return table[:, 0], poses


def read_poses(path: Path) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Read a pose file of either kind, told apart by the number of columns; times are None in KITTI rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither kind.
    """
    first = next((line.split() for line in _lines(path)), [])
    if len(first) == 12:
        return None, read_kitti_poses(path)
    if len(first) == 8:
        return read_tum_poses(path)
    raise ValueError(f"{path}: rows of {len(first)} numbers; poses have 12 (KITTI 3x4) or 8 (TUM t x y z qx qy qz qw)")


def read_oxts_pose(path: Path, latitude_of_origin: float) -> NDArray[np.float64]:
    """Return (4, 4) world_T_imu of one GPS/IMU packet of KITTI raw.

    The position is Mercator-projected with the scale of the first packet's latitude; orientation is
    Rz(yaw) Ry(pitch) Rx(roll), x east (raw data development kit, Geiger et al., IJRR 2013).

    Args:
        path: packet, at least 6 numbers: latitude and longitude (degrees), altitude, roll, pitch, yaw (radians).
        latitude_of_origin: degrees.

    Raises:
        ValueError: the packet is no row of numbers.
    """
    try:
        latitude, longitude, altitude, roll, pitch, yaw = (float(v) for v in path.read_text().split()[:6])
    except ValueError as error:
        raise ValueError(f"{path}: no GPS/IMU packet ({error})") from error
    scale = np.cos(np.radians(latitude_of_origin))
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    pose[:3, 3] = (
        scale * _EARTH_RADIUS * np.radians(longitude),
        scale * _EARTH_RADIUS * np.log(np.tan(np.radians(90.0 + latitude) / 2)),
        altitude,
    )
    return pose


def read_latitude(path: Path) -> float:
    """Return the latitude (degrees) of a GPS/IMU packet."""
    return float(path.read_text().split()[0])


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no pose file {path}")
    lines = (line.strip().replace(",", " ") for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _read_table(path: Path, width: int) -> NDArray[np.float64]:
    lines = _lines(path)
    try:
        table = np.array([line.split() for line in lines], dtype=np.float64).reshape(len(lines), width)
    except ValueError as error:
        raise ValueError(f"{path}: not all rows are {width} numbers ({error})") from error
    if not np.isfinite(table).all():
        raise ValueError(f"{path}: row {int(np.argmin(np.isfinite(table).all(1))) + 1} is not finite")
    return table


def _require_rigid(poses: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    rotation = poses[:, :3, :3]
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    bad = (error > 1e-3) | (np.linalg.det(rotation) < 0)
    if bad.any():
        raise ValueError(f"{path}: row {int(bad.argmax()) + 1} is no rigid transform")
    return poses
