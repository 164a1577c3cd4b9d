"""What detectors of two stages have in common: a first stage of anchors, proposals from it, and their refinement."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.decode import BoxSelection
from equilidar.detection.detector import DetectionBackbone, Detector
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.second_stage import SecondStage, joined
from equilidar.detection.targets import assign_targets
from equilidar.structures import Boxes3D, Detections, LabelledBatch, LossTerms


class TwoStageDetector(Detector):
    """An anchor-based first stage, and a second one on what `refine` pools for its proposals.

    Predictions have an attribute `first`: the first stage's `AnchorPredictions`.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        neck: dense network on its map.
        head: anchor head on the neck's map.
        roi_head: second stage.
        class_names: the dataset's classes, which labels refer to.
        loss: of the first stage.
        second: proposals, their targets and loss.
        selection: which refined boxes are detections; the class's own SELECTION by default.

    Raises:
        ValueError: a class of the head is none of the dataset's, or there twice.
    """

    SELECTION: ClassVar[BoxSelection]

    def __init__(
        self,
        backbone: DetectionBackbone,
        neck: BEVNeck,
        head: AnchorHead,
        roi_head: nn.Module,
        *,
        class_names: Sequence[str],
        loss: AnchorLoss | None = None,
        second: SecondStage | None = None,
        selection: BoxSelection | None = None,
    ) -> None:
        super().__init__(backbone, [anchor.name for anchor in head.classes], class_names)
        self.neck, self.head, self.roi_head = neck, head, roi_head
        self.anchor_loss = loss or AnchorLoss()
        self.second = second or SecondStage()
        self.selection = selection or self.SELECTION

    @abstractmethod
    def refine(self, predictions: Any) -> Callable:
        """Return what says a score and residuals for boxes (see `SecondStage`)."""

    def between(self, predictions: Any, known: Boxes3D) -> tuple[LossTerms, ...]:
        """Return losses beside those of the two stages; `known` are the boxes with labels into `classes`."""
        return ()

    def loss(
        self,
        predictions: Any,
        boxes: Boxes3D,
        keys: Sequence[str] = (),
        seeds: Int64[Tensor, " B"] | None = None,
    ) -> LossTerms:
        """Compare both stages (see `Detector.loss`); `seeds` are for the draw of proposals (see `SecondStage.loss`)."""
        known = self.known(boxes, keys)
        first = self.anchor_loss(predictions.first, assign_targets(predictions.first.anchors, known))
        between = self.between(predictions, known)
        return joined(first, *between, self.second.loss(predictions.first, known, seeds, self.refine(predictions)))

    def batch_loss(self, predictions: Any, batch: LabelledBatch) -> LossTerms:
        """Return the loss, proposals drawn by the sweeps' own seeds."""
        return self.loss(predictions, batch.boxes, batch.keys, batch.seeds)

    @torch.no_grad()
    def decode(self, predictions: Any) -> Detections:
        """Return the refined boxes, by falling score in each sweep, labels as in the dataset."""
        return self.outside(self.selection(self.second.refined(predictions.first, self.refine(predictions))))
