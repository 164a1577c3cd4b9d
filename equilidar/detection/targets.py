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
from equilidar.ops.rotated_iou import nearest_aligned
from equilidar.structures import Boxes3D
from equilidar.structures.host_sync import allowed_sync, constants, rows_where
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


@dataclass(frozen=True)
class _Pairs:
    """Boxes and anchors of their class that overlap.

    Attributes:
        box: row of the box.
        anchor: item * A + place of the anchor.
        iou: of the two.
    """

    box: Int64[Tensor, " F"]
    anchor: Int64[Tensor, " F"]
    iou: Float[Tensor, " F"]


def assign_targets(anchors: Anchors, boxes: Boxes3D) -> AnchorTargets:
    """Give each anchor its class and box, all sweeps and classes at once.

    Args:
        anchors: of all classes.
        boxes: with `label` an index into `anchors.classes`; boxes with another label (-1, say) are ignored.
    """
    batch, num = boxes.batch_size, len(anchors.boxes)
    pairs = _overlapping(anchors, boxes)
    highest = pairs.iou.new_zeros(len(boxes)).scatter_reduce(0, pairs.box, pairs.iou, "amax")
    # The best that any anchor does for a box suffices, whatever the threshold.
    level = torch.where(pairs.iou == highest[pairs.box], _SUFFICES, pairs.iou)
    labels = _labels(anchors, pairs.iou.new_zeros(batch * num).scatter_reduce(0, pairs.anchor, level, "amax"))

    best = pairs.iou.new_zeros(batch * num).scatter_reduce(0, pairs.anchor, pairs.iou, "amax")
    candidate = torch.where(pairs.iou == best[pairs.anchor], pairs.box, len(boxes))
    match = torch.full_like(labels, len(boxes)).scatter_reduce(0, pairs.anchor, candidate, "amin")
    positive = rows_where(labels > 0, "number of positive anchors")
    found = boxes.as_tensor()[match[positive]]
    encoded = encode_boxes(found, anchors.boxes[positive % num])
    deltas = pairs.iou.new_zeros(batch * num, 7).index_copy(0, positive, encoded)
    directions = torch.zeros_like(labels).index_copy(0, positive, direction_of(found[:, 6]))
    return AnchorTargets(labels.view(batch, num), deltas.view(batch, num, 7), directions.view(batch, num))


# Above every threshold.
_SUFFICES = 2.0


def _overlapping(anchors: Anchors, boxes: Boxes3D) -> _Pairs:
    """Find the pairs whose IoU, as `axis_aligned_bev_iou` has it to the last bit, is above zero.

    Anchors stand in rows and columns, so that those which overlap a box stand in a rectangle of cells.
    """
    height, width = anchors.shape
    placed = anchors.boxes.view(height, width, -1, 7)
    low_x, high_x = (side[..., 0].T for side in nearest_aligned(placed[0]))  # (P, W)
    low_y, high_y = (side[..., 1].T for side in nearest_aligned(placed[:, 0]))  # (P, H)
    low, high = nearest_aligned(boxes.as_tensor())

    class_of = constants(anchors.class_in_cell(), device=boxes.label.device)
    with allowed_sync("boxes of the detector's classes, and below the anchors that they overlap"):
        box, column = (boxes.label[:, None] == class_of).nonzero().unbind(1)  # Q rows
    shared_x = torch.minimum(high_x[column], high[box, :1]) - torch.maximum(low_x[column], low[box, :1])
    shared_y = torch.minimum(high_y[column], high[box, 1:]) - torch.maximum(low_y[column], low[box, 1:])
    first_x, num_x = _run(shared_x > 0)
    first_y, num_y = _run(shared_y > 0)

    ends = (num_x * num_y).cumsum(0)
    with allowed_sync("number of anchors that overlap a box of their class"):
        total = int(ends[-1]) if len(ends) else 0
    place = torch.arange(total, device=ends.device)
    row = torch.searchsorted(ends, place, right=True)
    within = place - (ends - num_x * num_y)[row]
    x, y = first_x[row] + within % num_x[row], first_y[row] + within // num_x[row]

    box, column = box[row], column[row]
    overlap = shared_x[row, x] * shared_y[row, y]
    area = (high_x - low_x)[column, x] * (high_y - low_y)[column, y]
    union = area + (high - low).prod(-1)[box] - overlap
    anchor = (y * width + x) * len(class_of) + column
    return _Pairs(box, boxes.batch_index[box] * len(anchors.boxes) + anchor, overlap / union.clamp_min(1e-6))


def _run(inside: Bool[Tensor, "Q cells"]) -> tuple[Int64[Tensor, " Q"], Int64[Tensor, " Q"]]:
    """Return where the one run of true entries of each row begins, and how long it is."""
    return (inside.cumsum(1) == 0).sum(1), inside.sum(1)


def _labels(anchors: Anchors, level: Float[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Return k + 1 where the best overlap of an anchor of class k suffices, 0 for background, -1 in between."""
    in_cell = [anchors.classes[index] for index in anchors.class_in_cell()]
    device, by_cell = level.device, level.view(-1, len(in_cell))
    matched = constants([spec.matched for spec in in_cell], device=device, dtype=level.dtype)
    unmatched = constants([spec.unmatched for spec in in_cell], device=device, dtype=level.dtype)
    number = constants(anchors.class_in_cell(), device=device) + 1
    return torch.where(by_cell >= matched, number, torch.where(by_cell < unmatched, 0, -1)).flatten()
