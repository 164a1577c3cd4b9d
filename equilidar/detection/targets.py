"""Which anchor is to find which box.

Class by class, by the IoU of "nearest" BEV rectangles (headings snapped to the axes), as OpenPCDet's
AxisAlignedTargetAssigner: an anchor is positive where its IoU to some box reaches `matched`, or where it has the
highest IoU that the box gets at all (every anchor in a tie); background where its IoU to all boxes stays below
`unmatched`; ignored otherwise. A positive anchor is given the box that it overlaps most, the first in a tie.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.detection.anchors import Anchors
from equilidar.detection.box_coder import encode_boxes
from equilidar.detection.direction import direction_of
from equilidar.ops.rotated_iou import axis_aligned_bev_iou
from equilidar.structures import Boxes3D
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import allowed_sync, rows_where
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class AnchorTargets(Movable):
    """What each anchor should say.

    Attributes:
        labels: (B, A) int64: -1 ignored, 0 background, k + 1 for class k.
        boxes: (B, A, 7) residuals of the box to be found; zero where the label is not positive.
        directions: (B, A) int64 half turn of that box; zero where the label is not positive.
    """

    labels: Int64[Tensor, "B A"]
    boxes: Float[Tensor, "B A 7"]
    directions: Int64[Tensor, "B A"]


def assign_targets(anchors: Anchors, boxes: Boxes3D) -> AnchorTargets:
    """Give each anchor its class and box.

    Args:
        anchors: of all classes.
        boxes: with `label` an index into `anchors.classes`; boxes with another label (-1, say) are ignored.
    """
    batch, cells = boxes.batch_size, anchors.shape[0] * anchors.shape[1]
    labels = torch.empty(batch, cells, anchors.per_cell, dtype=torch.int64, device=anchors.boxes.device)
    matched = anchors.boxes.new_zeros(batch, cells, anchors.per_cell, 7)
    for index, (of_class, longest) in enumerate(_by_class(boxes, len(anchors.classes))):
        columns = anchors.columns(index)
        label, box = _assign_class(anchors, index, of_class, longest)
        labels[:, :, columns] = label.view(batch, cells, -1)
        matched[:, :, columns] = box.view(batch, cells, -1, 7)
    labels, matched = labels.flatten(1), matched.flatten(1, 2)
    positive = labels > 0
    rows = rows_where(positive.flatten(), "number of positive anchors")
    of_anchors = anchors.boxes[rows % len(anchors.boxes)]
    encoded = encode_boxes(matched.flatten(0, 1)[rows], of_anchors)
    deltas = torch.zeros_like(matched).flatten(0, 1).index_copy(0, rows, encoded).view_as(matched)
    directions = torch.where(positive, direction_of(matched[..., 6]), 0)
    return AnchorTargets(labels, deltas, directions)


def _by_class(boxes: Boxes3D, num_classes: int) -> list[tuple[Boxes3D, int]]:
    """Return the boxes of each class, and how many of them an item has at most, at least 1."""
    classes = torch.arange(num_classes, device=boxes.label.device)
    masks = boxes.label == classes[:, None]
    bounds = torch.stack([batch_offsets.after_mask(boxes.offsets, mask) for mask in masks])
    with allowed_sync("boxes of each class and item: the shape of the tables of IoU hangs on it"):
        counts = bounds.diff().tolist()
    return [
        (boxes.rows(mask.nonzero_static(size=sum(count))[:, 0], offsets), max([*count, 1]))
        for mask, offsets, count in zip(masks, bounds, counts, strict=True)
    ]


def _assign_class(
    anchors: Anchors, index: int, boxes: Boxes3D, longest: int
) -> tuple[Int64[Tensor, "B N"], Float[Tensor, "B N 7"]]:
    """Return labels and matched boxes of the N anchors of one class; the boxes only matter where the label is > 0."""
    spec = anchors.classes[index]
    padded, valid = _pad(boxes, longest)  # (B, M, 7), (B, M)
    table = axis_aligned_bev_iou(anchors.of_class(index).flatten(0, 1), padded.flatten(0, 1))
    iou = table.view(len(table), *valid.shape).transpose(0, 1)  # (B, N, M)
    iou = torch.where(valid[:, None, :], iou, -1.0)

    best, box_row = iou.max(2)  # (B, N): the first box in a tie
    highest = iou.amax(1, keepdim=True)  # (B, 1, M): the best that any anchor does for a box
    forced = ((iou == highest) & (highest > 0)).any(2)
    labels = torch.full_like(box_row, -1)
    labels[best < spec.unmatched] = 0
    labels[forced | (best >= spec.matched)] = index + 1
    return labels, padded.gather(1, box_row[..., None].expand(-1, -1, 7))


def _pad(boxes: Boxes3D, length: int) -> tuple[Float[Tensor, "B M 7"], Bool[Tensor, "B M"]]:
    """Return the boxes of each item in rows of equal length, and which of them are there."""
    counts = boxes.offsets.diff()
    item = boxes.batch_index
    row = torch.arange(len(boxes), device=item.device) - boxes.offsets[item]
    padded = boxes.center.new_zeros(boxes.batch_size, length, 7)
    padded[item, row] = boxes.as_tensor()
    return padded, torch.arange(length, device=item.device) < counts[:, None]
