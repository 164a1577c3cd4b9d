"""What a backbone says of itself, so that heads and files can follow from it."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from equilidar.structures import BackboneFeatures, GridSpec, PointCloudBatch
from equilidar.structures.grid import IntTriple


@dataclass(frozen=True)
class FeatureInfo:
    """Sizes of a backbone's output.

    Attributes:
        channels: feature columns by stage name, in order.
        strides: (z, y, x) relative to the input grid, by stage name.
        bev_channels: channels of the bird's-eye-view map: those of the last stage times its z levels.
        bev_shape: its (y, x) cells.
        bev_stride: its (y, x) stride.
    """

    channels: dict[str, int]
    strides: dict[str, IntTriple]
    bev_channels: int
    bev_shape: tuple[int, int]
    bev_stride: tuple[int, int]


@runtime_checkable
class Backbone(Protocol):
    """What objectives, detectors and the hand-off rely on (an `nn.Module` besides).

    Attributes:
        grid: the input grid.
        in_channels: input columns: 3 coordinates and the point features.
        feature_info: sizes of the output.
        arguments: constructor arguments without which the weights mean something else, as plain numbers and lists.
    """

    grid: GridSpec
    in_channels: int
    feature_info: FeatureInfo
    arguments: dict[str, Any]

    def encode(self, points: PointCloudBatch) -> BackboneFeatures:
        """Voxelize and encode."""
        ...
