"""Which keypoints lie on objects: PV-RCNN's keypoint weighting (Shi et al., CVPR 2020, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.detection.losses import sigmoid_focal_loss
from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.processes import shared_count
from equilidar.ops.points_in_boxes import points_in_boxes
from equilidar.structures import Boxes3D, LossTerms


class PointHead(nn.Module):
    """Says for each keypoint whether it lies on an object; modules are named as in OpenPCDet's PointHeadSimple.

    Args:
        in_channels: of the keypoints, before they are fused.
        channels: widths of the hidden layers.
    """

    def __init__(self, in_channels: int, *, channels: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in channels:
            layers += [nn.Linear(in_channels, width, bias=False), BatchNorm1d(width), nn.ReLU()]
            in_channels = width
        self.cls_layers = nn.Sequential(*layers, nn.Linear(in_channels, 1))

    def forward(self, features: Float[Tensor, "K C"]) -> Float[Tensor, " K"]:
        """Return the logits."""
        return self.cls_layers(features)[:, 0]


@dataclass(frozen=True)
class PointLoss:
    """Focal loss of the point head; defaults as OpenPCDet's cfgs/kitti_models/pv_rcnn.yaml.

    Divided by the number of keypoints on objects in the sweeps of a step, whichever process holds them.

    Attributes:
        weight: of the term (point_cls_weight).
        margin: metres by which boxes are longer, wider and higher in all where points are ignored (GT_EXTRA_WIDTH).
        alpha, gamma: of the focal loss.
    """

    weight: float = 1.0
    margin: float = 0.2
    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, logits: Float[Tensor, " K"], xyz: Float[Tensor, "K 3"], offsets: Int64[Tensor, " B1"], boxes: Boxes3D
    ) -> LossTerms:
        """Return the term, computed in float32 whatever the autocast state.

        Args:
            logits: of keypoints.
            xyz: their positions, metres.
            offsets: which of them belong to which sweep.
            boxes: of the same sweeps; those with a negative label are no objects.
        """
        labels = self.labels(xyz, offsets, boxes)
        with torch.autocast(logits.device.type, enabled=False):
            positive = (labels > 0).float()
            focal = sigmoid_focal_loss(logits.float(), positive, alpha=self.alpha, gamma=self.gamma)
            term = torch.where(labels >= 0, focal, 0.0).sum() / shared_count(positive.sum())
        num = positive.sum() / max(1, len(offsets) - 1)
        return LossTerms({"points": term}, {"points": self.weight}, {"positive_points": num})

    @torch.no_grad()
    def labels(self, xyz: Float[Tensor, "K 3"], offsets: Int64[Tensor, " B1"], boxes: Boxes3D) -> Int64[Tensor, " K"]:
        """Return 1 for points in a box, 0 for those in no box, -1 for those only in the margin of one."""
        known = boxes.select(boxes.label >= 0)
        inside, _ = points_in_boxes(xyz, offsets, known.as_tensor(), known.offsets)
        larger = replace(known, size=known.size + self.margin)
        near, _ = points_in_boxes(xyz, offsets, larger.as_tensor(), larger.offsets)
        return torch.where(inside >= 0, 1, torch.where(near >= 0, -1, 0))
