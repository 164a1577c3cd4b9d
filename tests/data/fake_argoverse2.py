"""Argoverse-2-shaped logs that tests write for themselves, out of simulated sweeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather
from scipy.spatial.transform import Rotation

from tests.data.fake_sequence import box_pose, count_in_box, recorded_sweeps

LOG = "00000000-0000-3000-8000-000000000001"
START = 315_966_265_259_836_000
STEP = 100_000_000
CATEGORIES = ("REGULAR_VEHICLE", "PEDESTRIAN", "BICYCLIST")  # of the simulated classes, in their order


def write_table(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path))
    return path


def pose_columns(poses: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z, w = Rotation.from_matrix(poses[:, :3, :3]).as_quat().T
    tx, ty, tz = poses[:, :3, 3].T
    return {"qw": w, "qx": x, "qy": y, "qz": z, "tx_m": tx, "ty_m": ty, "tz_m": tz}


def driving(num: int) -> np.ndarray:
    """Return (num, 4, 4) ego poses in the city: 1.2 m a sweep, turning, far from the origin."""
    poses = np.tile(np.eye(4), (num, 1, 1))
    yaw = 0.3 + 0.02 * np.arange(num)
    poses[:, :3, :3] = Rotation.from_euler("z", yaw[:, None]).as_matrix()
    poses[:, 0, 3] = 5000.0 + np.cumsum(1.2 * np.cos(yaw))
    poses[:, 1, 3] = -3000.0 + np.cumsum(1.2 * np.sin(yaw))
    return poses


def write_simulated_log(root: Path, num: int = 4, log: str = LOG) -> list[np.ndarray]:
    """Write a simulated street, annotated, with flow; return the (M,) tracks of each sweep."""
    rng, rows, tracks = np.random.default_rng(0), [], []
    for i, sweep in enumerate(recorded_sweeps(num)):
        time = START + STEP * i
        write_sweep(root / log, time, sweep.xyz, rng)
        x, y, z = sweep.flow.astype(np.float32).T
        write_table(root / log / "flow" / f"{time}.feather", flow_tx_m=x, flow_ty_m=y, flow_tz_m=z)
        rounded = sweep.xyz.astype(np.float16)
        for box, label, track in zip(sweep.boxes, sweep.label, sweep.track, strict=True):
            rows.append(
                {
                    "timestamp_ns": time,
                    "track_uuid": f"{track:08d}-uuid",
                    "category": CATEGORIES[label],
                    "size": box[3:6],
                    "pose": box_pose(box),
                    "num_points": count_in_box(rounded, box),
                }
            )
        tracks.append(sweep.track)
    poses = np.stack([sweep.world_T_sensor for sweep in recorded_sweeps(num)])
    write_table(
        root / log / "city_SE3_egovehicle.feather", timestamp_ns=START + STEP * np.arange(num), **pose_columns(poses)
    )
    write_annotations(root / log, rows)
    return tracks


def write_static_log(root: Path, num: int = 4, missing: tuple[int, ...] = (), log: str = LOG) -> np.ndarray:
    """Write a log of fixed points seen from a moving vehicle; return the poses."""
    rng = np.random.default_rng(0)
    poses = driving(num)
    near = rng.uniform([-20, -20, -2], [20, 20, 2], (200, 3))
    world = near @ poses[0, :3, :3].T + poses[0, :3, 3]
    for i, pose in enumerate(poses):
        if i in missing:
            continue
        xyz = (world - pose[:3, 3]) @ pose[:3, :3]
        write_sweep(root / log, START + STEP * i, xyz, rng)
    write_table(
        root / log / "city_SE3_egovehicle.feather", timestamp_ns=START + STEP * np.arange(num), **pose_columns(poses)
    )
    return poses


def write_sweep(log: Path, time: int, xyz: np.ndarray, rng: np.random.Generator) -> Path:
    num = len(xyz)
    x, y, z = xyz.astype(np.float16).T
    return write_table(
        log / "sensors" / "lidar" / f"{time}.feather",
        x=x,
        y=y,
        z=z,
        intensity=rng.integers(0, 256, num).astype(np.uint8),
        laser_number=rng.integers(0, 64, num).astype(np.uint8),
        offset_ns=rng.integers(0, 100_000_000, num).astype(np.int32),
    )


def write_annotations(log: Path, rows: list[dict[str, Any]]) -> Path:
    """Write annotations; each row gives timestamp_ns, track_uuid, category, size, pose (4, 4) and num_points."""
    size = np.array([row["size"] for row in rows], dtype=np.float64).reshape(-1, 3)
    return write_table(
        log / "annotations.feather",
        timestamp_ns=np.array([row["timestamp_ns"] for row in rows], dtype=np.int64),
        track_uuid=[row["track_uuid"] for row in rows],
        category=[row["category"] for row in rows],
        length_m=size[:, 0],
        width_m=size[:, 1],
        height_m=size[:, 2],
        **pose_columns(np.stack([row["pose"] for row in rows])),
        num_interior_pts=np.array([row["num_points"] for row in rows], dtype=np.int64),
    )
