"""CenterPoint (Yin et al., CVPR 2021), one stage: sparse backbone, dense neck, center head."""

from collections.abc import Callable, Sequence

import torch

from equilidar.detection.center_decode import CenterSelection, decode_centers
from equilidar.detection.center_head import CenterHead
from equilidar.detection.center_losses import CenterLoss
from equilidar.detection.center_predictions import CenterPredictions
from equilidar.detection.center_targets import CenterAssignment
from equilidar.detection.detector import DetectionBackbone, Detector
from equilidar.detection.neck import BEVNeck
from equilidar.structures import Boxes3D, Detections, LossTerms, PointCloudBatch


class CenterPoint(Detector):
    """A detector that finds the centers of objects on heat maps.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        neck: dense network on its map.
        head: center head on the neck's map.
        class_names: the dataset's classes, which labels refer to.
        assignment: from boxes to targets.
        loss: loss on predictions and targets.
        selection: score threshold and suppression.

    Raises:
        ValueError: a class of the head is none of the dataset's, or there twice; a weight or radius is missing.
    """

    def __init__(
        self,
        backbone: DetectionBackbone,
        neck: BEVNeck,
        head: CenterHead,
        *,
        class_names: Sequence[str],
        assignment: CenterAssignment | None = None,
        loss: CenterLoss | None = None,
        selection: CenterSelection | None = None,
    ) -> None:
        super().__init__(backbone, head.layout.classes, class_names)
        self.neck = neck
        self.head = head
        self.assignment = assignment or CenterAssignment()
        self.center_loss = loss or CenterLoss(code_weights=(1.0,) * head.layout.num_codes)
        self.selection = selection or CenterSelection()
        self.selection.check(head.layout)
        if len(self.center_loss.code_weights) != head.layout.num_codes:
            raise ValueError(
                f"loss.code_weights must hold {head.layout.num_codes} numbers for velocity={head.layout.has_velocity}, "
                f"got {len(self.center_loss.code_weights)}"
            )

    def forward(self, points: PointCloudBatch) -> CenterPredictions:
        """Return heat maps and box codes."""
        features = self.backbone.encode(points)
        return self.head(self.neck(features.bev_map()))

    def loss(self, predictions: CenterPredictions, boxes: Boxes3D, keys: Sequence[str] = ()) -> LossTerms:
        """Assign targets and compare (see `Detector.loss`)."""
        return self.center_loss(predictions, self.assignment(predictions.layout, self.known(boxes, keys)))

    @torch.no_grad()
    def decode(self, predictions: CenterPredictions) -> Detections:
        """Return the boxes found, by falling score in each sweep, labels as in the dataset."""
        return self.outside(self.selection(decode_centers(predictions, self.selection.max_candidates)))


def build_centerpoint(
    backbone: DetectionBackbone,
    class_names: Sequence[str],
    *,
    neck: Callable[..., BEVNeck],
    tasks: Sequence[Sequence[str]],
    velocity: bool = False,
    shared_channels: int = 64,
    assignment: CenterAssignment | None = None,
    loss: CenterLoss | None = None,
    selection: CenterSelection | None = None,
) -> CenterPoint:
    """Size neck and head by the backbone and put the detector together.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        class_names: the dataset's classes.
        neck: `BEVNeck` or the like, still to be given `in_channels` and `in_shape`.
        tasks: classes to be found, in groups that share a head.
        velocity: whether boxes get a velocity, which their labels must know.
        shared_channels: see `CenterHead`.
        assignment: see `CenterAssignment`.
        loss: see `CenterLoss`.
        selection: see `CenterSelection`.
    """
    info = backbone.feature_info
    built = neck(in_channels=info.bev_channels, in_shape=info.bev_shape)
    head = CenterHead(
        built.out_channels,
        built.out_shape,
        backbone.grid,
        tasks,
        has_velocity=velocity,
        shared_channels=shared_channels,
    )
    return CenterPoint(
        backbone, built, head, class_names=class_names, assignment=assignment, loss=loss, selection=selection
    )
