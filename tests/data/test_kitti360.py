"""KITTI-360 and SemanticKITTI."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.kitti360 import Kitti360
from equilidar.data.protocols import PairDataset
from equilidar.data.semantickitti import SemanticKitti
from tests.data.fake_kitti import write_odometry
from tests.data.fake_kitti360 import DRIVE, write_kitti360
from tests.data.test_pairs import assert_motion_carries_points


def test_pairs_are_neighbours_that_both_have_a_pose(tmp_path: Path):
    world_T_velo = write_kitti360(tmp_path)
    data = Kitti360(tmp_path)
    assert isinstance(data, PairDataset)
    name = f"kitti360/{DRIVE}/"
    assert data.keys == [f"{name}{a:010d}->{name}{b:010d}" for a, b in ((1, 2), (4, 5))]
    assert data.num_without_pose == data.provenance()["num_without_pose"] == 2
    assert data.provenance()["used"] == {DRIVE: "2013_05_28_drive_0000"}
    for index in range(2):
        assert_motion_carries_points(data[index])
        assert data[index].target.timestamp - data[index].source.timestamp == pytest.approx(0.1036, abs=1e-5)
    np.testing.assert_allclose(data[0].source.world_T_sensor, world_T_velo[1], atol=1e-9)


def test_both_pose_files_say_the_same(tmp_path: Path):
    write_kitti360(tmp_path)
    by_imu = Kitti360(tmp_path)[0].target_T_source
    (tmp_path / "data_poses" / DRIVE / "poses.txt").unlink()
    assert torch.allclose(Kitti360(tmp_path)[0].target_T_source, by_imu, atol=1e-9)


def test_errors_name_the_file(tmp_path: Path):
    write_kitti360(tmp_path)
    with pytest.raises(FileNotFoundError, match="data_3d_raw does not exist"):
        Kitti360(tmp_path / "data_3d_raw")
    with pytest.raises(FileNotFoundError, match="no drive 2013_05_28_drive_0009_sync"):
        Kitti360(tmp_path, ["2013_05_28_drive_0009_sync"])
    poses = tmp_path / "data_poses" / DRIVE / "poses.txt"
    rows = poses.read_text()
    poses.write_text("".join(f"{i + 90} {line.split(' ', 1)[1]}\n" for i, line in enumerate(rows.splitlines())))
    with pytest.raises(ValueError, match=r"poses of frames 90 to 93 cover none of the sweeps 0 to 5"):
        Kitti360(tmp_path)
    poses.write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"poses\.txt: rows of 3 numbers"):
        Kitti360(tmp_path)
    poses.write_text(rows)
    (tmp_path / "calibration" / "calib_cam_to_velo.txt").write_text("1 0 0")
    with pytest.raises(ValueError, match=r"calib_cam_to_velo\.txt: expected 12 numbers"):
        Kitti360(tmp_path)
    (tmp_path / "calibration" / "calib_cam_to_pose.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"calib_cam_to_pose\.txt"):
        Kitti360(tmp_path)


def test_semantickitti_is_the_odometry_layout_by_splits(tmp_path: Path):
    for sequence in ("00", "08", "11"):
        write_odometry(tmp_path, sequence)
    assert {key.split("/")[1] for key in SemanticKitti(tmp_path).keys} == {"00"}
    both = SemanticKitti(tmp_path, splits=["train", "val"])
    assert list(both.choice.used) == ["00", "08"]
    assert both.keys[0] == "semantickitti/00/000000->semantickitti/00/000001"
    assert_motion_carries_points(both[0])
    assert list(SemanticKitti(tmp_path, sequences=["11"]).choice.used) == ["11"]
    with pytest.raises(ValueError, match=r"dataset\.splits must be of train, val, test"):
        SemanticKitti(tmp_path, splits=["trainval"])
    with pytest.raises(FileNotFoundError, match="sequences"):
        SemanticKitti(tmp_path / "sequences")
