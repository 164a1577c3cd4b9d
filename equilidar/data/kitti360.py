"""KITTI-360: long drives of consecutive Velodyne sweeps with poses; labels are never opened."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.excluded_drives import ValidationGuard
from equilidar.data.kitti_calibration import matrix, read_matrices, rigid_4x4, rotation_4x4
from equilidar.data.kitti_drives import drive_of
from equilidar.data.kitti_raw import find_drives, frame_times
from equilidar.data.listing import last_number, point_files, require_folder
from equilidar.data.poses import read_numbered_poses
from equilidar.data.recordings import Frame, PointFileReader, RecordedPairs, Run, split_runs

_LOG = logging.getLogger(__name__)


class Kitti360(RecordedPairs):
    """Pairs from `data_3d_raw/<drive>/velodyne_points/data/*.bin`, poses from `data_poses/<drive>`.

    The sensor's pose is that of the GPS/IMU (`poses.txt`) after `calib_cam_to_pose.txt` (camera 0 -> IMU) and the
    inverse of `calib_cam_to_velo.txt` (camera 0 -> velodyne); where only `cam0_to_world.txt` is there, that of the
    rectified camera 0 after `R_rect_00` of `perspective.txt`.

    KITTI-360 gives no pose to frames at which the vehicle hardly moved since the last one. They are left out, and the
    drive is cut there: a pair is made of neighbouring frames that both have a pose. A drive without any pose file gets
    KISS-ICP's.

    Attributes:
        choice: which drives are used; KITTI-360 holds none of KITTI's detection frames.
        num_without_pose: sweeps that were left out.

    Raises:
        FileNotFoundError: a folder or a calibration file does not exist.
        ValueError: no pair is left, or poses cover none of a drive's sweeps.
    """

    def __init__(
        self,
        root: str | Path,
        drives: list[str] | tuple[str, ...] | None = None,
        gap: int = 1,
        cache_dir: str | Path | None = None,
        accumulate: int = 1,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `data_3d_raw/`, `data_poses/` and `calibration/`.
            drives: names ("2013_05_28_drive_0000_sync", or without "_sync"); None for all.
            gap: frames from source to target.
            cache_dir: for estimated poses; see `EgoMotion`.
            accumulate: see `RecordedPairs`.
        """
        self.root = require_folder(Path(root), "KITTI-360 data", "dataset.root")
        above = require_folder(self.root / "data_3d_raw", "KITTI-360 sweeps", "dataset.root")
        folders = [path for path in find_drives(above, drives) if (path / "velodyne_points" / "data").is_dir()]
        if not folders:
            raise FileNotFoundError(f"no drive under {above} has velodyne_points/data; set dataset.root")
        self.choice = ValidationGuard().choose({folder.name: drive_of(folder.name) for folder in folders})
        self.num_without_pose = 0
        runs = [run for folder in folders if folder.name in self.choice.used for run in self._runs(folder)]
        ego_motion = EgoMotion(cache_dir)
        super().__init__("kitti360", runs, PointFileReader(), gap, ego_motion, accumulate=accumulate)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {**super().provenance(), **self.choice.provenance(), "num_without_pose": self.num_without_pose}

    def _runs(self, drive: Path) -> list[Run]:
        scans = point_files(drive / "velodyne_points" / "data", (".bin",))
        numbers = [last_number(path.stem) or 0 for path in scans]
        frames = [
            Frame(f"kitti360/{drive.name}/{path.stem}", path, number, time)
            for path, number, time in zip(scans, numbers, frame_times(drive, numbers), strict=True)
        ]
        poses = _sensor_poses(self.root, drive.name)
        if poses is None:
            return split_runs(frames, None, max_step=1.0)
        posed = [frame for frame in frames if frame.number in poses]
        if frames and not posed:
            raise ValueError(
                f"{self.root / 'data_poses' / drive.name}: poses of frames {min(poses)} to {max(poses)} cover none of "
                f"the sweeps {numbers[0]} to {numbers[-1]}; are they of this drive?"
            )
        missing = len(frames) - len(posed)
        if missing:
            _LOG.info("KITTI-360 %s: %d of %d sweeps have no pose and are left out", drive.name, missing, len(frames))
        self.num_without_pose += missing
        return split_runs(posed, np.stack([poses[frame.number] for frame in posed]), max_step=1.0)


def _sensor_poses(root: Path, drive: str) -> dict[int, NDArray[np.float64]] | None:
    """Return world_T_velo by frame number; None where there is no pose file."""
    folder, calibration = root / "data_poses" / drive, root / "calibration"
    if (folder / "poses.txt").is_file():
        numbers, world_T_imu = read_numbered_poses(folder / "poses.txt")
        path = calibration / "calib_cam_to_pose.txt"
        imu_T_cam = rigid_4x4(matrix(read_matrices(path), "image_00", (3, 4), path))
        world_T_cam = world_T_imu @ imu_T_cam
    elif (folder / "cam0_to_world.txt").is_file():
        numbers, world_T_rect = read_numbered_poses(folder / "cam0_to_world.txt")
        path = calibration / "perspective.txt"
        world_T_cam = world_T_rect @ rotation_4x4(matrix(read_matrices(path), "R_rect_00", (3, 3), path))
    else:
        return None
    world_T_velo = world_T_cam @ np.linalg.inv(_read_rigid_row(calibration / "calib_cam_to_velo.txt"))
    if not len(numbers):
        return None
    return dict(zip(numbers.tolist(), world_T_velo, strict=True))


def _read_rigid_row(path: Path) -> NDArray[np.float64]:
    """Read a file of 12 numbers, the upper three rows of a transform."""
    if not path.is_file():
        raise FileNotFoundError(f"no calibration file {path}")
    try:
        return rigid_4x4(np.array(path.read_text().split(), dtype=np.float64).reshape(3, 4))
    except ValueError as error:
        raise ValueError(f"{path}: expected 12 numbers ({error})") from error
