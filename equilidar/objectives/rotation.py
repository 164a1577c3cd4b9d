"""Rotation classification: features must tell how far the scene was turned."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.objectives.heads import classification_head
from equilidar.objectives.reduction import masked_mean
from equilidar.objectives.switches import one_of
from equilidar.structures import BackboneFeatures, LossTerms, PairFeatures, ViewPair


class RotationClassification(nn.Module):
    """Cross entropy over classes of the rotation about z (L_ce of E-SSL3D, Hegde et al., ECCV 2024).

    The range of angles is cut into equal classes. The drawn transform is R * S * F, so the angle is that of R whatever
    was mirrored before. A constant encoder gives the logarithm of the number of classes.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"a", "b"})

    def __init__(
        self,
        *,
        features: FeatureInfo,
        num_classes: int = 10,
        yaw: Sequence[float | int] = (-math.pi / 2, math.pi / 2),
        target: str = "absolute",
        level: str = "bev",
        hidden: Sequence[int] = (512, 512),
        weight: float = 1.0,
    ) -> None:
        """Build the classifier.

        Args:
            features: what the backbone gives.
            num_classes: number of classes.
            yaw: range from which the views' rotations are drawn, radians.
            target: "absolute": each view's own rotation, mean over both. "relative": from view a to view b.
            level: what is pooled (mean and maximum over occupied cells): "bev", or a stage by name.
            hidden: widths of the classifier's hidden layers.
            weight: factor in the total.

        Raises:
            ValueError: an unknown switch or stage, or an empty range.
        """
        super().__init__()
        low, high = (float(bound) for bound in yaw)
        if num_classes < 2 or not low < high:
            raise ValueError(f"rotation needs num_classes >= 2 and yaw low < high, got {num_classes}, [{low}, {high}]")
        self.num_classes, self.weight = num_classes, weight
        self.target = one_of("rotation.target", target, ("absolute", "relative"))
        self.level = one_of("rotation.level", level, (*features.channels, "bev"))
        # The relative rotation is the difference of the two, or their sum where one view alone is mirrored.
        self.yaw = (low, high) if target == "absolute" else _range_of_relative(low, high)
        channels = 2 * (features.bev_channels if level == "bev" else features.channels[level])
        pooled = channels if target == "absolute" else 2 * channels
        self.classifier = classification_head((pooled, *hidden, num_classes))

    def forward(self, pair: PairFeatures) -> LossTerms:
        """Return the term "cross_entropy" and the metric "accuracy"; views that show nothing are left out."""
        (pooled_a, shown_a), (pooled_b, shown_b) = self._pool(pair.a), self._pool(pair.b)
        if self.target == "absolute":
            inputs, shown = torch.cat([pooled_a, pooled_b]), torch.cat([shown_a, shown_b])
            angle = torch.cat([pair.views.a.draw.yaw, pair.views.b.draw.yaw])
        else:
            inputs, shown = torch.cat([pooled_a, pooled_b], 1), shown_a & shown_b
            angle = relative_yaw(pair.views)
        logits = self.classifier(inputs).float()
        classes = yaw_classes(angle, self.yaw, self.num_classes)
        losses = F.cross_entropy(logits, classes, reduction="none")
        accuracy = masked_mean((logits.argmax(1) == classes).float(), shown)
        term = masked_mean(losses, shown)
        return LossTerms({"cross_entropy": term}, {"cross_entropy": self.weight}, {"accuracy": accuracy})

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return nothing: there is no target network."""
        return []

    def embeddings(self, pair: PairFeatures) -> dict[str, Float[Tensor, "N D"]]:
        """Return nothing: a classifier cannot be satisfied by a collapsed encoder."""
        return {}

    def _pool(self, encoded: BackboneFeatures) -> tuple[Float[Tensor, "B C"], Bool[Tensor, " B"]]:
        if self.level == "bev":
            cells = encoded.bev_cells()
            return pool_rows(cells.features, cells.coords[:, 0], cells.batch_size)
        voxels = encoded.stages[self.level]
        return pool_rows(voxels.features, voxels.batch_index, voxels.batch_size)


def pool_rows(
    rows: Float[Tensor, "N C"], item: Int64[Tensor, " N"], num_items: int
) -> tuple[Float[Tensor, "B 2*C"], Bool[Tensor, " B"]]:
    """Return mean and maximum of each item's rows, side by side, and which items have any; zero where none."""
    rows = rows.float()
    count = torch.zeros(num_items, device=rows.device).index_add(0, item, torch.ones_like(rows[:, 0]))
    mean = rows.new_zeros(num_items, rows.shape[1]).index_add(0, item, rows) / count.clamp(min=1)[:, None]
    index = item[:, None].expand_as(rows)
    largest = torch.zeros_like(mean).scatter_reduce(0, index, rows, "amax", include_self=False)
    return torch.cat([mean, largest], 1), count > 0


def yaw_classes(yaw: Float[Tensor, " B"], bounds: tuple[float, float], num_classes: int) -> Int64[Tensor, " B"]:
    """Return which of equal classes of [low, high] each angle is in; angles beyond go to the outermost."""
    low, high = bounds
    return ((yaw - low) / (high - low) * num_classes).floor().long().clamp(0, num_classes - 1)


def relative_yaw(views: ViewPair) -> Float[Tensor, " B"]:
    """Return the angle of R in b_T_a = R * S * F, wrapped to [-pi, pi)."""
    # F mirrors y alone, so that the image of the x axis tells R.
    b_T_a = views.b.view_T_sweep @ views.a.view_T_sweep.inverse()
    return torch.atan2(b_T_a.linear[:, 1, 0], b_T_a.linear[:, 0, 0])


def _range_of_relative(low: float, high: float) -> tuple[float, float]:
    lowest, highest = min(low - high, 2 * low), max(high - low, 2 * high)
    return max(lowest, -math.pi), min(highest, math.pi)
