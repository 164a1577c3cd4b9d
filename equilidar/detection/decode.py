"""From raw outputs to detections."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.detection.box_coder import decode_boxes
from equilidar.detection.direction import with_direction
from equilidar.detection.predictions import AnchorPredictions
from equilidar.ops.nms import rotated_nms
from equilidar.structures import Boxes3D, Detections
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.boxes import wrap_angle
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class AnchorBoxes(Movable):
    """One box per anchor.

    Attributes:
        boxes: (B, A, 7) x, y, z, length, width, height, yaw in [0.785, 0.785 + 2 pi).
        scores: (B, A) probability of the likeliest class.
        classes: (B, A) int64 that class.
    """

    boxes: Float[Tensor, "B A 7"]
    scores: Float[Tensor, "B A"]
    classes: Int64[Tensor, "B A"]


def decode_predictions(predictions: AnchorPredictions) -> AnchorBoxes:
    """Decode every anchor, in float32."""
    scores, classes = predictions.class_logits.float().sigmoid().max(-1)
    boxes = decode_boxes(predictions.box_deltas.float(), predictions.anchors.boxes)
    yaw = with_direction(boxes[..., 6], predictions.direction_logits.argmax(-1))
    return AnchorBoxes(torch.cat([boxes[..., :6], yaw[..., None]], -1), scores, classes)


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
        boxes: list[Tensor] = []
        scores: list[Tensor] = []
        labels: list[Tensor] = []
        for item in range(len(decoded.scores)):  # suppression is sequential anyway
            rows = self._rows(decoded.boxes[item], decoded.scores[item])
            boxes.append(decoded.boxes[item, rows])
            scores.append(decoded.scores[item, rows])
            labels.append(decoded.classes[item, rows])
        flat = torch.cat(boxes)
        offsets = batch_offsets.from_lengths([len(item) for item in scores]).to(flat.device)
        kept = Boxes3D.make(flat[:, :3], flat[:, 3:6], wrap_angle(flat[:, 6]), label=torch.cat(labels), offsets=offsets)
        return Detections(kept, torch.cat(scores))

    def _rows(self, boxes: Float[Tensor, "A 7"], scores: Float[Tensor, " A"]) -> Int64[Tensor, " K"]:
        # An untrained or diverged head can give sizes that overflow; suppression must not see them.
        usable = torch.isfinite(boxes).all(-1) & (scores >= self.score_threshold)
        ranked = torch.where(usable, scores, -math.inf)
        best, rows = ranked.topk(min(self.max_candidates, len(ranked)))
        rows = rows[best > -math.inf]
        kept = rotated_nms(boxes[rows], scores[rows], self.nms_iou)
        return rows[kept[: self.max_boxes]]
