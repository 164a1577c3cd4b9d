"""SECOND (Yan et al. 2018): sparse backbone, dense neck, anchor head."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.decode import BoxSelection, decode_predictions
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.targets import assign_targets
from equilidar.structures import BackboneFeatures, Boxes3D, Detections, LossTerms, PointCloudBatch
from equilidar.structures.grid import GridSpec
from equilidar.structures.host_sync import allowed_sync


@runtime_checkable
class DetectionBackbone(Protocol):
    """What a detector needs of a backbone, which is a `torch.nn.Module` besides."""

    grid: GridSpec
    feature_info: FeatureInfo

    def encode(self, points: PointCloudBatch) -> BackboneFeatures:
        """Voxelize and encode."""
        ...


class SECOND(nn.Module):
    """An anchor-based detector of one stage.

    Labels outside are indices into the dataset's class names, inside into `classes`; boxes of classes that the
    detector does not know are ignored in training.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        neck: dense network on its map.
        head: anchor head on the neck's map.
        class_names: the dataset's classes, which labels refer to.
        loss: loss on predictions and targets.
        selection: score threshold and suppression.

    Attributes:
        classes: the classes that can be found, in the order of the head's outputs.

    Raises:
        ValueError: a class of the head is none of the dataset's, or there twice.
    """

    label_of_class: Tensor
    class_of_label: Tensor

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
        super().__init__()
        self.class_names = tuple(class_names)
        self.classes = tuple(anchor.name for anchor in head.classes)
        unknown = [name for name in self.classes if name not in class_names]
        if unknown:
            raise ValueError(
                f"detector: the dataset has no class {', '.join(unknown)}; it has {', '.join(class_names)}. "
                "Name the detector's anchors after the dataset's classes"
            )
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.anchor_loss = loss or AnchorLoss()
        self.selection = selection or BoxSelection()
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"detector: two of its anchor classes have one name: {', '.join(self.classes)}")
        label_of_class = torch.tensor([list(class_names).index(name) for name in self.classes])
        class_of_label = torch.full((len(class_names),), -1)
        class_of_label[label_of_class] = torch.arange(len(self.classes))
        self.register_buffer("label_of_class", label_of_class, persistent=False)
        self.register_buffer("class_of_label", class_of_label, persistent=False)

    def forward(self, points: PointCloudBatch) -> AnchorPredictions:
        """Return the raw outputs for every anchor."""
        features = self.backbone.encode(points)
        return self.head(self.neck(features.bev_map()))

    def loss(self, predictions: AnchorPredictions, boxes: Boxes3D, keys: Sequence[str] = ()) -> LossTerms:
        """Assign targets and compare.

        Args:
            predictions: of `forward`.
            boxes: of the same sweeps, labels as in the dataset; a sweep may have none.
            keys: names of the sweeps, for error messages.

        Raises:
            ValueError: a box has a NaN, an infinity or a size that is not positive.
        """
        _check_boxes(boxes, keys)
        known = dataclasses.replace(boxes, label=self._to_class(boxes.label))
        return self.anchor_loss(predictions, assign_targets(predictions.anchors, known))

    @torch.no_grad()
    def decode(self, predictions: AnchorPredictions) -> Detections:
        """Return the boxes found, by falling score in each sweep, labels as in the dataset."""
        found = self.selection(decode_predictions(predictions))
        boxes = dataclasses.replace(found.boxes, label=self.label_of_class[found.boxes.label])
        return Detections(boxes, found.scores)

    def _to_class(self, label: Int64[Tensor, " M"]) -> Int64[Tensor, " M"]:
        known = (label >= 0) & (label < len(self.class_of_label))
        return torch.where(known, self.class_of_label[torch.where(known, label, 0)], -1)


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


def _check_boxes(boxes: Boxes3D, keys: Sequence[str]) -> None:
    rows = boxes.as_tensor()
    usable = torch.isfinite(rows).all(1) & (boxes.size > 0).all(1)
    with allowed_sync("a broken label must stop here, not as a loss that is not finite later"):
        if bool(usable.all()):
            return
    row = int((~usable).nonzero()[0, 0])
    item = int(boxes.batch_index[row])
    name = f"sweep {keys[item]}" if item < len(keys) else f"sweep {item} of the batch"
    raise ValueError(
        f"boxes: {name} has a box with non-finite values or a size that is not positive: "
        f"{[round(value, 3) for value in rows[row].tolist()]} (x, y, z, length, width, height, yaw); mend its labels"
    )
