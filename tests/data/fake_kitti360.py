"""KITTI-360-shaped folders that tests write for themselves."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tests.data.fake_data import write_bin
from tests.data.fake_kitti import camera_poses, camera_T_velo, row, static_world

DRIVE = "2013_05_28_drive_0000_sync"


def write_kitti360(root: Path, numbers: tuple[int, ...] = (0, 1, 2, 3, 4, 5), posed: tuple[int, ...] = (1, 2, 4, 5)):
    """Write a drive whose frames 0 and 3 have no pose; return (F, 4, 4) world_T_velo of all frames."""
    cam_T_velo, rect_T_cam, imu_T_cam = camera_T_velo(), np.eye(4), np.eye(4)
    rect_T_cam[:3, :3] = Rotation.from_euler("xyz", [0.01, -0.008, 0.004]).as_matrix()
    imu_T_cam[:3] = np.hstack([Rotation.from_euler("xyz", [1.5, 0.1, -1.6]).as_matrix(), [[1.6], [0.3], [0.8]]])
    world_T_cam = camera_poses(max(numbers) + 1, seed=4)
    world_T_velo = world_T_cam @ cam_T_velo
    scans = root / "data_3d_raw" / DRIVE / "velodyne_points"
    for number, sweep in zip(numbers, static_world(world_T_velo[list(numbers)]), strict=True):
        write_bin(scans / "data" / f"{number:010d}.bin", sweep)
    times = (f"2013-05-28 08:46:{2 + 0.1036 * i:012.9f}\n" for i in range(max(numbers) + 1))
    (scans / "timestamps.txt").write_text("".join(times))
    poses = root / "data_poses" / DRIVE
    poses.mkdir(parents=True)
    world_T_imu = world_T_cam @ np.linalg.inv(imu_T_cam)
    world_T_rect = world_T_cam @ np.linalg.inv(rect_T_cam)
    np.savetxt(poses / "poses.txt", [np.r_[n, world_T_imu[n, :3].reshape(-1)] for n in posed], fmt="%.12g")
    np.savetxt(poses / "cam0_to_world.txt", [np.r_[n, world_T_rect[n].reshape(-1)] for n in posed], fmt="%.12g")
    calibration = root / "calibration"
    calibration.mkdir()
    np.savetxt(calibration / "calib_cam_to_velo.txt", np.linalg.inv(cam_T_velo)[:3].reshape(1, 12))
    (calibration / "calib_cam_to_pose.txt").write_text(row("image_00", imu_T_cam[:3]) + row("image_01", imu_T_cam[:3]))
    (calibration / "perspective.txt").write_text("calib_time: now\n" + row("R_rect_00", rect_T_cam[:3, :3]))
    return world_T_velo
