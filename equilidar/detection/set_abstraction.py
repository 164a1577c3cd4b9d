"""Set abstraction (Qi et al., PointNet++, NeurIPS 2017, section 3.2): a PointNet over the points in a ball."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.pointwise import PointwiseConv2d
from equilidar.ops.grouping import ball_query, group


@dataclass(frozen=True)
class Ball:
    """Which points are pooled, and how wide the layers are.

    Attributes:
        radius: metres.
        num: how many points at most.
        channels: width of each layer.
    """

    radius: float
    num: int
    channels: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"ball: channels must be widths of at least one layer, got {list(self.channels)}")


class SetAbstraction(nn.Module):
    """Pools points with features at several scales; modules are named as in OpenPCDet's StackSAModuleMSG.

    Args:
        in_channels: of the points; their offsets from the center come in front of them.
        balls: one entry for each scale.

    Attributes:
        out_channels: of the pooled features.
    """

    def __init__(self, in_channels: int, balls: Sequence[Ball]) -> None:
        super().__init__()
        self.balls = tuple(balls)
        self.mlps = nn.ModuleList()
        for ball in self.balls:
            widths = (in_channels + 3, *ball.channels)
            layers: list[nn.Module] = []
            for inside, outside in itertools.pairwise(widths):
                layers += [PointwiseConv2d(inside, outside), BatchNorm1d(outside), nn.ReLU()]
            self.mlps.append(nn.Sequential(*layers))
        self.out_channels = sum(ball.channels[-1] for ball in self.balls)
        for module in self.modules():
            if isinstance(module, PointwiseConv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self,
        xyz: Float[Tensor, "N 3"],
        offsets: Int64[Tensor, " B1"],
        features: Float[Tensor, "N C"],
        centers: Float[Tensor, "M 3"],
        center_offsets: Int64[Tensor, " B1"],
    ) -> Float[Tensor, "M D"]:
        """Return features at centers; without a point in its ball, those of a point of zeros.

        Args:
            xyz: points, metres.
            offsets: which of them belong to which sweep.
            features: of the points.
            centers: where to pool.
            center_offsets: of the same sweeps.
        """
        pooled = []
        for ball, mlp in zip(self.balls, self.mlps, strict=True):
            rows = ball_query(xyz, offsets, centers, center_offsets, ball.radius, ball.num)
            first, *others = cast(nn.Sequential, mlp)
            of_offset, of_features = cast(PointwiseConv2d, first).matrix.tensor_split([3], 1)
            # The first layer is linear: applied once to each point, not to each neighbour of each center.
            hidden = group(features @ of_features.T, rows) + neighbor_offsets(xyz, rows, centers) @ of_offset.T
            hidden = hidden.flatten(0, 1)
            for layer in others:
                hidden = layer(hidden)
            pooled.append(hidden.view(*rows.shape, hidden.shape[1]).max(1).values)
        return torch.cat(pooled, 1)


def neighbor_offsets(
    xyz: Float[Tensor, "N 3"], rows: Int64[Tensor, "M K"], centers: Float[Tensor, "M 3"]
) -> Float[Tensor, "M K 3"]:
    """Return where neighbours, rows of `xyz` or -1, are, seen from their centers; zero where there is none."""
    if len(xyz) == 0:
        return centers.new_zeros(*rows.shape, 3)
    return torch.where((rows >= 0)[..., None], xyz[rows.clamp_min(0)] - centers[:, None], 0.0)
