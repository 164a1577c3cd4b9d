"""Which points lie in which oriented boxes.

Boxes are rows x, y, z of the center, length, width, height, yaw. Faces count as inside.
"""

import itertools

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.structures import offsets as batch_offsets

_MAX_PAIRS = 1 << 18  # point-box pairs held at once


def points_in_boxes(
    points: Float[Tensor, "N 3"],
    point_offsets: Int64[Tensor, " P1"],
    boxes: Float[Tensor, "M 7"],
    box_offsets: Int64[Tensor, " Q1"],
) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " M"]]:
    """Assign points to the boxes of their batch item.

    Args:
        points: metres.
        point_offsets: which points belong to which item.
        boxes: in the frame of the points.
        box_offsets: which boxes belong to which item; the same number of items.

    Returns:
        first: the lowest row of a box that contains the point, -1 where none does.
        counts: number of points in each box; a point in several boxes counts in each.

    Raises:
        ValueError: the numbers of items differ.
    """
    batch_offsets.check(point_offsets, len(points), "points")
    batch_offsets.check(box_offsets, len(boxes), "boxes")
    if len(point_offsets) != len(box_offsets):
        raise ValueError(
            f"point_offsets is for {len(point_offsets) - 1} items and box_offsets for {len(box_offsets) - 1}; "
            "both must be of one batch"
        )
    return _points_in_boxes(points, point_offsets, boxes, box_offsets)


def membership(points: Float[Tensor, "N 3"], boxes: Float[Tensor, "M 7"]) -> Bool[Tensor, "M N"]:
    """Tell for all pairs of one sweep which points lie in which boxes; M x N booleans."""
    return _membership(points, boxes)


def _membership_reference(points: Tensor, boxes: Tensor) -> Tensor:
    inside = torch.zeros(len(boxes), len(points), dtype=torch.bool, device=points.device)
    step = max(1, _MAX_PAIRS // max(1, len(boxes)))
    for start in range(0, len(points), step):
        inside[:, start : start + step] = _contains(points[start : start + step], boxes)
    return inside


def _contains(points: Tensor, boxes: Tensor) -> Tensor:
    """Return (M, N); differences come first, so that float32 is exact enough far from the origin."""
    x, y, z, length, width, height, yaw = boxes[:, :, None].unbind(1)
    dx, dy, dz = points[:, 0] - x, points[:, 1] - y, points[:, 2] - z
    # From float64, so that the cosines of all math libraries agree in float32.
    cos, sin = yaw.double().cos().to(yaw.dtype), yaw.double().sin().to(yaw.dtype)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return (along.abs() <= length / 2) & (across.abs() <= width / 2) & (dz.abs() <= height / 2)


def _points_in_boxes_reference(
    points: Tensor, point_offsets: Tensor, boxes: Tensor, box_offsets: Tensor
) -> tuple[Tensor, Tensor]:
    first = point_offsets.new_full((len(points),), -1)
    counts = box_offsets.new_zeros(len(boxes))
    bounds = zip(itertools.pairwise(point_offsets.tolist()), itertools.pairwise(box_offsets.tolist()), strict=True)
    for (start, stop), (low, high) in bounds:
        if start == stop or low == high:
            continue
        step = max(1, _MAX_PAIRS // (high - low))
        for chunk in range(start, stop, step):
            rows = slice(chunk, min(chunk + step, stop))
            inside = _contains(points[rows], boxes[low:high])
            # argmax of booleans is the first true one.
            lowest = inside.to(torch.uint8).argmax(0) + low
            first[rows] = torch.where(inside.any(0), lowest, -1)
            counts[low:high] += inside.sum(1)
    return first, counts


_membership = define_op(
    "membership(Tensor points, Tensor boxes) -> Tensor",
    reference=_membership_reference,
    fake=lambda points, boxes: points.new_empty(boxes.shape[0], points.shape[0], dtype=torch.bool),
    autocast="float32",
)
_points_in_boxes = define_op(
    "points_in_boxes(Tensor points, Tensor point_offsets, Tensor boxes, Tensor box_offsets) -> (Tensor, Tensor)",
    reference=_points_in_boxes_reference,
    fake=lambda points, point_offsets, boxes, box_offsets: (
        point_offsets.new_empty(points.shape[0]),
        box_offsets.new_empty(boxes.shape[0]),
    ),
    autocast="float32",
)
