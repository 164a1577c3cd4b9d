"""Anchor head: class, box residual and direction of every anchor, from one map."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from equilidar.detection.anchors import AnchorClass, Anchors, anchors_per_cell, make_anchors
from equilidar.detection.direction import NUM_DIRECTIONS
from equilidar.detection.predictions import AnchorPredictions
from equilidar.structures import BEVMap
from equilidar.structures.grid import GridSpec


class AnchorHead(nn.Module):
    """Three 1x1 convolutions (OpenPCDet's AnchorHeadSingle).

    Args:
        in_channels: channels of the map.
        shape: (y, x) cells of the map.
        grid: the input grid, over which the anchors spread.
        classes: anchors of each class; their order is the class order of the outputs.
        prior: probability that an untrained head gives to each class (Lin et al. 2017, section 4.1).
    """

    anchor_boxes: Tensor

    def __init__(
        self,
        in_channels: int,
        shape: tuple[int, int],
        grid: GridSpec,
        classes: Sequence[AnchorClass],
        *,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        if not 0 < prior < 1:
            raise ValueError(f"anchor head: prior must lie between 0 and 1, got {prior}")
        self.classes = tuple(classes)
        self.shape = tuple(shape)
        num = anchors_per_cell(self.classes)
        self.conv_cls = nn.Conv2d(in_channels, num * len(self.classes), 1)
        self.conv_box = nn.Conv2d(in_channels, num * 7, 1)
        self.conv_dir_cls = nn.Conv2d(in_channels, num * NUM_DIRECTIONS, 1)
        bias = self.conv_cls.bias
        assert bias is not None
        nn.init.constant_(bias, -math.log((1 - prior) / prior))
        nn.init.normal_(self.conv_box.weight, std=0.001)
        # Follows from the arguments: no part of a checkpoint.
        self.register_buffer("anchor_boxes", make_anchors(self.classes, grid, shape).boxes, persistent=False)

    @property
    def anchors(self) -> Anchors:
        height, width = self.shape
        return Anchors(self.anchor_boxes, self.classes, (height, width))

    def forward(self, bev: BEVMap) -> AnchorPredictions:
        """Return the raw outputs in the anchors' flat order (y, x, class, yaw).

        Raises:
            ValueError: the map has another size than the head was built for.
        """
        x = bev.features
        if x.shape[2:] != self.shape:
            raise ValueError(f"anchor head: built for a map of {self.shape} (y, x) cells, got {tuple(x.shape[2:])}")
        return AnchorPredictions(
            _by_anchor(self.conv_cls(x), len(self.classes)),
            _by_anchor(self.conv_box(x), 7),
            _by_anchor(self.conv_dir_cls(x), NUM_DIRECTIONS),
            self.anchors,
        )


def _by_anchor(maps: Tensor, per_anchor: int) -> Tensor:
    """(B, P * C, H, W) -> (B, H * W * P, C)."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, per_anchor)
