"""Pose files."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equilidar.data.poses import read_kitti_poses, read_oxts_pose, read_poses, read_tum_poses
from tests.data.fake_kitti import camera_poses, write_pose_rows

POSES = camera_poses(5)


def write_tum(path: Path, times: np.ndarray, poses: np.ndarray) -> Path:
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rows = np.concatenate([times[:, None], poses[:, :3, 3], 3 * quaternions], 1)  # of any length
    np.savetxt(path, rows, header="time x y z qx qy qz qw", fmt="%.9f")
    return path


def test_kitti_rows(tmp_path: Path):
    path = write_pose_rows(tmp_path / "poses.txt", POSES)
    np.testing.assert_allclose(read_kitti_poses(path), POSES, atol=1e-12)
    times, poses = read_poses(path)
    assert times is None
    np.testing.assert_array_equal(poses, read_kitti_poses(path))


def test_tum_rows(tmp_path: Path):
    path = write_tum(tmp_path / "poses.txt", np.arange(5) * 0.1, POSES)
    times, poses = read_tum_poses(path)
    np.testing.assert_allclose(times, np.arange(5) * 0.1)
    np.testing.assert_allclose(poses, POSES, atol=1e-8)
    np.testing.assert_array_equal(read_poses(path)[1], poses)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n", "rows of 3 numbers"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n1 2\n", "not all rows are 12"),
        ("1 0 0 nan 0 1 0 0 0 0 1 0\n", "row 1 is not finite"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n2 0 0 0 0 2 0 0 0 0 2 0\n", "row 2 is no rigid"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0\n", "row 1 is no rigid"),
        ("0.1 1 2 3 0 0 0 0\n", "length zero"),
        ("a b c d e f g h\n", "not all rows"),
        ("", "rows of 0 numbers"),
    ],
)
def test_broken_pose_files_are_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "poses.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"poses\.txt.*{message}"):
        read_poses(path)


def test_missing_pose_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no pose file"):
        read_poses(tmp_path / "none.txt")


def test_gps_packets_move_by_metres(tmp_path: Path):
    """One metre north and one east, at 49 degrees: by the length of a degree on a sphere."""
    origin = (49.0, 8.4)
    metre = math.degrees(1 / 6378137.0)

    def pose(latitude: float, longitude: float, roll=0.0, pitch=0.0, yaw=0.0) -> np.ndarray:
        path = tmp_path / "packet.txt"
        path.write_text(f"{latitude!r} {longitude!r} 112.5 {roll} {pitch} {yaw} 0 0 0\n")
        return read_oxts_pose(path, origin[0])

    start = pose(*origin)
    north = pose(origin[0] + metre, origin[1])
    east = pose(origin[0], origin[1] + metre / math.cos(math.radians(49.0)))
    np.testing.assert_allclose(north[:3, 3] - start[:3, 3], [0, 1, 0], atol=1e-4)
    np.testing.assert_allclose(east[:3, 3] - start[:3, 3], [1, 0, 0], atol=1e-4)
    assert start[2, 3] == 112.5
    np.testing.assert_allclose(pose(*origin, yaw=math.pi / 2)[:3, 0], [0, 1, 0], atol=1e-12)
    # Roll is the innermost turn: with yaw 90 degrees it leaves the vehicle's own x axis, now north, alone.
    np.testing.assert_allclose(pose(*origin, roll=0.3, yaw=math.pi / 2)[:3, 0], [0, 1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="no GPS"):
        (tmp_path / "bad.txt").write_text("1 2 x")
        read_oxts_pose(tmp_path / "bad.txt", 49.0)
