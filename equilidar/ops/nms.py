"""Greedy non-maximum suppression, seen from above: of oriented boxes, of axis-aligned ones, of centers.

Boxes are visited by falling score (equal scores: lower row first); each is kept unless one that was kept suppresses it.
The rules differ in when a box suppresses another. All compare in float64: no threshold is met by rounding.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rotated_iou import bev_iou_pairs, near_pairs
from equilidar.structures.host_sync import allowed_sync

_BLOCK = 512
_SIZE = "number of boxes kept"

# Given rows of kept and of other boxes, positions in both of those where the kept one suppresses the other.
_Pairs = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def rotated_nms(
    boxes: Float[Tensor, "M 7"], scores: Float[Tensor, " M"], iou_threshold: float
) -> Int64[Tensor, " num_kept"]:
    """Keep the best oriented boxes that do not overlap.

    A box is dropped if its BEV IoU with one that was kept is above the threshold (OpenPCDet's `nms_gpu`).

    Args:
        boxes: x, y, z of the center, length, width, height, yaw.
        scores: the higher the better.
        iou_threshold: 0..1.

    Returns:
        Kept rows by falling score.

    Raises:
        ValueError: the threshold is not within 0..1.
    """
    return nms_batched(boxes, scores, iou_threshold, torch.zeros_like(scores, dtype=torch.int64))


def nms_batched(
    boxes: Float[Tensor, "M 7"], scores: Float[Tensor, " M"], iou_threshold: float, groups: Int64[Tensor, " M"]
) -> Int64[Tensor, " num_kept"]:
    """Suppress within groups (batch items, classes) only; else as `rotated_nms`.

    Returns:
        Kept rows of all groups by falling score.

    Raises:
        ValueError: the threshold is not within 0..1.
    """
    _check_iou_threshold(iou_threshold)
    with allowed_sync(_SIZE):
        return _rotated_nms(boxes, scores, groups, iou_threshold)


def axis_aligned_nms(
    boxes: Float[Tensor, "M 7"],
    scores: Float[Tensor, " M"],
    iou_threshold: float,
    groups: Int64[Tensor, " M"] | None = None,
) -> Int64[Tensor, " num_kept"]:
    """Keep the best boxes that do not overlap, all taken as if their yaw were 0.

    The yaw is dropped, not rounded to the nearest axis: OpenPCDet's `nms_normal_gpu`, cheaper and blunter than
    `rotated_nms`.

    Args:
        boxes: x, y, z of the center, length, width, height, yaw.
        scores: the higher the better.
        iou_threshold: 0..1; a box is dropped if its BEV IoU with one that was kept is above it.
        groups: suppress within these (batch items, classes) only; None for one group.

    Returns:
        Kept rows by falling score.

    Raises:
        ValueError: the threshold is not within 0..1.
    """
    _check_iou_threshold(iou_threshold)
    with allowed_sync(_SIZE):
        return _axis_aligned_nms(boxes, scores, _one_group(scores) if groups is None else groups, iou_threshold)


def circle_nms(
    centers: Float[Tensor, "M 2"],
    scores: Float[Tensor, " M"],
    radius: float,
    groups: Int64[Tensor, " M"] | None = None,
) -> Int64[Tensor, " num_kept"]:
    """Keep the best centers with no better one nearby (CenterPoint, Yin et al. 2021).

    A center is dropped if its distance to one that was kept is at most `radius`. CenterPoint's code compares its
    `min_radius` (4, 12, 10, 1, 0.85, 0.175 for nuScenes' classes) with the squared distance: pass the square root
    of such a figure.

    Args:
        centers: x, y.
        scores: the higher the better.
        radius: metres, at least 0.
        groups: suppress within these (batch items, classes) only; None for one group.

    Returns:
        Kept rows by falling score.

    Raises:
        ValueError: the radius is negative.
    """
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0 metres, got {radius}")
    with allowed_sync(_SIZE):
        return _circle_nms(centers, scores, _one_group(scores) if groups is None else groups, radius)


def _one_group(scores: Tensor) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.int64)


def _check_iou_threshold(iou_threshold: float) -> None:
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be within 0..1, got {iou_threshold}")


def _rotated_reference(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    def suppressing(kept: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        row, column = near_pairs(boxes[kept], boxes[other]).unbind(1)
        overlap = bev_iou_pairs(boxes[kept[row]].double(), boxes[other[column]].double()) > iou_threshold
        return row[overlap], column[overlap]

    return _greedy(scores, groups, suppressing)


def _axis_aligned_reference(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    half, area = boxes[:, 3:5].double() / 2, 4 * (boxes[:, 3:5].double() / 2).prod(1)

    def suppressing(kept: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        row, column = near_pairs(boxes[kept], boxes[other]).unbind(1)
        a, b = kept[row], other[column]
        shift = boxes[b, :2].double() - boxes[a, :2].double()
        shared = torch.minimum(half[a], shift + half[b]) - torch.maximum(-half[a], shift - half[b])
        overlap = shared.clamp_min(0).prod(1)
        union = area[a] + area[b] - overlap
        over = (union > 0) & (overlap / union > iou_threshold)
        return row[over], column[over]

    return _greedy(scores, groups, suppressing)


def _circle_reference(centers: Tensor, scores: Tensor, groups: Tensor, radius: float) -> Tensor:
    def suppressing(kept: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        shift = centers[other].double() - centers[kept][:, None].double()
        row, column = (shift.square().sum(-1) <= radius * radius).nonzero().unbind(1)
        return row, column

    return _greedy(scores, groups, suppressing)


def _greedy(scores: Tensor, groups: Tensor, suppressing: _Pairs) -> Tensor:
    """Go through the sorted boxes in blocks, so that overlaps are only computed with what was kept before."""
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in order.split(_BLOCK):
        row, hit = suppressing(kept, block)
        alive = torch.ones(len(block), dtype=torch.bool, device=block.device)
        alive[hit[groups[kept[row]] == groups[block[hit]]]] = False
        block = block[alive]
        row, hit = suppressing(block, block)
        related = groups[block[row]] == groups[block[hit]]
        kept = torch.cat([kept, block[_resolve(len(block), row[related], hit[related])]])
    return kept


def _resolve(num: int, suppressor: Tensor, hit: Tensor) -> Tensor:
    """Return which of `num` sorted boxes greedy suppression keeps, given all suppressing pairs.

    Whoever has no undecided or kept box before it is kept, whoever has a kept one is dropped; repeated until all are
    decided. As many rounds as the longest chain of suppressions, not as there are boxes.
    """
    earlier = suppressor < hit
    suppressor, hit = suppressor[earlier], hit[earlier]
    kept = torch.zeros(num, dtype=torch.bool, device=suppressor.device)
    undecided = ~kept
    while bool(undecided.any()):  # asks the device
        waiting = torch.zeros_like(kept)
        waiting[hit[undecided[suppressor]]] = True
        kept |= undecided & ~waiting
        undecided &= waiting
        undecided[hit[kept[suppressor]]] = False
    return kept


def _fake(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    return groups.new_empty(torch.library.get_ctx().new_dynamic_size())


_rotated_nms = define_op(
    "rotated_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold) -> Tensor",
    reference=_rotated_reference,
    fake=_fake,
    autocast="float32",
)
_axis_aligned_nms = define_op(
    "axis_aligned_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold) -> Tensor",
    reference=_axis_aligned_reference,
    fake=_fake,
    autocast="float32",
)
_circle_nms = define_op(
    "circle_nms(Tensor centers, Tensor scores, Tensor groups, float radius) -> Tensor",
    reference=_circle_reference,
    fake=_fake,
    autocast="float32",
)
