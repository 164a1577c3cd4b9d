"""Losses of a second stage: how well a proposal fits, and how it must move."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from equilidar.detection.roi_frame import decode_in_roi, encode_in_roi
from equilidar.detection.roi_targets import RoITargets
from equilidar.nn.processes import shared_count
from equilidar.structures import LossTerms
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class RoIPredictions(Movable):
    """What a second stage says of R proposals of each sweep, whatever their class.

    Attributes:
        logits: (B, R) before the sigmoid: how well the proposal fits.
        deltas: (B, R, 7) residuals, see `roi_frame`.
    """

    logits: Float[Tensor, "B R"]
    deltas: Float[Tensor, "B R 7"]


@dataclass(frozen=True)
class RoILoss:
    """OpenPCDet's RoIHeadTemplate; defaults as its cfgs/kitti_models/{voxel_rcnn_car,pv_rcnn}.yaml.

    Means are over all proposals, or all foreground ones, of the sweeps of a step, whichever process holds them.

    Attributes:
        classification, box, corner: weights of the three terms (rcnn_cls_weight, rcnn_reg_weight, rcnn_corner_weight).
        beta: where the smooth L1 of residuals turns from square to linear.
    """

    classification: float = 1.0
    box: float = 1.0
    corner: float = 1.0
    beta: float = 1 / 9

    def __call__(self, predictions: RoIPredictions, targets: RoITargets) -> LossTerms:
        """Return the terms, computed in float32 whatever the autocast state."""
        with torch.autocast(predictions.logits.device.type, enabled=False):
            return self._terms(predictions.logits.float(), predictions.deltas.float(), targets)

    def _terms(self, logits: Tensor, deltas: Tensor, targets: RoITargets) -> LossTerms:
        counted = targets.scores >= 0
        entropy = F.binary_cross_entropy_with_logits(logits, targets.scores.clamp_min(0), reduction="none")
        classification = torch.where(counted, entropy, 0.0).sum() / shared_count(counted.sum())

        foreground = targets.foreground
        num = shared_count(foreground.sum())
        # Others get residuals of zero before anything is computed: a gradient of zero times infinity would be NaN.
        deltas = torch.where(foreground[..., None], deltas, 0.0)
        residuals = encode_in_roi(targets.boxes, targets.rois)
        box = F.smooth_l1_loss(
            deltas, torch.where(foreground[..., None], residuals, 0.0), beta=self.beta, reduction="sum"
        )
        refined = decode_in_roi(deltas, targets.rois)
        corner = torch.where(foreground, corner_distance(refined, targets.boxes), 0.0).sum()
        return LossTerms(
            {"roi_classification": classification, "roi_box": box / num, "roi_corner": corner / num},
            {"roi_classification": self.classification, "roi_box": self.box, "roi_corner": self.corner},
            {"foreground_rois": foreground.float().sum(1).mean()},
        )


def corner_distance(boxes: Float[Tensor, "*S 7"], targets: Float[Tensor, "*S 7"]) -> Float[Tensor, "*S"]:
    """Return the mean distance of a box's eight corners to those of its target, squared below a metre (Huber).

    Each corner is compared with its counterpart of the target or of the target turned by half a turn, whichever is
    nearer (Qi et al., F-PointNets, CVPR 2018, section 4.3; OpenPCDet takes the nearer one corner by corner).
    """
    corners, aligned = _corners(boxes), _corners(targets)
    opposite = _corners(torch.cat([targets[..., :6], targets[..., 6:] + math.pi], -1))
    distance = torch.minimum((corners - aligned).norm(dim=-1), (corners - opposite).norm(dim=-1))
    return F.huber_loss(distance, torch.zeros_like(distance), reduction="none").mean(-1)


def _corners(boxes: Tensor) -> Tensor:
    """(*S, 7) -> (*S, 8, 3)."""
    bits = torch.arange(8, device=boxes.device)[:, None] >> torch.arange(3, device=boxes.device) & 1
    x, y, z = ((bits - 0.5) * boxes[..., None, 3:6]).unbind(-1)
    cos, sin = boxes[..., 6:].cos(), boxes[..., 6:].sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], -1) + boxes[..., None, :3]
