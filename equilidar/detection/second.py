"""SECOND (Yan et al. 2018): sparse backbone, dense neck, anchor head."""

from collections.abc import Callable, Sequence

import torch

from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.decode import BoxSelection, decode_predictions
from equilidar.detection.detector import DetectionBackbone, Detector
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.targets import assign_targets
from equilidar.structures import Boxes3D, Detections, LossTerms, PointCloudBatch


class SECOND(Detector):
    """An anchor-based detector of one stage.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        neck: dense network on its map.
        head: anchor head on the neck's map.
        class_names: the dataset's classes, which labels refer to.
        loss: loss on predictions and targets.
        selection: score threshold and suppression.

    Raises:
        ValueError: a class of the head is none of the dataset's, or there twice.
    """

    def __init__(
        self,
        backbone: DetectionBackbone,
        neck: BEVNeck,
        head: AnchorHead,
        *,
        class_names: Sequence[str],
        loss: AnchorLoss | None = None,
        selection: BoxSelection | None = None,
    ) -> None:
        super().__init__(backbone, [anchor.name for anchor in head.classes], class_names)
        self.neck = neck
        self.head = head
        self.anchor_loss = loss or AnchorLoss()
        self.selection = selection or BoxSelection()

    def forward(self, points: PointCloudBatch) -> AnchorPredictions:
        """Return the raw outputs for every anchor."""
        features = self.backbone.encode(points)
        return self.head(self.neck(features.bev_map()))

    def loss(self, predictions: AnchorPredictions, boxes: Boxes3D, keys: Sequence[str] = ()) -> LossTerms:
        """Assign targets and compare (see `Detector.loss`)."""
        return self.anchor_loss(predictions, assign_targets(predictions.anchors, self.known(boxes, keys)))

    @torch.no_grad()
    def decode(self, predictions: AnchorPredictions) -> Detections:
        """Return the boxes found, by falling score in each sweep, labels as in the dataset."""
        return self.outside(self.selection(decode_predictions(predictions, self.selection.max_candidates)))


def build_second(
    backbone: DetectionBackbone,
    class_names: Sequence[str],
    *,
    neck: Callable[..., BEVNeck],
    anchors: Sequence[AnchorClass],
    prior: float = 0.01,
    loss: AnchorLoss | None = None,
    selection: BoxSelection | None = None,
) -> SECOND:
    """Size neck and head by the backbone and put the detector together.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        class_names: the dataset's classes.
        neck: `BEVNeck` or the like, still to be given `in_channels` and `in_shape`.
        anchors: one entry for each class to be found.
        prior: see `AnchorHead`.
        loss: see `AnchorLoss`.
        selection: see `BoxSelection`.
    """
    info = backbone.feature_info
    built = neck(in_channels=info.bev_channels, in_shape=info.bev_shape)
    head = AnchorHead(built.out_channels, built.out_shape, backbone.grid, anchors, prior=prior)
    return SECOND(backbone, built, head, class_names=class_names, loss=loss, selection=selection)
