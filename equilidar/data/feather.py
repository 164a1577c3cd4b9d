"""Feather (Arrow IPC) tables as columns of numbers and strings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather
from scipy.spatial.transform import Rotation

from equilidar.data.faults import FaultySweepError


def read_feather(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray]:
    """Read columns of a feather file, and those of `optional` that it has; strings come as object arrays.

    Raises:
        FileNotFoundError: no such file.
        FaultySweepError: it is truncated or no feather file, lacks one of the columns, or a value is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no feather file {path}")
    try:
        with path.open("rb") as file:
            table = feather.read_table(file)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaultySweepError(f"{path}: cannot be read as feather, download it again ({first})") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise FaultySweepError(f"{path}: no column {', '.join(missing)}; it has {table.column_names}")
    wanted = [*columns, *(name for name in optional if name in table.column_names)]
    empty = [name for name in wanted if table[name].null_count]
    if empty:
        raise FaultySweepError(f"{path}: missing values in column {', '.join(empty)}")
    return {name: table[name].to_numpy() for name in wanted}


POSE_COLUMNS = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


def rigid_transforms(columns: dict[str, NDArray], source: Path) -> NDArray[np.float64]:
    """Return (F, 4, 4) transforms of Argoverse's quaternion and translation columns (`POSE_COLUMNS`).

    Raises:
        FaultySweepError: a quaternion has no length, or a value is not finite.
    """
    table = np.stack([np.asarray(columns[name], dtype=np.float64) for name in POSE_COLUMNS], 1)
    if not np.isfinite(table).all() or (len(table) and np.linalg.norm(table[:, :4], axis=1).min() < 1e-3):
        raise FaultySweepError(f"{source}: a pose is not finite, or its quaternion has no length")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(table[:, [1, 2, 3, 0]]).as_matrix()
    poses[:, :3, 3] = table[:, 4:]
    return poses
