"""Overlap of oriented boxes: seen from above, and in 3D.

Boxes are rows x, y, z of the center, length, width, height, yaw (any range). Overlaps of oriented boxes are computed
in float64 and in the frame of one of the boxes, then rounded to the dtype of the boxes; so float32 boxes 100 km from
the origin overlap as exactly as their coordinates say.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.ops._registration import define_op

_MAX_PAIRS = 1 << 18  # exact overlaps computed at once
_MAX_NEAR_TESTS = 1 << 22  # center distances held at once


def bev_iou(a: Float[Tensor, "N 7"], b: Float[Tensor, "M 7"]) -> Float[Tensor, "N M"]:
    """Return the intersection over union of all pairs, seen from above. Not differentiable."""
    return _rotated_iou(a, b, False)


def iou_3d(a: Float[Tensor, "N 7"], b: Float[Tensor, "M 7"]) -> Float[Tensor, "N M"]:
    """Return the intersection over union of the volumes of all pairs. Not differentiable."""
    return _rotated_iou(a, b, True)


def bev_iou_pairs(a: Float[Tensor, "N 7"], b: Float[Tensor, "N 7"]) -> Float[Tensor, " N"]:
    """Return the intersection over union of row i with row i, seen from above. Not differentiable."""
    return _rotated_iou_pairs(a, b, False)


def iou_3d_pairs(a: Float[Tensor, "N 7"], b: Float[Tensor, "N 7"]) -> Float[Tensor, " N"]:
    """Return the intersection over union of the volumes of row i with row i. Not differentiable."""
    return _rotated_iou_pairs(a, b, True)


def axis_aligned_bev_iou(a: Float[Tensor, "N 7"], b: Float[Tensor, "M 7"]) -> Float[Tensor, "N M"]:
    """Return the IoU of all pairs, seen from above, each box turned to the nearest axis. Not differentiable.

    SECOND's anchors are assigned by it (Yan et al. 2018, section 3.3.1, as OpenPCDet's "nearest BEV"): a box closer
    to the y axis than to the x axis (45 degrees included) swaps length and width, then the yaw is dropped. Computed
    in the dtype of the boxes.
    """
    return _axis_aligned_iou(a, b)


def _axis_aligned_reference(a: Tensor, b: Tensor) -> Tensor:
    low_a, high_a = nearest_aligned(a)
    low_b, high_b = nearest_aligned(b)
    overlap = (torch.minimum(high_a[:, None], high_b) - torch.maximum(low_a[:, None], low_b)).clamp_min(0).prod(-1)
    union = (high_a - low_a).prod(-1)[:, None] + (high_b - low_b).prod(-1) - overlap
    return overlap / union.clamp_min(1e-6)


def nearest_aligned(boxes: Float[Tensor, "*S 7"]) -> tuple[Float[Tensor, "*S 2"], Float[Tensor, "*S 2"]]:
    """Return the lower and upper (x, y) of boxes turned to the nearest axis (see `axis_aligned_bev_iou`)."""
    folded = torch.remainder(boxes[..., 6] + math.pi / 2, math.pi) - math.pi / 2
    size = torch.where((folded.abs() < math.pi / 4)[..., None], boxes[..., 3:5], boxes[..., 3:5].flip(-1))
    return boxes[..., :2] - size / 2, boxes[..., :2] + size / 2


def _iou_pairs_reference(a: Tensor, b: Tensor, volume: bool) -> Tensor:
    chunks = zip(a.double().split(_MAX_PAIRS), b.double().split(_MAX_PAIRS), strict=True)
    return torch.cat([_iou_chunk(one, other, volume) for one, other in chunks]).to(a.dtype)


def _iou_chunk(a: Tensor, b: Tensor, volume: bool) -> Tensor:
    """Return the IoU of row i with row i, in float64; boxes without extent overlap nothing, themselves included."""
    overlap, together = bev_overlap(a, b), a[:, 3:5].prod(1) + b[:, 3:5].prod(1)
    if volume:
        overlap, together = overlap * _height_overlap(a, b), a[:, 3:6].prod(1) + b[:, 3:6].prod(1)
    union = together - overlap
    return torch.where(union > 0, overlap / union.clamp_min(1e-300), 0.0).clamp(0, 1)


def _height_overlap(a: Tensor, b: Tensor) -> Tensor:
    rise, half_a, half_b = b[:, 2] - a[:, 2], a[:, 5] / 2, b[:, 5] / 2
    return (torch.minimum(half_a, rise + half_b) - torch.maximum(-half_a, rise - half_b)).clamp_min(0)


def bev_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the area that row i of a shares with row i of b, both in float64.

    In a's own frame it is the rectangle |x| <= length / 2, |y| <= width / 2. For a polygon traversed counter-clockwise
    the shared area is minus the sum over its edges of the integral of y dx, x and y each clamped to the rectangle
    (Green's theorem; the clamped upper and lower boundary enclose the intersection). No corner is ever classified as
    inside or outside, so the result is continuous: edges may touch or coincide.
    """
    half_length, half_width = a[:, 3, None] / 2, a[:, 4, None] / 2
    corners = _corners_in_frame(a, b)
    start, stop = corners, corners.roll(-1, 1)
    x0, y0, x1, y1 = start[..., 0], start[..., 1], stop[..., 0], stop[..., 1]
    left, right = x0.clamp(-half_length, half_length), x1.clamp(-half_length, half_length)
    # An edge along y has no dx, so its slope does not matter.
    run = torch.where(x1 == x0, 1.0, x1 - x0)
    y_left = torch.lerp(y0, y1, ((left - x0) / run).clamp(0, 1))
    y_right = torch.lerp(y0, y1, ((right - x0) / run).clamp(0, 1))
    above = _mean_excess(y_left - half_width, y_right - half_width)
    below = _mean_excess(-half_width - y_left, -half_width - y_right)
    mean_y = (y_left + y_right) / 2 - above + below
    return (mean_y * (left - right)).sum(1).clamp_min(0)


def _corners_in_frame(a: Tensor, b: Tensor) -> Tensor:
    """Return b's four corners, counter-clockwise, in the frame of a: (P, 4, 2)."""
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    cos_a, sin_a = a[:, 6].cos(), a[:, 6].sin()
    x, y = dx * cos_a + dy * sin_a, dy * cos_a - dx * sin_a
    turn = b[:, 6] - a[:, 6]
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    along = b[:, 3, None] / 2 * b.new_tensor([1, -1, -1, 1])
    across = b[:, 4, None] / 2 * b.new_tensor([1, 1, -1, -1])
    return torch.stack([x[:, None] + along * cos - across * sin, y[:, None] + along * sin + across * cos], -1)


def _mean_excess(p: Tensor, q: Tensor) -> Tensor:
    """Return the mean of max(0, v) for v running evenly from p to q, without cancellation."""
    high, low = torch.maximum(p, q), torch.minimum(p, q)
    crossing = high.clamp_min(0).square() / (2 * (high - low)).clamp_min(1e-300)
    return torch.where(low >= 0, (p + q) / 2, torch.where(high > 0, crossing, 0.0))


def _iou_reference(a: Tensor, b: Tensor, volume: bool) -> Tensor:
    """Return the IoU of all pairs; only pairs whose circumscribed circles meet are computed."""
    iou = a.new_zeros(len(a), len(b))
    step = max(1, _MAX_NEAR_TESTS // max(1, len(b)))
    for first in range(0, len(a), step):
        row, column = near_pairs(a[first : first + step], b).unbind(1)
        row = row + first
        iou[row, column] = _iou_pairs_reference(a[row], b[column], volume)
    return iou


def near_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return (P, 2) rows of boxes whose circumscribed circles, seen from above, meet; sorted."""
    radius_a, radius_b = a[:, 3:5].double().norm(dim=1) / 2, b[:, 3:5].double().norm(dim=1) / 2
    dx = a[:, None, 0].double() - b[:, 0]
    dy = a[:, None, 1].double() - b[:, 1]
    # Rounding may not lose a pair that just touches; a pair too many costs nothing.
    reach = (radius_a[:, None] + radius_b) * (1 + 1e-9)
    return (dx * dx + dy * dy <= reach * reach).nonzero()


_rotated_iou = define_op(
    "rotated_iou(Tensor a, Tensor b, bool volume) -> Tensor",
    reference=_iou_reference,
    fake=lambda a, b, volume: a.new_empty(a.shape[0], b.shape[0]),
    autocast="float32",
)
_rotated_iou_pairs = define_op(
    "rotated_iou_pairs(Tensor a, Tensor b, bool volume) -> Tensor",
    reference=_iou_pairs_reference,
    fake=lambda a, b, volume: a.new_empty(a.shape[0]),
    autocast="float32",
)
_axis_aligned_iou = define_op(
    "axis_aligned_iou(Tensor a, Tensor b) -> Tensor",
    reference=_axis_aligned_reference,
    fake=lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
    autocast="float32",
)
