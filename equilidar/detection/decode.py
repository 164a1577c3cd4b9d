"""From raw outputs to detections."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.detection.box_coder import decode_boxes
from equilidar.detection.direction import with_direction
from equilidar.detection.predictions import AnchorPredictions
from equilidar.ops.nms import nms_batched
from equilidar.structures import Boxes3D, Detections
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.boxes import wrap_angle
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class AnchorBoxes(Movable):
    """One box for each of A anchors: all of a map, or the likeliest by falling score.

    Attributes:
        boxes: (B, A, 7) x, y, z, length, width, height, yaw in [0.785, 0.785 + 2 pi).
        scores: (B, A) probability of the likeliest class.
        classes: (B, A) int64 that class.
        finite: (B,) bool, whether all raw outputs of the sweep were finite.
    """

    boxes: Float[Tensor, "B A 7"]
    scores: Float[Tensor, "B A"]
    classes: Int64[Tensor, "B A"]
    finite: Bool[Tensor, " B"]


def all_finite(*outputs: Float[Tensor, "B *_"]) -> Bool[Tensor, " B"]:
    """Return for each sweep whether everything that was said of it is finite; nothing waits for the device.

    Sums are finite if all is, or the numbers are out of all bounds; looking at each number costs as much as decoding.
    """
    sums = [values.sum(tuple(range(1, values.dim())), dtype=torch.float32) for values in outputs]
    return torch.stack(sums).isfinite().all(0)


def decode_predictions(predictions: AnchorPredictions, max_candidates: int | None = None) -> AnchorBoxes:
    """Decode every anchor, or the `max_candidates` likeliest of each sweep alone, in float32."""
    logits, deltas, turns = predictions.class_logits, predictions.box_deltas, predictions.direction_logits
    anchors = predictions.anchors.boxes
    finite = all_finite(logits, deltas, turns)
    if max_candidates is not None and max_candidates < len(anchors):
        rows = logits.amax(-1).topk(max_candidates, 1).indices  # (B, N)
        logits, deltas, turns = (
            values.gather(1, rows[..., None].expand(-1, -1, values.shape[2])) for values in (logits, deltas, turns)
        )
        anchors = anchors[rows]
    scores, classes = logits.float().sigmoid().max(-1)
    boxes = decode_boxes(deltas.float(), anchors)
    yaw = with_direction(boxes[..., 6], turns.argmax(-1))
    return AnchorBoxes(torch.cat([boxes[..., :6], yaw[..., None]], -1), scores, classes, finite)


@dataclass(frozen=True)
class BoxSelection:
    """Which decoded boxes are detections; defaults as OpenPCDet's cfgs/kitti_models/second.yaml.

    Attributes:
        score_threshold: boxes below are dropped.
        nms_iou: of two boxes with more rotated BEV IoU than this the lower-scored one is dropped, whatever the class.
        max_candidates: number of best boxes per sweep that enter suppression.
        max_boxes: number of boxes per sweep that leave it.
    """

    score_threshold: float = 0.1
    nms_iou: float = 0.01
    max_candidates: int = 4096
    max_boxes: int = 500

    def __call__(self, decoded: AnchorBoxes) -> Detections:
        """Return what is left, by falling score in each sweep; `label` is the index among the head's classes."""
        # An untrained or diverged head can give sizes that overflow; suppression must not see them.
        is_box, is_likely = decoded.boxes.isfinite().all(-1), decoded.scores >= self.score_threshold
        finite = decoded.finite & (is_box | ~is_likely).all(1)
        ranked = torch.where(is_box & is_likely, decoded.scores, -math.inf)
        best, rows = ranked.topk(min(self.max_candidates, ranked.shape[1]), 1)
        item, column = (best > -math.inf).nonzero().unbind(1)
        row = rows[item, column]

        kept = nms_batched(decoded.boxes[item, row], decoded.scores[item, row], self.nms_iou, item)
        kept = kept[item[kept].argsort(stable=True)]  # by item, then falling score
        kept = kept[rank_in_run(item[kept]) < self.max_boxes]
        return _detections(decoded, item[kept], row[kept], finite)


def rank_in_run(sorted_values: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Return how many equal values stand before each value."""
    return torch.arange(len(sorted_values), device=sorted_values.device) - torch.searchsorted(
        sorted_values, sorted_values
    )


def _detections(
    decoded: AnchorBoxes, item: Int64[Tensor, " K"], row: Int64[Tensor, " K"], finite: Bool[Tensor, " B"]
) -> Detections:
    boxes = decoded.boxes[item, row]
    offsets = batch_offsets.from_lengths(torch.bincount(item, minlength=len(decoded.scores)))
    label = decoded.classes[item, row]
    kept = Boxes3D.make(boxes[:, :3], boxes[:, 3:6], wrap_angle(boxes[:, 6]), label=label, offsets=offsets)
    return Detections(kept, decoded.scores[item, row], finite)
