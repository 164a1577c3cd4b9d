import numpy as np
import pytest
import torch

from equilidar.data.kitti_calibration import KittiCalibration
from equilidar.data.kitti_labels import KittiObjects

from .openpcdet_case import load


def test_openpcdet_oracle_kitti_labels_as_boxes(second_case) -> None:
    """Size, heading and center: from the middle of the bottom face up by half the height along the LiDAR's z axis."""
    case = load(second_case / "targets_loss.npz")
    if "kitti_label/lidar_boxes" not in case:
        pytest.skip(f"{second_case.name} has no labels")
    rows = case["kitti_label/camera_xyz_lhw_ry"].astype(np.float64)
    theirs = torch.from_numpy(case["kitti_label/lidar_boxes"])
    num, rect_T_velo = len(rows), case["kitti_label/lidar2cam"]
    objects = KittiObjects(
        types=("Car",) * num,
        truncated=np.zeros(num),
        occluded=np.zeros(num, np.int64),
        alpha=np.zeros(num),
        image_box=np.zeros((num, 4)),
        height_width_length=rows[:, [4, 5, 3]],
        bottom_center=rows[:, :3],
        rotation_y=rows[:, 6],
    )
    boxes = objects.boxes(KittiCalibration(np.zeros((3, 4)), rect_T_velo), ("Car",))
    torch.testing.assert_close(boxes.size, theirs[:, 3:6], atol=1e-5, rtol=0)
    turn = torch.remainder(boxes.yaw - theirs[:, 6] + np.pi, 2 * np.pi) - np.pi
    assert turn.abs().max() < 1e-4
    torch.testing.assert_close(boxes.center, theirs[:, :3], atol=1e-3, rtol=0)
