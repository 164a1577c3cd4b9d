"""KITTI raw drives: consecutive sweeps, no labels."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilidar.data.guarded_pairs import GuardedPairs
from equilidar.data.kitti_calibration import matrix, read_matrices
from equilidar.data.kitti_drives import drive_of
from equilidar.data.listing import last_number, point_files, require_folder
from equilidar.data.point_files import SUFFIXES
from equilidar.data.poses import read_latitude, read_oxts_pose
from equilidar.data.recordings import Frame, Run, split_runs

_PERIOD = 0.1
_SCAN_FOLDERS = ("velodyne_points/data", "velodyne_points", "pcd")


class KittiRaw(GuardedPairs):
    """Pairs from raw drives: `velodyne_points/data/*.bin` as released, `velodyne_points/*.bin` or `pcd/*.pcd`.

    Poses come from the GPS/IMU packets (`oxts/data`) where they and `calib_imu_to_velo.txt` are there, otherwise from
    KISS-ICP.

    Raises:
        FileNotFoundError: a folder does not exist, or no drive is in it.
        ValueError: no pair is left.
    """

    def __init__(
        self,
        root: str | Path,
        drives: list[str] | tuple[str, ...] | None = None,
        **options: Any,
    ) -> None:
        """List the pairs.

        Args:
            root: folder of drives, or of days that hold drives.
            drives: names ("2011_09_26_drive_0048_sync", or without "_sync"); None for all.
            options: gap, accumulation, poses and what may be used; see `GuardedPairs`.
        """
        folders = {folder.name: folder for folder in find_drives(Path(root), drives)}
        recordings = {name: drive_of(name) for name in folders}
        super().__init__("kitti_raw", recordings, lambda name: _runs(folders[name]), **options)


def find_drives(root: Path, names: list[str] | tuple[str, ...] | None = None) -> list[Path]:
    """Return the folders of drives in `root` or in day folders in it, by name.

    Raises:
        FileNotFoundError: no drive, or not all of `names`.
    """
    require_folder(root, "KITTI raw data", "dataset.root")
    found = {p.name: p for depth in ("*", "*/*") for p in sorted(root.glob(depth)) if p.is_dir() and drive_of(p.name)}
    if names is not None:
        by_drive = {drive_of(name): path for name, path in found.items()}
        unknown = [name for name in names if drive_of(name) not in by_drive]
        if unknown:
            raise FileNotFoundError(f"no drive {', '.join(unknown)} under {root}; there are: {', '.join(found)}")
        return [by_drive[drive_of(name)] for name in names]
    if not found:
        raise FileNotFoundError(f"no drive (2011_09_26_drive_0048_sync ...) under {root}; set dataset.root")
    return [found[name] for name in sorted(found)]


def scan_files(drive: Path) -> list[Path]:
    """Return the sweeps of a drive, in order.

    Raises:
        FileNotFoundError: it has none.
    """
    for folder in _SCAN_FOLDERS:
        if (drive / folder).is_dir() and (files := point_files(drive / folder, SUFFIXES)):
            return files
    raise FileNotFoundError(f"no sweeps in {drive}: looked for {', '.join(_SCAN_FOLDERS)}")


def frame_times(drive: Path, numbers: list[int]) -> list[float]:
    """Return seconds, from `velodyne_points/timestamps.txt` (a line for each frame number) or at 10 Hz."""
    path = drive / "velodyne_points" / "timestamps.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    known = [_seconds(lines[number]) if number < len(lines) and lines[number].strip() else None for number in numbers]
    if any(time is None for time in known):
        return [number * _PERIOD for number in numbers]
    return [time for time in known if time is not None]


def _seconds(line: str) -> float:
    """Parse "2011-09-26 13:02:25.594360375"; datetime itself reads no nanoseconds."""
    whole, _, fraction = line.strip().partition(".")
    moment = datetime.fromisoformat(whole + "+00:00")
    return moment.timestamp() + float(f"0.{fraction or 0}")


def _runs(drive: Path) -> list[Run]:
    paths = scan_files(drive)
    numbers = [last_number(path.stem) or 0 for path in paths]
    frames = [
        Frame(f"kitti_raw/{drive.name}/{path.stem}", path, number, time)
        for path, number, time in zip(paths, numbers, frame_times(drive, numbers), strict=True)
    ]
    return split_runs(frames, _oxts_poses(drive, numbers), max_step=1.0)


def _oxts_poses(drive: Path, numbers: list[int]) -> NDArray[np.float64] | None:
    """Return (F, 4, 4) world_T_velo in the frame of the first IMU pose, or None where packets or calibration lack."""
    packets = {last_number(path.stem): path for path in sorted((drive / "oxts" / "data").glob("*.txt"))}
    places = (drive / "calib_imu_to_velo.txt", drive.parent / "calib_imu_to_velo.txt")
    calibration = next((path for path in places if path.is_file()), None)
    if calibration is None or not numbers or any(number not in packets for number in numbers):
        return None
    matrices = read_matrices(calibration)
    velo_T_imu = np.eye(4)
    velo_T_imu[:3, :3] = matrix(matrices, "R", (3, 3), calibration)
    velo_T_imu[:3, 3] = matrix(matrices, "T", (3, 1), calibration)[:, 0]
    latitude = read_latitude(packets[numbers[0]])
    poses = np.stack([read_oxts_pose(packets[number], latitude) for number in numbers])
    return np.linalg.inv(poses[0]) @ poses @ np.linalg.inv(velo_T_imu)
