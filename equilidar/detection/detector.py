"""What every detector is: a backbone, classes, and the way from points to losses or boxes."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.structures import BackboneFeatures, Boxes3D, Detections, LabelledBatch, LossTerms, PointCloudBatch
from equilidar.structures.grid import GridSpec
from equilidar.structures.host_sync import allowed_sync


@runtime_checkable
class DetectionBackbone(Protocol):
    """What a detector needs of a backbone, which is a `torch.nn.Module` besides."""

    grid: GridSpec
    in_channels: int
    feature_info: FeatureInfo

    def encode(self, points: PointCloudBatch) -> BackboneFeatures:
        """Voxelize and encode."""
        ...


class Detector(nn.Module, ABC):
    """Points in, predictions out; these become losses or detections.

    Labels outside are indices into the dataset's class names, inside into `classes`; boxes of classes that the
    detector does not know are ignored in training. A detector of two stages refines in `loss` and `decode`: what it
    needs there travels in its predictions.

    Args:
        backbone: any backbone (see `DetectionBackbone`).
        classes: the classes that can be found, in the order of the outputs.
        class_names: the dataset's classes, which labels refer to.

    Attributes:
        classes: the classes that can be found.
        class_names: the dataset's.

    Raises:
        ValueError: a class is none of the dataset's, or there twice.
    """

    label_of_class: Tensor
    class_of_label: Tensor

    def __init__(self, backbone: DetectionBackbone, classes: Sequence[str], class_names: Sequence[str]) -> None:
        super().__init__()
        self.classes, self.class_names = tuple(classes), tuple(class_names)
        unknown = [name for name in self.classes if name not in class_names]
        if unknown:
            raise ValueError(
                f"detector: the dataset has no class {', '.join(unknown)}; it has {', '.join(class_names)}. "
                "Name the detector's classes after the dataset's"
            )
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"detector: two of its classes have one name: {', '.join(self.classes)}")
        self.backbone = backbone
        label_of_class = torch.tensor([self.class_names.index(name) for name in self.classes])
        class_of_label = torch.full((len(self.class_names),), -1)
        class_of_label[label_of_class] = torch.arange(len(self.classes))
        self.register_buffer("label_of_class", label_of_class, persistent=False)
        self.register_buffer("class_of_label", class_of_label, persistent=False)

    @abstractmethod
    def forward(self, points: PointCloudBatch) -> Any:
        """Return the raw outputs."""

    @abstractmethod
    def loss(self, predictions: Any, boxes: Boxes3D, keys: Sequence[str] = ()) -> LossTerms:
        """Assign targets and compare.

        Args:
            predictions: of `forward`.
            boxes: of the same sweeps, labels as in the dataset; a sweep may have none.
            keys: names of the sweeps, for error messages.

        Raises:
            ValueError: a box has a NaN, an infinity or a size that is not positive.
        """

    def batch_loss(self, predictions: Any, batch: LabelledBatch) -> LossTerms:
        """Return the loss of a labelled batch; a detector that draws at random does so by the batch's seeds."""
        return self.loss(predictions, batch.boxes, batch.keys)

    @abstractmethod
    def decode(self, predictions: Any) -> Detections:
        """Return the boxes found, by falling score in each sweep, labels as in the dataset; no gradient.

        Outputs that are not finite give no boxes; `Detections.finite` says where there were any.
        """

    def known(self, boxes: Boxes3D, keys: Sequence[str] = ()) -> Boxes3D:
        """Return checked boxes with labels into `classes`, -1 where the detector does not know the class.

        Raises:
            ValueError: a box has a NaN, an infinity or a size that is not positive.
        """
        check_boxes(boxes, keys)
        label = boxes.label
        inside = (label >= 0) & (label < len(self.class_of_label))
        return dataclasses.replace(
            boxes, label=torch.where(inside, self.class_of_label[torch.where(inside, label, 0)], -1)
        )

    def outside(self, found: Detections) -> Detections:
        """Return detections of `classes` with labels as in the dataset."""
        boxes = dataclasses.replace(found.boxes, label=self.label_of_class[found.boxes.label])
        return dataclasses.replace(found, boxes=boxes)


def check_boxes(boxes: Boxes3D, keys: Sequence[str]) -> None:
    """Raise ValueError, naming the sweep, unless every box is finite and of positive size."""
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
