"""Greedy non-maximum suppression of oriented boxes, seen from above."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rotated_iou import bev_iou_pairs, near_pairs

_BLOCK = 512


def rotated_nms(
    boxes: Float[Tensor, "M 7"], scores: Float[Tensor, " M"], iou_threshold: float
) -> Int64[Tensor, " num_kept"]:
    """Keep the best boxes that do not overlap.

    Boxes are visited by falling score (equal scores: lower row first); a box is dropped if its BEV IoU with one that
    was kept is above the threshold.

    Args:
        boxes: x, y, z of the center, length, width, height, yaw.
        scores: the higher the better.
        iou_threshold: 0..1.

    Returns:
        Kept rows by falling score.
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
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be within 0..1, got {iou_threshold}")
    return _rotated_nms(boxes, scores, groups, iou_threshold)


def _nms_reference(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Go through the sorted boxes in blocks, so that overlaps are only computed with what was kept before."""
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in order.split(_BLOCK):
        suppressor, hit = _overlapping(boxes, groups, kept, block, iou_threshold)
        alive = torch.ones(len(block), dtype=torch.bool, device=boxes.device)
        alive[hit] = False
        block = block[alive]
        suppressor, hit = _overlapping(boxes, groups, block, block, iou_threshold)
        kept = torch.cat([kept, block[_resolve(len(block), suppressor, hit)]])
    return kept


def _overlapping(boxes: Tensor, groups: Tensor, one: Tensor, other: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the positions in `one` and in `other` of boxes of a group that overlap too much."""
    pairs = near_pairs(boxes[one], boxes[other])
    pairs = pairs[groups[one[pairs[:, 0]]] == groups[other[pairs[:, 1]]]]
    first, second = one[pairs[:, 0]], other[pairs[:, 1]]
    # In float64: the threshold must not be met by rounding.
    overlap = bev_iou_pairs(boxes[first].double(), boxes[second].double()) > threshold
    row, column = pairs[overlap].unbind(1)
    return row, column


def _resolve(num: int, suppressor: Tensor, hit: Tensor) -> Tensor:
    """Return which of `num` sorted boxes greedy suppression keeps, given all overlapping pairs.

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


_rotated_nms = define_op(
    "rotated_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold) -> Tensor",
    reference=_nms_reference,
    fake=lambda boxes, scores, groups, iou_threshold: groups.new_empty(torch.library.get_ctx().new_dynamic_size()),
    autocast="float32",
)
