"""What all detectors of two stages do around their second stage: propose, draw, compare; propose, refine, select."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.detection.decode import AnchorBoxes, BoxSelection, all_finite
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.proposals import propose
from equilidar.detection.roi_frame import decode_in_roi
from equilidar.detection.roi_loss import RoILoss, RoIPredictions
from equilidar.detection.roi_targets import RoISampler
from equilidar.structures import Boxes3D, LossTerms

Refine = Callable[[Float[Tensor, "B R 7"]], RoIPredictions]


@dataclass(frozen=True)
class SecondStage:
    """Numbers of a second stage; defaults as OpenPCDet's cfgs/kitti_models/pv_rcnn.yaml.

    Attributes:
        train_proposals: boxes of the first stage from which training draws (NMS_CONFIG.TRAIN).
        test_proposals: boxes of the first stage that are refined in detection (NMS_CONFIG.TEST).
        sampler: the draw, and its targets.
        roi_loss: of what is said of the drawn ones.
    """

    train_proposals: BoxSelection = field(default_factory=lambda: BoxSelection(0.0, 0.8, 9000, 512))
    test_proposals: BoxSelection = field(default_factory=lambda: BoxSelection(0.0, 0.7, 1024, 100))
    sampler: RoISampler = field(default_factory=RoISampler)
    roi_loss: RoILoss = field(default_factory=RoILoss)

    def loss(
        self, first: AnchorPredictions, boxes: Boxes3D, seeds: Int64[Tensor, " B"] | None, refine: Refine
    ) -> LossTerms:
        """Draw proposals, refine them and compare, in float32 whatever the autocast state.

        Args:
            first: what the first stage says; gets no gradient from here.
            boxes: with `label` an index into the detector's classes.
            seeds: each sweep's own seed for the draw; 0, 1, 2 ... if None.
            refine: the second stage.
        """
        if seeds is None:
            seeds = torch.arange(len(first.class_logits), device=first.class_logits.device)
        targets = self.sampler(propose(first, self.train_proposals), boxes, seeds)
        with torch.autocast(first.class_logits.device.type, enabled=False):
            return self.roi_loss(refine(targets.rois), targets)

    @torch.no_grad()
    def refined(self, first: AnchorPredictions, refine: Refine) -> AnchorBoxes:
        """Return the refined boxes of all proposals, a score of -1 where there is none."""
        proposals = propose(first, self.test_proposals)
        with torch.autocast(first.class_logits.device.type, enabled=False):
            said = refine(proposals.boxes)
            boxes = decode_in_roi(said.deltas.float(), proposals.boxes)
            scores = torch.where(proposals.valid, said.logits.float().sigmoid(), -1.0)
        finite = proposals.finite & all_finite(said.logits, said.deltas)
        return AnchorBoxes(boxes, scores, proposals.labels, finite)


def joined(*losses: LossTerms) -> LossTerms:
    """Return the terms of several losses as one."""
    return LossTerms(
        {name: term for loss in losses for name, term in loss.terms.items()},
        {name: weight for loss in losses for name, weight in loss.weights.items()},
        {name: metric for loss in losses for name, metric in loss.metrics.items()},
    )
