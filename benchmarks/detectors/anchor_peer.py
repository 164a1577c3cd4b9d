"""OpenPCDet's way with anchors (AxisAlignedTargetAssigner, AnchorHeadSingle, class-agnostic NMS), for timing.

Written after its description, in NumPy and PyTorch: loops over sweeps and classes, tables of all anchors and boxes,
losses over all anchors, every anchor decoded.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rows.boxes import shapely_nms
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.second import SECOND
from equilidar.ops.rotated_iou import axis_aligned_bev_iou
from equilidar.structures import Boxes3D

_OFFSET = 0.78539


class AnchorPeer:
    """Targets, loss, decoding and suppression for an anchor head."""

    def __init__(self, model: SECOND) -> None:
        self.model = model
        self.anchors, self.classes = model.head.anchors.boxes, model.head.classes
        self.of_class = model.head.anchors.class_index()

    def plausible(self, predictions: AnchorPredictions, boxes: Boxes3D) -> AnchorPredictions:
        """Return outputs as of a trained head: high where an anchor lies on a box, some false alarms elsewhere."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.empty_like(predictions.class_logits)
        for item, own in enumerate(boxes.split()):
            iou = axis_aligned_bev_iou(self.anchors, own.as_tensor())
            for index in range(len(self.classes)):
                best = (
                    iou[:, own.label == index].amax(1) if bool((own.label == index).any()) else iou.new_zeros(len(iou))
                )
                logits[item, :, index] = torch.where(self.of_class == index, 7 * best - 4.6, -8.0)
        logits += 0.5 * torch.randn(logits.shape, generator=generator)
        alarms = torch.randint(0, logits.shape[1], (300,), generator=generator)
        # All scores differ: ties would be broken one way or the other.
        logits[:, alarms, self.of_class[alarms]] = -1 + 0.3 * torch.randn(len(alarms), generator=generator)
        deltas = 0.05 * torch.randn(predictions.box_deltas.shape, generator=generator)
        return replace(predictions, class_logits=logits, box_deltas=deltas)

    def loss(self, predictions: AnchorPredictions, boxes: Boxes3D) -> Tensor:
        """Assign and compare."""
        assigned = [self._assign(item.as_tensor(), item.label) for item in boxes.split()]
        labels, targets = (torch.stack(parts) for parts in zip(*assigned, strict=True))
        positive = labels > 0
        share = 1 / positive.sum(1, keepdim=True).clamp(min=1).float()

        one_hot = torch.zeros(*labels.shape, len(self.classes) + 1)
        one_hot.scatter_(-1, labels.clamp(min=0).unsqueeze(-1), 1.0)
        logits, one_hot = predictions.class_logits, one_hot[..., 1:]
        p = logits.sigmoid()
        alpha = one_hot * 0.25 + (1 - one_hot) * 0.75
        wrong = one_hot * (1 - p) + (1 - one_hot) * p
        entropy = logits.clamp(min=0) - logits * one_hot + torch.log1p(torch.exp(-logits.abs()))
        focal = alpha * wrong**2 * entropy * ((labels >= 0).float() * share).unsqueeze(-1)

        weight = positive.float() * share
        deltas = predictions.box_deltas
        ours = torch.cat([deltas[..., :6], torch.sin(deltas[..., 6:]) * torch.cos(targets[..., 6:])], -1)
        theirs = torch.cat([targets[..., :6], torch.cos(deltas[..., 6:]) * torch.sin(targets[..., 6:])], -1)
        error = (ours - theirs).abs()
        smooth = torch.where(error < 1 / 9, 4.5 * error**2, error - 0.5 / 9) * weight.unsqueeze(-1)

        yaw = targets[..., 6] + self.anchors[:, 6] - _OFFSET
        turned = yaw - torch.floor(yaw / (2 * math.pi)) * 2 * math.pi
        half = torch.floor(turned / math.pi).long().clamp(0, 1)
        turn = F.cross_entropy(predictions.direction_logits.flatten(0, 1), half.flatten(), reduction="none")
        total = focal.sum() + 2 * smooth.sum() + 0.2 * (turn.view_as(weight) * weight).sum()
        return total / len(labels)

    def _assign(self, boxes: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.full((len(self.anchors),), -1)
        targets = torch.zeros(len(self.anchors), 7)
        for index, spec in enumerate(self.classes):
            rows = (self.of_class == index).nonzero()[:, 0]
            anchors, own = self.anchors[rows], boxes[label == index]
            found = torch.full((len(rows),), -1)
            residual = torch.zeros(len(rows), 7)
            if len(own):
                table = _nearest_iou(anchors, own)
                best_box = torch.from_numpy(table.numpy().argmax(1))
                best = table[torch.arange(len(rows)), best_box]
                highest = table[torch.from_numpy(table.numpy().argmax(0)), torch.arange(len(own))]
                highest[highest == 0] = -1
                forced = (table == highest).nonzero()[:, 0]
                found[best < spec.unmatched] = 0
                found[forced] = index + 1
                found[best >= spec.matched] = index + 1
                positive = (found > 0).nonzero()[:, 0]
                residual[positive] = _encode(own[best_box[positive]], anchors[positive])
            else:
                found[:] = 0
            labels[rows], targets[rows] = found, residual
        return labels, targets

    def candidates(self, predictions: AnchorPredictions) -> list[tuple[np.ndarray, np.ndarray]]:
        """Decode every anchor; of each sweep return the best boxes above the threshold, with scores."""
        deltas, anchors = predictions.box_deltas, self.anchors
        diagonal = torch.sqrt(anchors[:, 3] ** 2 + anchors[:, 4] ** 2)
        scale = torch.stack([diagonal, diagonal, anchors[:, 5]], 1)
        yaw = deltas[..., 6] + anchors[:, 6] - _OFFSET
        yaw = yaw - torch.floor(yaw / math.pi) * math.pi + _OFFSET
        yaw = yaw + math.pi * predictions.direction_logits.argmax(-1)
        center, size = deltas[..., :3] * scale + anchors[:, :3], deltas[..., 3:6].exp() * anchors[:, 3:6]
        boxes = torch.cat([center, size, yaw.unsqueeze(-1)], -1)
        probability = predictions.class_logits.sigmoid()
        found = []
        for item in range(len(boxes)):
            scores, _ = probability[item].max(-1)
            mask = scores >= self.model.selection.score_threshold
            kept, scores = boxes[item][mask], scores[mask]
            scores, order = scores.topk(min(self.model.selection.max_candidates, len(scores)))
            found.append((kept[order].double().numpy(), scores.numpy()))
        return found

    def suppress(self, candidates: list[tuple[np.ndarray, np.ndarray]]) -> int:
        """Suppress; return how many are left."""
        selection = self.model.selection
        kept = [shapely_nms(boxes, scores, selection.nms_iou) for boxes, scores in candidates if len(boxes)]
        return sum(min(len(rows), selection.max_boxes) for rows in kept)


def _nearest_iou(a: Tensor, b: Tensor) -> Tensor:
    rectangles = []
    for boxes in (a, b):
        yaw = boxes[:, 6] - torch.floor(boxes[:, 6] / math.pi + 0.5) * math.pi
        size = torch.where((yaw.abs() < math.pi / 4).unsqueeze(-1), boxes[:, [3, 4]], boxes[:, [4, 3]])
        rectangles.append(torch.cat([boxes[:, :2] - size / 2, boxes[:, :2] + size / 2], 1))
    one, other = rectangles
    low = torch.max(one[:, None, :2], other[None, :, :2])
    high = torch.min(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clamp(min=0)
    overlap = shared[..., 0] * shared[..., 1]
    area_a, area_b = ((r[:, 2] - r[:, 0]) * (r[:, 3] - r[:, 1]) for r in rectangles)
    return overlap / (area_a.view(-1, 1) + area_b.view(1, -1) - overlap).clamp(min=1e-6)


def _encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    diagonal = torch.sqrt(anchors[:, 3] ** 2 + anchors[:, 4] ** 2)
    scale = torch.stack([diagonal, diagonal, anchors[:, 5]], 1)
    center, size = (boxes[:, :3] - anchors[:, :3]) / scale, torch.log(boxes[:, 3:6] / anchors[:, 3:6])
    return torch.cat([center, size, boxes[:, 6:] - anchors[:, 6:]], 1)
