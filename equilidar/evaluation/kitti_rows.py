"""Detections in the LiDAR's frame as rows of KITTI result files.

Only what the camera sees is labelled in KITTI, so boxes without a pixel in the image become no rows.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable
from equilidar.structures.labelled import Detections

# Corners are numbered by three bits (length, height, width); an edge joins two that differ in one bit.
_CORNERS = np.array(list(itertools.product((-0.5, 0.5), (-1.0, 0.0), (-0.5, 0.5))))
_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])
_NEAR = 0.1
_UNKNOWN = -1.0


def to_kitti_rows(
    frame: str,
    detections: Detections,
    class_names: Sequence[str],
    image_T_rect: Float64[np.ndarray, "3 4"] | None,
    rect_T_lidar: Float64[np.ndarray, "4 4"],
    image_size: tuple[int, int] | None,
) -> KittiTable:
    """Return one frame's detections as KITTI has them.

    The inverse of reading labels: the middle of the box's bottom face, half a height below its center in the LiDAR's
    frame, moves to the camera's frame; rotation_y = -(yaw + pi / 2).

    Args:
        frame: name of the frame.
        detections: boxes of one sweep, in the LiDAR's frame.
        class_names: names of the labels, each a KITTI class.
        image_T_rect: P2, rectified camera 0 -> pixels; None without an image: all boxes are rows, their 2D box unknown.
        rect_T_lidar: R0_rect * Tr_velo_to_cam, each filled up to (4, 4).
        image_size: (width, height) in pixels.

    Raises:
        ValueError: more than one sweep, or a class that KITTI does not know.
    """
    if detections.boxes.batch_size != 1:
        raise ValueError(f"detections of frame {frame} hold {detections.boxes.batch_size} sweeps, expected one")
    if unknown := [name for name in class_names if name.lower() not in KITTI_CLASSES]:
        raise ValueError(f"class_names: KITTI has no class {', '.join(unknown)}, only {', '.join(KITTI_CLASSES)}")
    kinds = np.array([KITTI_CLASSES.index(name.lower()) for name in class_names], dtype=np.int64)
    boxes = detections.boxes.as_tensor().detach().double().cpu().numpy()
    bottom = boxes[:, :3] - np.array([0.0, 0.0, 0.5]) * boxes[:, 5:6]
    location = bottom @ rect_T_lidar[:3, :3].T + rect_T_lidar[:3, 3]
    length, width, height, yaw = boxes[:, 3:].T
    sizes = np.stack([height, width, length], 1)
    rotation_y = _wrap(-(yaw + math.pi / 2))
    alpha = _wrap(rotation_y - np.arctan2(location[:, 0], location[:, 2]))
    unknown = np.full(len(boxes), _UNKNOWN)
    image_box, visible = np.repeat(unknown[:, None], 4, 1), np.ones(len(boxes), dtype=bool)
    if image_T_rect is not None and image_size is not None:
        image_box, visible = project_boxes(location, sizes, rotation_y, image_T_rect, image_size)
    scores = detections.scores.detach().double().cpu().numpy()
    columns = [unknown, unknown, alpha, *image_box.T, *sizes.T, *location.T, rotation_y, scores]
    labels = detections.boxes.label.cpu().numpy()
    kept = np.array([0, int(visible.sum())])
    return KittiTable((frame,), kept, kinds[labels[visible]], np.stack(columns, 1)[visible])


def project_boxes(
    location: Float64[np.ndarray, "N 3"],
    sizes: Float64[np.ndarray, "N 3"],
    rotation_y: Float64[np.ndarray, " N"],
    image_T_rect: Float64[np.ndarray, "3 4"],
    image_size: tuple[int, int],
) -> tuple[Float64[np.ndarray, "N 4"], np.ndarray]:
    """Return the boxes in the image around projected 3D boxes, clipped to it, and which of them have any area.

    A box that reaches behind the camera is cut off in front of it first: corners behind would project to nonsense.

    Args:
        location: middle of the bottom face in the rectified camera's frame.
        sizes: height, width, length.
        rotation_y: about the camera's y axis.
        image_T_rect: rectified camera 0 -> pixels.
        image_size: (width, height) in pixels.
    """
    local = _CORNERS * sizes[:, None, [2, 0, 1]]
    cos, sin = np.cos(rotation_y)[:, None], np.sin(rotation_y)[:, None]
    along, down, across = np.moveaxis(local, 2, 0)
    corners = location[:, None] + np.stack([cos * along + sin * across, down, cos * across - sin * along], 2)
    start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    ends = np.concatenate([_cut_at_near(start, end), _cut_at_near(end, start)], 1)
    homogeneous = ends @ image_T_rect[:, :3].T + image_T_rect[:, 3]
    in_front = ends[..., 2] >= _NEAR * (1 - 1e-9)
    pixels = homogeneous[..., :2] / np.where(in_front, homogeneous[..., 2], 1.0)[..., None]
    limit = np.array(image_size, dtype=np.float64) - 1
    low = np.where(in_front[..., None], pixels, np.inf).min(1).clip(0, limit)
    high = np.where(in_front[..., None], pixels, -np.inf).max(1).clip(0, limit)
    return np.concatenate([low, high], 1), (high > low).all(1)


def _cut_at_near(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return `start`, moved along its edge to the near plane where it lies behind and `end` does not."""
    depth, other = start[..., 2:], end[..., 2:]
    crosses = (depth < _NEAR) & (other >= _NEAR)
    share = np.where(crosses, (_NEAR - depth) / np.where(crosses, other - depth, 1.0), 0.0)
    return start + share * (end - start)


def _wrap(angle: np.ndarray) -> np.ndarray:
    return np.remainder(angle + math.pi, 2 * math.pi) - math.pi
