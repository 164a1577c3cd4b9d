"""Losses of an anchor head: focal, smooth L1 with the sine of the heading's error, direction cross entropy."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.targets import AnchorTargets
from equilidar.structures import LossTerms
from equilidar.structures.host_sync import rows_where


def sigmoid_focal_loss(
    logits: Float[Tensor, "*S"], target: Float[Tensor, "*S"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*S"]:
    """Weigh binary cross entropy down where it is small already (Lin et al. 2017, eq. 5).

    -alpha_t (1 - p_t)^gamma log p_t, p_t the probability given to the right answer; elementwise.
    """
    p = logits.sigmoid()
    wrong = target * (1 - p) + (1 - target) * p
    balance = target * alpha + (1 - target) * (1 - alpha)
    return balance * wrong**gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def box_residual_loss(
    deltas: Float[Tensor, "*S 7"], target: Float[Tensor, "*S 7"], *, beta: float = 1 / 9
) -> Float[Tensor, "*S"]:
    """Return the smooth L1 of the residuals, the heading's as sin(prediction - target) (SECOND, section 3.2.3).

    The sine is written sin(p) cos(t) against cos(p) sin(t): a heading off by half a turn costs nothing here and is
    left to the direction classifier.
    """
    yaw, yaw_target = deltas[..., 6:], target[..., 6:]
    ours = torch.cat([deltas[..., :6], torch.sin(yaw) * torch.cos(yaw_target)], -1)
    theirs = torch.cat([target[..., :6], torch.cos(yaw) * torch.sin(yaw_target)], -1)
    return F.smooth_l1_loss(ours, theirs, beta=beta, reduction="none").sum(-1)


@dataclass(frozen=True)
class AnchorLoss:
    """SECOND's loss; defaults as OpenPCDet's cfgs/kitti_models/second.yaml.

    Each sweep's sums are divided by its number of positive anchors, then averaged over the batch; as no quantity is
    shared between sweeps, the mean over equal shards of a batch is the loss of the batch.

    Attributes:
        classification, box, direction: weights of the three terms.
        alpha, gamma: of the focal loss.
        beta: where smooth L1 turns from square to linear.
    """

    classification: float = 1.0
    box: float = 2.0
    direction: float = 0.2
    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 1 / 9

    def __call__(self, predictions: AnchorPredictions, targets: AnchorTargets) -> LossTerms:
        """Return the terms, computed in float32 whatever the autocast state."""
        with torch.autocast(predictions.class_logits.device.type, enabled=False):
            return self._terms(predictions, targets)

    def _terms(self, predictions: AnchorPredictions, targets: AnchorTargets) -> LossTerms:
        logits = predictions.class_logits.float()
        positive = targets.labels > 0
        num_positive = positive.sum(1)
        share = 1 / (num_positive.clamp(min=1) * len(logits))  # (B,)

        # Not `F.one_hot`, which looks at the values.
        classes = torch.arange(1, logits.shape[-1] + 1, device=logits.device)
        one_hot = (targets.labels[..., None] == classes).to(logits.dtype)
        focal = sigmoid_focal_loss(logits, one_hot, alpha=self.alpha, gamma=self.gamma).sum(-1)
        focal = torch.where(targets.labels >= 0, focal, 0.0)

        # Only positive rows: they are a handful among 200,000, and the rest has no target.
        rows = rows_where(positive.flatten(), "number of positive anchors")
        deltas, turns = predictions.box_deltas.flatten(0, 1)[rows], predictions.direction_logits.flatten(0, 1)[rows]
        box = box_residual_loss(deltas.float(), targets.boxes.flatten(0, 1)[rows], beta=self.beta)
        turn = F.cross_entropy(turns.float(), targets.directions.flatten()[rows], reduction="none")
        item = rows // positive.shape[1]
        return LossTerms(
            {
                "classification": (focal.sum(1) * share).sum(),
                "box": (box * share[item]).sum(),
                "direction": (turn * share[item]).sum(),
            },
            {"classification": self.classification, "box": self.box, "direction": self.direction},
            {"positive_anchors": num_positive.float().mean()},
        )
