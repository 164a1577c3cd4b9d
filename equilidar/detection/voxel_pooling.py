"""Voxel pooling of Voxel R-CNN (Deng et al., AAAI 2021, section 3.3): a PointNet over the voxels near a point.

For a point c and its neighbouring voxels v with features f and centers x (equation 2, with the position's part split
off as in section 3.4):

    max over v of relu(A f + a + norm(W (x - c))), then one more layer

Positions pass through a linear layer and a normalisation whose statistics follow from mean and covariance of the
offsets x - c alone. So the sum inside is one feature for each voxel plus one for each point, and the (points,
neighbours, channels) that OpenPCDet's NeighborVoxelSAModuleMSG holds need never exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.detection.set_abstraction import neighbor_offsets
from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.pointwise import PointwiseConv1d, PointwiseConv2d
from equilidar.nn.processes import all_processes_sum
from equilidar.ops.grouping import voxel_query
from equilidar.ops.roi_pooling import neighbor_max
from equilidar.structures import SparseVoxels


@dataclass(frozen=True)
class VoxelNeighbors:
    """Which voxels are pooled, and how wide the layers are.

    Attributes:
        max_range: cells that are looked at to either side, (z, y, x).
        radius: metres from the point to the voxel's center.
        num: how many voxels at most.
        channels: (inside, outside) widths.
    """

    max_range: Sequence[int]
    radius: float
    num: int
    channels: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_range", tuple(self.max_range))
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.max_range) != 3 or len(self.channels) != 2 or min(self.channels) < 1:
            raise ValueError(
                "voxel neighbors: max_range must be 3 numbers of cells (z, y, x) and channels 2 widths, got "
                f"{list(self.max_range)} and {list(self.channels)}"
            )


class VoxelPooling(nn.Module):
    """Pools the voxels of one stage at several scales; modules are named as in OpenPCDet's NeighborVoxelSAModuleMSG.

    Args:
        in_channels: of the voxels.
        scales: one entry for each scale.

    Attributes:
        out_channels: of the pooled features.
    """

    def __init__(self, in_channels: int, scales: Sequence[VoxelNeighbors]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.mlps_in, self.mlps_pos, self.mlps_out = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for scale in self.scales:
            inside, outside = scale.channels
            self.mlps_in.append(nn.Sequential(PointwiseConv1d(in_channels, inside), BatchNorm1d(inside)))
            self.mlps_pos.append(nn.Sequential(PointwiseConv2d(3, inside), BatchNorm1d(inside)))
            self.mlps_out.append(nn.Sequential(PointwiseConv1d(inside, outside), BatchNorm1d(outside), nn.ReLU()))
        self.out_channels = sum(scale.channels[1] for scale in self.scales)
        for module in self.modules():
            if isinstance(module, PointwiseConv1d | PointwiseConv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self, voxels: SparseVoxels, points: Float[Tensor, "M 3"], batch_index: Int64[Tensor, " M"]
    ) -> Float[Tensor, "M C"]:
        """Return features at points.

        Args:
            voxels: of B sweeps.
            points: metres, in the frame of the grid.
            batch_index: sweep of each point.
        """
        xyz = voxels.centers()
        pooled = []
        for scale, before, position, after in zip(self.scales, self.mlps_in, self.mlps_pos, self.mlps_out, strict=True):
            z, y, x = scale.max_range
            rows = voxel_query(voxels, points, batch_index, (z, y, x), scale.radius, scale.num)
            conv, norm = cast(nn.Sequential, position)
            weight, shift = _affine_of_offsets(
                cast(PointwiseConv2d, conv).matrix,
                cast(BatchNorm1d, norm),
                neighbor_offsets(xyz, rows, points).flatten(0, 1),
            )
            # From the middle of the points: coordinates of 70 m would cost digits that offsets of centimetres need.
            origin = points.mean(0)
            of_voxel = before(voxels.features) + (xyz - origin) @ weight.T
            of_point = shift - (points - origin) @ weight.T
            best = neighbor_max(of_voxel, rows) + of_point
            # Without a neighbour OpenPCDet pools features of zero at an offset of zero.
            pooled.append(after(torch.where(rows[:, :1] >= 0, best, shift).relu()))
        return torch.cat(pooled, 1)


def _affine_of_offsets(
    matrix: Float[Tensor, "C 3"], norm: BatchNorm1d, offsets: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "C 3"], Float[Tensor, " C"]]:
    """Return (V, t) with norm(W d) = V d + t for the offsets d; in training, move the running statistics.

    For the outputs W d of a linear layer, mean = W mean(d) and variance = diag(W cov(d) W^T).
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    if norm.training:
        count, center, covariance = _moments(offsets)
        mean, variance = matrix @ center, ((matrix @ covariance) * matrix).sum(1)
        with torch.no_grad():
            norm.num_batches_tracked += 1
            factor = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            norm.running_mean += factor * (mean - norm.running_mean)
            norm.running_var += factor * (variance * count / (count - 1).clamp_min(1) - norm.running_var)
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return matrix * scale[:, None], norm.bias - mean * scale


@torch.no_grad()
def _moments(offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, mean (3,) and biased covariance (3, 3) of the offsets of all processes.

    Offsets are shorter than the radius, so sums of squares in float64 lose nothing.
    """
    exact = offsets.double()
    sums = torch.cat([exact.new_full((1,), len(exact)), exact.sum(0), (exact.T @ exact).flatten()])
    sums = all_processes_sum(sums)
    count = sums[0].clamp_min(1)
    mean = sums[1:4] / count
    covariance = sums[4:].view(3, 3) / count - mean[:, None] * mean
    return count.float(), mean.to(offsets.dtype), covariance.to(offsets.dtype)
