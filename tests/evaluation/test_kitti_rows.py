"""Detections as KITTI rows: the inverse of reading labels, and boxes in the image around what projects there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.kitti_calibration import read_calibration
from equilidar.data.kitti_labels import KittiObjects
from equilidar.evaluation.kitti import KittiEvaluation
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, read_labels
from equilidar.evaluation.kitti_rows import project_boxes, to_kitti_rows
from equilidar.structures import Boxes3D, Detections

CAMERA = np.array([[700.0, 0, 600, 40], [0, 700, 180, 0.2], [0, 0, 1, 0.003]])
SIZE = (1242, 375)
# Camera axes x right, y down, z forward from x forward, y left, z up.
RECT_T_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, -0.3], [0, 0, 0, 1]])


def _detections(boxes: list[list[float]], labels: list[int]) -> Detections:
    rows = torch.tensor(boxes).reshape(-1, 7)
    made = Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6], label=torch.tensor(labels, dtype=torch.int64))
    return Detections(made, torch.linspace(0.9, 0.1, len(rows)))


def test_a_box_straight_ahead() -> None:
    ahead = _detections([[20.0, 0, -1, 4, 1.6, 1.5, 0]], [1])
    table = to_kitti_rows("000004", ahead, ("Pedestrian", "Car"), CAMERA, RECT_T_LIDAR, SIZE)
    assert table.frames == ("000004",)
    assert KITTI_CLASSES[table.kind[0]] == "car"
    truncated, occluded, alpha, *_ = table.values[0]
    assert (truncated, occluded) == (-1, -1)
    np.testing.assert_allclose(table.values[0, 7:10], [1.5, 1.6, 4], atol=1e-6)
    # Center 1 m below the sensor: 0.9 m below the camera, the bottom 0.75 m lower.
    np.testing.assert_allclose(table.location[0], [0, 0.9 + 0.75, 19.7], atol=1e-6)
    # It drives away from the camera: its length lies along z.
    assert table.values[0, 13] == pytest.approx(-math.pi / 2)
    assert alpha == pytest.approx(-math.pi / 2)
    near = 19.7 - 2
    left, top, right, bottom = table.image_box[0]
    assert left == pytest.approx((-0.8 * 700 + 600 * near + 40) / (near + 0.003), abs=1e-3)
    assert right == pytest.approx((0.8 * 700 + 600 * near + 40) / (near + 0.003), abs=1e-3)
    assert bottom == pytest.approx((1.65 * 700 + 180 * near + 0.2) / (near + 0.003), abs=1e-3)
    assert top == pytest.approx((0.15 * 700 + 180 * (near + 4) + 0.2) / (near + 4.003), abs=1e-3)
    assert table.score[0] == pytest.approx(0.9)


def test_what_the_camera_does_not_see_is_no_row() -> None:
    boxes = [[-20.0, 0, -1, 4, 1.6, 1.5, 0], [20.0, 0, -1, 4, 1.6, 1.5, 0], [10.0, 30, -1, 4, 1.6, 1.5, 0]]
    table = to_kitti_rows("0", _detections(boxes, [0, 0, 0]), ("Car",), CAMERA, RECT_T_LIDAR, SIZE)
    assert len(table) == 1
    assert table.score[0] == pytest.approx(0.5)
    assert len(to_kitti_rows("0", _detections([], []), ("Car",), CAMERA, RECT_T_LIDAR, SIZE)) == 0


def test_a_box_beside_the_camera_is_cut_in_front_of_it() -> None:
    """Against a fine grid of points on the box's faces, those in front of the camera."""
    location, sizes, turn = np.array([[1.5, 1.6, 1.0]]), np.array([[1.5, 1.7, 5.0]]), np.array([math.pi / 2])
    image_box, visible = project_boxes(location, sizes, turn, CAMERA, SIZE)
    steps = np.linspace(-0.5, 0.5, 401)
    along, across = np.meshgrid(steps * 5.0, steps * 1.7)
    ground = np.stack([1.5 + across, np.full_like(along, 1.6), 1.0 - along], -1).reshape(-1, 3)
    points = np.concatenate([ground, ground - [0, 1.5, 0]])
    points = points[points[:, 2] > 0.1]
    pixels = points @ CAMERA[:, :3].T + CAMERA[:, 3]
    pixels = (pixels[:, :2] / pixels[:, 2:]).clip(0, (1241, 374))
    assert visible[0]
    np.testing.assert_allclose(image_box[0, :2], pixels.min(0), atol=1.5)
    np.testing.assert_allclose(image_box[0, 2:], pixels.max(0), atol=1.5)


def test_unknown_classes_and_several_sweeps_are_errors() -> None:
    with pytest.raises(ValueError, match="KITTI has no class Lorry"):
        to_kitti_rows("0", _detections([], []), ("Car", "Lorry"), CAMERA, RECT_T_LIDAR, SIZE)
    two = Detections(Boxes3D.empty(2), torch.zeros(0))
    with pytest.raises(ValueError, match="2 sweeps"):
        to_kitti_rows("0", two, ("Car",), CAMERA, RECT_T_LIDAR, SIZE)


def _frames(samples: Path) -> tuple[Path, list[str]]:
    folder = samples / "kitti_object" / "training"
    frames = sorted(path.stem for path in (folder / "label_2").glob("*.txt"))
    if not frames:
        pytest.skip(f"no KITTI labels in {folder}")
    return folder, frames


def _as_detections(folder: Path, frames: list[str]) -> KittiTable:
    names = ("Car", "Pedestrian", "Cyclist", "Van")
    tables = []
    for frame in frames:
        calibration = read_calibration(folder / "calib" / f"{frame}.txt")
        boxes = KittiObjects.read(folder / "label_2" / f"{frame}.txt").boxes(calibration, names)
        found = Detections(boxes, torch.linspace(0.9, 0.5, len(boxes)))
        size = calibration.image_size()
        matrices = calibration.image_T_rect, calibration.rect_T_velo
        tables.append(to_kitti_rows(frame, found, names, *matrices, size))
    return KittiTable.concatenate(tables)


def test_sample_labels_as_detections_are_the_labels(samples: Path) -> None:
    folder, frames = _frames(samples)
    labels, found = read_labels(folder / "label_2", frames), _as_detections(folder, frames)
    real = np.isin(labels.kind, [KITTI_CLASSES.index(name) for name in ("car", "van", "pedestrian", "cyclist")])
    np.testing.assert_array_equal(found.kind, labels.kind[real])
    np.testing.assert_allclose(found.values[:, 7:13], labels.values[real, 7:13], atol=1e-4)
    turn = found.values[:, [2, 13]] - labels.values[real][:, [2, 13]]
    off = np.abs(np.remainder(turn + math.pi, 2 * math.pi) - math.pi)
    assert off[:, 1].max() < 1e-4
    # Some labels' alpha was made with another center than the box's.
    assert np.median(off[:, 0]) < 0.01
    assert off[:, 0].max() < 0.05
    # Annotators drew the image boxes by hand: near the projection, not at it.
    seen_whole = labels.truncated[real] == 0
    drift = np.abs(found.image_box - labels.image_box[real])[seen_whole]
    assert np.median(drift) < 1


def test_sample_labels_as_detections_are_all_found(samples: Path) -> None:
    folder, frames = _frames(samples)
    evaluation = KittiEvaluation(read_labels(folder / "label_2", frames), _as_detections(folder, frames))
    for name, counts in evaluation.num_ground_truth().items():
        for level, count in enumerate(counts):
            for metric in ("bev", "3d"):
                curve = evaluation.curve(name, metric, level, 0.7)
                # One more pixel in the drawn box than in the projected one may hide a detection, not make it false.
                assert (curve.recall[-1:] == 1).all(), f"{name} {metric} {level}: {curve.num_found} of {count}"
                assert set(curve.precision[: len(curve.recall)]) <= {1.0}
