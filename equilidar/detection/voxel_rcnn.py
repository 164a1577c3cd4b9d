"""Voxel R-CNN (Deng et al., AAAI 2021): SECOND, and a second stage on the voxel features inside its boxes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.decode import BoxSelection
from equilidar.detection.detector import DetectionBackbone
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.second_stage import SecondStage
from equilidar.detection.two_stage import TwoStageDetector
from equilidar.detection.voxel_rcnn_head import VoxelRoIHead
from equilidar.structures import BackboneFeatures, PointCloudBatch
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class VoxelRCNNPredictions(Movable):
    """What the first stage says, and what the second one reads.

    Attributes:
        first: raw outputs for every anchor.
        features: of the backbone.
    """

    first: AnchorPredictions
    features: BackboneFeatures


class VoxelRCNN(TwoStageDetector):
    """An anchor-based detector of two stages, the second on a `VoxelRoIHead`; see `TwoStageDetector`.

    The backbone must have the stages that the RoI head reads.
    """

    SELECTION: ClassVar[BoxSelection] = BoxSelection(0.3, 0.1)

    def forward(self, points: PointCloudBatch) -> VoxelRCNNPredictions:
        """Return the first stage's raw outputs and the backbone's features."""
        features = self.backbone.encode(points)
        return VoxelRCNNPredictions(self.head(self.neck(features.bev_map())), features)

    def refine(self, predictions: VoxelRCNNPredictions) -> Callable:
        """Return the second stage on the voxels of this batch."""
        assert isinstance(self.roi_head, VoxelRoIHead)
        stages = {name: predictions.features.stages[name] for name in self.roi_head.stages}
        widened = {name: voxels.with_features(voxels.features.float()) for name, voxels in stages.items()}
        return partial(self.roi_head, BackboneFeatures(widened))


def build_voxel_rcnn(
    backbone: DetectionBackbone,
    class_names: Sequence[str],
    *,
    neck: Callable[..., BEVNeck],
    anchors: Sequence[AnchorClass],
    roi_head: Callable[..., VoxelRoIHead],
    prior: float = 0.01,
    loss: AnchorLoss | None = None,
    second: SecondStage | None = None,
    selection: BoxSelection | None = None,
) -> VoxelRCNN:
    """Size all parts by the backbone and put the detector together.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        class_names: the dataset's classes.
        neck: `BEVNeck` or the like, still to be given `in_channels` and `in_shape`.
        anchors: one entry for each class to be found.
        roi_head: `VoxelRoIHead` or the like, still to be given the channels of the backbone's stages.
        prior: see `AnchorHead`.
        loss: see `AnchorLoss`.
        second: see `SecondStage`.
        selection: see `BoxSelection`.
    """
    info = backbone.feature_info
    built = neck(in_channels=info.bev_channels, in_shape=info.bev_shape)
    head = AnchorHead(built.out_channels, built.out_shape, backbone.grid, anchors, prior=prior)
    return VoxelRCNN(
        backbone,
        built,
        head,
        roi_head(info.channels),
        class_names=class_names,
        loss=loss,
        second=second,
        selection=selection,
    )
