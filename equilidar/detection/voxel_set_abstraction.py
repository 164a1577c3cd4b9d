"""Voxel set abstraction of PV-RCNN (Shi et al., CVPR 2020, section 3.2): a sweep as a few keypoints with features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.detection.set_abstraction import Ball, SetAbstraction
from equilidar.nn.norm import BatchNorm1d
from equilidar.ops.interpolate import gather_weighted
from equilidar.ops.sampling import farthest_points
from equilidar.structures import BackboneFeatures, BEVMap, GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import rows_where
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class Keypoints(Movable):
    """Keypoints of B sweeps; a sweep without points has none.

    Attributes:
        xyz: (K, 3) metres.
        offsets: (B + 1,) int64.
        gathered: (K, C) features as they were pooled.
        features: (K, D) fused.
    """

    xyz: Float[Tensor, "K 3"]
    offsets: Int64[Tensor, " B1"]
    gathered: Float[Tensor, "K C"]
    features: Float[Tensor, "K D"]


class VoxelSetAbstraction(nn.Module):
    """Gives keypoints the features of the map, of the raw points and of voxels around them.

    Modules are named as in OpenPCDet's VoxelSetAbstraction, and features stand in its order: map, points, stages.

    Args:
        grid: the input grid.
        feature_info: sizes of the backbone's output.
        point_channels: of the raw points, without coordinates.
        raw_points: balls around a keypoint in which raw points are pooled.
        stages: the same for voxels of the backbone's stages, by name.
        num_keypoints: of each sweep.
        out_channels: of the fused features.

    Attributes:
        gathered_channels: of the features before they are fused.
        out_channels: of the fused features.

    Raises:
        ValueError: the backbone has no such stage.
    """

    def __init__(
        self,
        grid: GridSpec,
        feature_info: FeatureInfo,
        point_channels: int,
        *,
        raw_points: Sequence[Ball],
        stages: Mapping[str, Sequence[Ball]],
        num_keypoints: int = 2048,
        out_channels: int = 128,
    ) -> None:
        super().__init__()
        unknown = [name for name in stages if name not in feature_info.channels]
        if unknown:
            raise ValueError(
                f"voxel set abstraction: the backbone has no stage {', '.join(unknown)}; "
                f"it has {', '.join(feature_info.channels)}"
            )
        if num_keypoints < 1:
            raise ValueError(f"voxel set abstraction: num_keypoints must be at least 1, got {num_keypoints}")
        self.grid, self.num_keypoints, self.stages = grid, num_keypoints, tuple(stages)
        pools = [SetAbstraction(feature_info.channels[name], balls) for name, balls in stages.items()]
        self.SA_layers = nn.ModuleList(pools)
        self.SA_rawpoints = SetAbstraction(point_channels, raw_points)
        pooled = sum(pool.out_channels for pool in [self.SA_rawpoints, *pools])
        self.gathered_channels, self.out_channels = feature_info.bev_channels + pooled, out_channels
        self.vsa_point_feature_fusion = nn.Sequential(
            nn.Linear(self.gathered_channels, out_channels, bias=False), BatchNorm1d(out_channels), nn.ReLU()
        )

    def forward(self, points: PointCloudBatch, features: BackboneFeatures, bev: BEVMap) -> Keypoints:
        """Choose keypoints and gather features for them.

        Args:
            points: the sweeps.
            features: of the backbone, for the same sweeps.
            bev: its map.
        """
        points = _above_the_map(points, self.grid)
        xyz, offsets = choose_keypoints(points, self.num_keypoints)
        item = batch_offsets.to_batch_index(offsets, len(xyz))
        gathered = [
            bilinear_features(bev, xyz, item),
            self.SA_rawpoints(points.xyz, points.offsets, points.features, xyz, offsets),
        ]
        for name, pool in zip(self.stages, self.SA_layers, strict=True):
            voxels = features.stages[name]
            gathered.append(pool(voxels.centers(), _item_offsets(voxels), voxels.features, xyz, offsets))
        together = torch.cat(gathered, 1)
        return Keypoints(xyz, offsets, together, self.vsa_point_feature_fusion(together))


def choose_keypoints(points: PointCloudBatch, num: int) -> tuple[Float[Tensor, "K 3"], Int64[Tensor, " B1"]]:
    """Return `num` points of each sweep, each the farthest from those before, and whose they are.

    A sweep with fewer points gives all of them, over and over; one without points gives none.
    """
    rows = farthest_points(points.xyz, points.offsets, num)
    place = torch.arange(num, device=rows.device) % points.offsets.diff().clamp_min(1)[:, None]
    rows = rows.gather(1, place)
    known = rows >= 0
    kept = rows_where(known.flatten(), "number of keypoints: sweeps without points have none")
    return points.xyz[rows.flatten()[kept]], batch_offsets.from_lengths(known.sum(1))


def bilinear_features(bev: BEVMap, xyz: Float[Tensor, "K 3"], batch_index: Int64[Tensor, " K"]) -> Float[Tensor, "K C"]:
    """Read a map at points; differentiable by the map.

    As OpenPCDet reads it, on which its weights rely: cell i stands at its lower border, not at its center, and points
    in the last row or column of cells get zeros.
    """
    maps = bev.features.permute(0, 2, 3, 1)
    height, width = maps.shape[1:3]
    x = (xyz[:, 0] - bev.grid.low[0]) / bev.grid.voxel_size[0] / bev.stride[1]
    y = (xyz[:, 1] - bev.grid.low[1]) / bev.grid.voxel_size[1] / bev.stride[0]
    left, low = x.floor().long().clamp(0, width - 1), y.floor().long().clamp(0, height - 1)
    right, high = (left + 1).clamp_max(width - 1), (low + 1).clamp_max(height - 1)
    of_left, of_right = right - x, x - left
    of_low, of_high = high - y, y - low
    corners = ((low, left), (high, left), (low, right), (high, right))
    rows = torch.stack([(batch_index * height + row) * width + column for row, column in corners], 1)
    weights = torch.stack([of_left * of_low, of_left * of_high, of_right * of_low, of_right * of_high], 1)
    return gather_weighted(maps.flatten(0, 2), rows, weights.to(maps.dtype))


def _above_the_map(points: PointCloudBatch, grid: GridSpec) -> PointCloudBatch:
    """Leave out points beyond the grid's range in x and y, as OpenPCDet's mask_points_by_range; z may be any."""
    x, y, _ = points.xyz.unbind(1)
    inside = (x >= grid.low[0]) & (x <= grid.high[0]) & (y >= grid.low[1]) & (y <= grid.high[1])
    return points.select(inside & points.xyz.isfinite().all(1))


def _item_offsets(voxels: SparseVoxels) -> Int64[Tensor, " B1"]:
    """Return the offsets of voxels sorted by item, as a backbone gives them."""
    items = torch.arange(voxels.batch_size + 1, device=voxels.coords.device)
    return torch.searchsorted(voxels.batch_index.contiguous(), items)
