"""Waymo range images to points (Sun et al., CVPR 2020): all lidars, both returns, in float64."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError
from equilidar.data.waymo_records import parse_message

# LaserName of dataset.proto; the order of points.
LIDARS = {"TOP": 1, "FRONT": 2, "SIDE_LEFT": 3, "SIDE_RIGHT": 4, "REAR": 5}
RANGE, INTENSITY, ELONGATION, NO_LABEL_ZONE = range(4)


@dataclass(frozen=True, slots=True)
class LidarReturn:
    """Points of one return of one lidar, row by row of its range image.

    Attributes:
        lidar: a name of `LIDARS`.
        number: 1 or 2.
        shape: of the range image.
        xyz: (N, 3) metres in the vehicle frame: x forward, y left, z up, origin on the ground below the rear axle.
        values: (N, 4) the range image's own channels: range, intensity, elongation, and 1 in a no-label zone.
    """

    lidar: str
    number: int
    shape: tuple[int, ...]
    xyz: Float64[np.ndarray, "N 3"]
    values: Float32[np.ndarray, "N 4"]


def frame_points(
    frame: Any, lidars: Sequence[str] = tuple(LIDARS), returns: Sequence[int] = (1, 2)
) -> list[LidarReturn]:
    """Return the points of a frame: all lidars' first returns, then all second ones; what a frame lacks is left out.

    Args:
        frame: a `waymo_open_dataset.dataset_pb2.Frame`.
        lidars: names of those to read.
        returns: 1, 2 or both.

    Raises:
        FaultySweepError: a range image is corrupt, of another size than its calibration, or not finite.
    """
    lasers = {laser.name: laser for laser in frame.lasers}
    calibrations = {calibration.name: calibration for calibration in frame.context.laser_calibrations}
    poses: NDArray[np.float32] | None = None
    found = []
    for number in sorted(returns):
        for lidar in sorted(lidars, key=LIDARS.__getitem__):
            laser, where = lasers.get(LIDARS[lidar]), f"lidar {lidar}, return {number}"
            if laser is None:
                continue
            stored = getattr(laser, f"ri_return{number}")
            if not stored.range_image_compressed:
                if stored.HasField("range_image"):
                    raise FaultySweepError(
                        f"{where}: its range image is stored uncompressed, in a field that Waymo has deprecated; "
                        "download version 1.2 or later"
                    )
                continue
            if LIDARS[lidar] not in calibrations:
                raise FaultySweepError(f"{where}: no calibration of this lidar in the frame; download it again")
            image = _decode(stored.range_image_compressed, 4, where)
            rows, columns = np.nonzero(image[..., RANGE] > 0)
            values = image[rows, columns]
            xyz = _cartesian(values[:, RANGE], rows, columns, calibrations[LIDARS[lidar]], image.shape, where)
            if lidar == "TOP":
                if poses is None:
                    # Stored with the first return, good for both.
                    poses = _decode(laser.ri_return1.range_image_pose_compressed, 6, f"{where}, poses")
                if poses.shape[:2] != image.shape[:2]:
                    raise FaultySweepError(
                        f"{where}: {poses.shape} poses for an image of {image.shape}; download it again"
                    )
                xyz = _at_frame_time(xyz, poses[rows, columns], np.reshape(frame.pose.transform, (4, 4)))
            found.append(LidarReturn(lidar, number, image.shape, xyz, values))
    return found


def _decode(compressed: bytes, channels: int, where: str) -> NDArray[np.float32]:
    """Return (H, W, channels) of a zlib-compressed MatrixFloat."""
    try:
        matrix = parse_message("MatrixFloat", zlib.decompress(compressed))
    except (zlib.error, ValueError) as error:
        raise FaultySweepError(f"{where}: no range image ({error}); download it again") from error
    shape = tuple(matrix.shape.dims)
    if len(shape) != 3 or shape[2] != channels or np.prod(shape) != len(matrix.data):
        raise FaultySweepError(
            f"{where}: {len(matrix.data)} numbers of shape {shape}, expected H x W x {channels}; download it again"
        )
    image = np.array(matrix.data, dtype=np.float32).reshape(shape)
    if not np.isfinite(image).all():
        raise FaultySweepError(f"{where}: {int((~np.isfinite(image)).sum())} numbers are not finite; download it again")
    return image


def _cartesian(
    distance: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    calibration: Any,
    shape: tuple[int, ...],
    where: str,
) -> NDArray[np.float64]:
    """Return (N, 3) points in the vehicle frame; for TOP, in the vehicle's frame as if it stood still."""
    height, width = shape[:2]
    # Listed from the lowest beam, while the image's first row is the highest.
    inclination = np.array(calibration.beam_inclinations, dtype=np.float64)
    if len(inclination) == 0:
        low, high = calibration.beam_inclination_min, calibration.beam_inclination_max
        inclination = low + (np.arange(height) + 0.5) / height * (high - low)
    if len(inclination) != height or len(calibration.extrinsic.transform) != 16:
        raise FaultySweepError(f"{where}: {len(inclination)} beam inclinations for {height} rows; download it again")
    vehicle_T_lidar = np.reshape(calibration.extrinsic.transform, (4, 4))
    turned = np.arctan2(vehicle_T_lidar[1, 0], vehicle_T_lidar[0, 0])
    azimuth = ((width - columns - 0.5) / width * 2 - 1) * np.pi - turned
    elevation = inclination[height - 1 - rows]
    flat = np.cos(elevation)
    direction = np.stack([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)], 1)
    points = direction * distance[:, None].astype(np.float64)
    return points @ vehicle_T_lidar[:3, :3].T + vehicle_T_lidar[:3, 3]


def _at_frame_time(
    xyz: NDArray[np.float64], poses: NDArray[np.float32], world_T_vehicle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take points to the world by the vehicle's pose at their own time, and back by its pose at the frame's time.

    Args:
        xyz: (N, 3) vehicle frame at each point's time.
        poses: (N, 6) roll, pitch, yaw, x, y, z: world_T_vehicle, R = Rz(yaw) Ry(pitch) Rx(roll).
        world_T_vehicle: (4, 4) at the frame's time.
    """
    (roll, pitch, yaw), position = poses[:, :3].T.astype(np.float64), poses[:, 3:].astype(np.float64)
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    x, y, z = xyz.T
    # Rx, then Ry, then Rz.
    y, z = cr * y - sr * z, sr * y + cr * z
    x, z = cp * x + sp * z, cp * z - sp * x
    x, y = cy * x - sy * y, sy * x + cy * y
    # The world's origin may be tens of kilometres away: subtract before rotating back.
    world = np.stack([x, y, z], 1) + (position - world_T_vehicle[:3, 3])
    return world @ np.linalg.inv(world_T_vehicle[:3, :3]).T
