"""PV-RCNN (Shi et al., CVPR 2020): SECOND, and a second stage on keypoints that gather voxel and point features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.decode import BoxSelection
from equilidar.detection.detector import DetectionBackbone
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.point_head import PointHead, PointLoss
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.pv_rcnn_head import KeypointRoIHead
from equilidar.detection.second_stage import SecondStage
from equilidar.detection.two_stage import TwoStageDetector
from equilidar.detection.voxel_set_abstraction import VoxelSetAbstraction
from equilidar.structures import Boxes3D, LossTerms, PointCloudBatch
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class PVRCNNPredictions(Movable):
    """What the first stage and the point head say, and what the second stage reads.

    Attributes:
        first: raw outputs for every anchor.
        keypoints: (K, 3) metres.
        keypoint_offsets: which of them belong to which sweep.
        keypoint_features: (K, D).
        keypoint_logits: (K,) before the sigmoid: whether they lie on objects.
    """

    first: AnchorPredictions
    keypoints: Float[Tensor, "K 3"]
    keypoint_offsets: Int64[Tensor, " B1"]
    keypoint_features: Float[Tensor, "K D"]
    keypoint_logits: Float[Tensor, " K"]


class PVRCNN(TwoStageDetector):
    """An anchor-based detector of two stages with keypoints between them.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        neck: dense network on its map.
        head: anchor head on the neck's map.
        pfe: keypoints and their features, of the backbone's map and stages ("point feature extractor").
        point_head: on the keypoints.
        roi_head: second stage, on the keypoints.
        class_names: the dataset's classes, which labels refer to.
        loss: of the first stage.
        point_loss: of the point head.
        second: proposals, their targets and loss.
        selection: which refined boxes are detections.

    Raises:
        ValueError: a class of the head is none of the dataset's, or there twice.
    """

    SELECTION: ClassVar[BoxSelection] = BoxSelection(0.1, 0.1)

    def __init__(
        self,
        backbone: DetectionBackbone,
        neck: BEVNeck,
        head: AnchorHead,
        pfe: VoxelSetAbstraction,
        point_head: PointHead,
        roi_head: KeypointRoIHead,
        *,
        class_names: Sequence[str],
        loss: AnchorLoss | None = None,
        point_loss: PointLoss | None = None,
        second: SecondStage | None = None,
        selection: BoxSelection | None = None,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            head,
            roi_head,
            class_names=class_names,
            loss=loss,
            second=second,
            selection=selection,
        )
        self.pfe, self.point_head = pfe, point_head
        self.point_loss = point_loss or PointLoss()

    def forward(self, points: PointCloudBatch) -> PVRCNNPredictions:
        """Return the first stage's raw outputs and the keypoints."""
        features = self.backbone.encode(points)
        bev = features.bev_map()
        first = self.head(self.neck(bev))
        keypoints = self.pfe(points, features, bev)
        logits = self.point_head(keypoints.gathered)
        return PVRCNNPredictions(first, keypoints.xyz, keypoints.offsets, keypoints.features, logits)

    def between(self, predictions: PVRCNNPredictions, known: Boxes3D) -> tuple[LossTerms, ...]:
        """Return the point head's loss."""
        logits, keypoints = predictions.keypoint_logits, predictions.keypoints
        return (self.point_loss(logits, keypoints, predictions.keypoint_offsets, known),)

    def refine(self, predictions: PVRCNNPredictions) -> Callable:
        """Return the second stage on the keypoints of this batch."""
        weighted = predictions.keypoint_features.float() * predictions.keypoint_logits.float().sigmoid()[:, None]
        return partial(self.roi_head, predictions.keypoints, predictions.keypoint_offsets, weighted)


def build_pv_rcnn(
    backbone: DetectionBackbone,
    class_names: Sequence[str],
    *,
    neck: Callable[..., BEVNeck],
    anchors: Sequence[AnchorClass],
    pfe: Callable[..., VoxelSetAbstraction],
    point_head: Callable[..., PointHead],
    roi_head: Callable[..., KeypointRoIHead],
    prior: float = 0.01,
    loss: AnchorLoss | None = None,
    point_loss: PointLoss | None = None,
    second: SecondStage | None = None,
    selection: BoxSelection | None = None,
) -> PVRCNN:
    """Size all parts by the backbone and put the detector together.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        class_names: the dataset's classes.
        neck: `BEVNeck` or the like, still to be given `in_channels` and `in_shape`.
        anchors: one entry for each class to be found.
        pfe: `VoxelSetAbstraction`, still to be given grid, feature info and the number of point channels.
        point_head: `PointHead`, still to be given its input channels.
        roi_head: `KeypointRoIHead`, still to be given its input channels.
        prior: see `AnchorHead`.
        loss: see `AnchorLoss`.
        point_loss: see `PointLoss`.
        second: see `SecondStage`.
        selection: see `BoxSelection`.
    """
    info = backbone.feature_info
    built = neck(in_channels=info.bev_channels, in_shape=info.bev_shape)
    head = AnchorHead(built.out_channels, built.out_shape, backbone.grid, anchors, prior=prior)
    extractor = pfe(backbone.grid, info, backbone.in_channels - 3)
    return PVRCNN(
        backbone,
        built,
        head,
        extractor,
        point_head(extractor.gathered_channels),
        roi_head(extractor.out_channels),
        class_names=class_names,
        loss=loss,
        point_loss=point_loss,
        second=second,
        selection=selection,
    )
