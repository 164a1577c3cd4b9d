"""PillarEncoder: the pillars of PointPillars (Lang et al., CVPR 2019) as OpenPCDet has them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.nn.norm import BatchNorm1d
from equilidar.ops.voxelize import HardVoxels, voxelize_hard
from equilidar.structures import BackboneFeatures, GridSpec, PointCloudBatch, SparseVoxels

_STAGE = "pillars"


class PFNLayer(nn.Module):
    """Linear layer, batch normalisation, ReLU and the maximum over each pillar's slots.

    All layers but the last give every slot its own features beside the pillar's maximum, half of `out_channels` each.
    """

    def __init__(self, in_channels: int, out_channels: int, last: bool, norm_eps: float, norm_momentum: float) -> None:
        super().__init__()
        self.last = last
        width = out_channels if last else out_channels // 2
        self.linear = nn.Linear(in_channels, width, bias=False)
        self.norm = BatchNorm1d(width, eps=norm_eps, momentum=norm_momentum)

    def forward(self, slots: Tensor) -> Tensor:
        """(V, P, in_channels) -> (V, out_channels), or (V, P, out_channels) before the last layer."""
        linear = self.linear(slots)
        # Unused slots are zero before the bias of the normalisation: they count in its statistics and in the maximum.
        own = torch.relu(self.norm(linear.flatten(0, 1)).view_as(linear))
        largest = own.max(1).values
        return largest if self.last else torch.cat([own, largest[:, None].expand_as(own)], 2)


class PillarVFE(nn.Module):
    """Features of pillars from those of their points: point, offset to the points' mean, offset to the cell's center.

    Args:
        in_channels: 3 coordinates and the point features.
        channels: width of each layer.
        norm_eps: epsilon of batch normalisation.
        norm_momentum: momentum of batch normalisation.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], norm_eps: float, norm_momentum: float) -> None:
        super().__init__()
        widths = [in_channels + 6, *channels]
        self.pfn_layers = nn.ModuleList(
            PFNLayer(inside, outside, i == len(channels) - 1, norm_eps, norm_momentum)
            for i, (inside, outside) in enumerate(zip(widths, channels, strict=False))
        )

    def forward(self, voxels: HardVoxels) -> Tensor:
        """Return (V, channels[-1]), one row for each pillar."""
        points, xyz = voxels.points, voxels.points[..., :3]
        count = voxels.num_points[:, None, None]
        mean = xyz.sum(1, keepdim=True) / count
        center = voxels.grid.centers(voxels.coords[:, 1:])[:, None]
        used = torch.arange(points.shape[1], device=points.device)[None, :, None] < count
        features = torch.where(used, torch.cat([points, xyz - mean, xyz - center], 2), 0.0)
        for layer in self.pfn_layers:
            features = layer(features)
        return features


class PillarEncoder(nn.Module):
    """One learned feature for each occupied column of the grid, at stride 1.

    Points are collected by OpenPCDet's voxel generator (`voxelize_hard`), so that which points and pillars are kept
    beyond the limits follows from the order of the points. `vfe` is named inside as in OpenPCDet (commit 8cacccec,
    `pillar_vfe.py`), so that its weights load key by key. The one stage of the result is "pillars", with one z level:
    its map is OpenPCDet's PointPillarScatter.
    """

    def __init__(
        self,
        grid: GridSpec,
        in_channels: int,
        width: float = 1.0,
        channels: Sequence[int] = (64,),
        max_points: int = 32,
        max_pillars_train: int = 16_000,
        max_pillars: int = 40_000,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.01,
    ) -> None:
        """Build the layers; defaults as OpenPCDet's cfgs/kitti_models/pointpillar.yaml.

        Args:
            grid: input range and voxel size; one voxel along z.
            in_channels: 3 coordinates and the point features.
            width: factor on all channels, for small machines.
            channels: of each layer on points; all but the last, times width, must be even.
            max_points: points that a pillar keeps.
            max_pillars_train: pillars that a sweep keeps in training mode.
            max_pillars: pillars that a sweep keeps in eval mode.
            norm_eps: epsilon of batch normalisation.
            norm_momentum: momentum of batch normalisation.

        Raises:
            ValueError: the grid has several voxels along z, or a size is not positive.
        """
        super().__init__()
        levels, *map_shape = grid.shape
        if levels != 1:
            raise ValueError(
                f"grid does not fit PillarEncoder: z holds {levels} voxels of {grid.voxel_size[2]:g} m, not one: make "
                f"voxel_size {grid.high[2] - grid.low[2]:g} m along z, the whole range"
            )
        widths = [round(width * count) for count in channels]
        if not widths or min(widths) < 1 or any(count % 2 for count in widths[:-1]) or in_channels < 3:
            raise ValueError(
                f"PillarEncoder: channels times width must be positive, all but the last even, got {widths}; "
                f"in_channels must be at least 3 (x, y, z), got {in_channels}"
            )
        if min(max_points, max_pillars_train, max_pillars) < 1:
            raise ValueError(
                "PillarEncoder: max_points, max_pillars_train and max_pillars must be at least 1, got "
                f"{max_points}, {max_pillars_train} and {max_pillars}"
            )
        self.grid, self.in_channels = grid, in_channels
        self.max_points, self.max_pillars_train, self.max_pillars = max_points, max_pillars_train, max_pillars
        # Unused slots take part in the maximum, so that the weights hang on how many slots there are.
        self.arguments = {"channels": widths, "max_points": max_points, "norm_eps": norm_eps}
        self.feature_info = FeatureInfo(
            {_STAGE: widths[-1]}, {_STAGE: (1, 1, 1)}, widths[-1], (map_shape[0], map_shape[1]), (1, 1)
        )
        self.vfe = PillarVFE(in_channels, widths, norm_eps, norm_momentum)

    def encode(self, points: PointCloudBatch) -> BackboneFeatures:
        """Collect points in pillars, then encode."""
        return self(self.pillars(points))

    def pillars(self, points: PointCloudBatch) -> HardVoxels:
        """Collect points in pillars, sorted by [batch, z, y, x]."""
        most = self.max_pillars_train if self.training else self.max_pillars
        return voxelize_hard(points, self.grid, self.max_points, most).sorted()

    def forward(self, voxels: HardVoxels) -> BackboneFeatures:
        """Encode pillars of this backbone's grid."""
        if voxels.grid != self.grid:
            raise ValueError(f"voxels of {voxels.grid} given to a backbone for {self.grid}")
        if voxels.points.shape[2] != self.in_channels:
            raise ValueError(
                f"points have {voxels.points.shape[2]} columns, the backbone takes in_channels={self.in_channels} "
                "(x, y, z and the point features)"
            )
        features = self.vfe(voxels)
        pillars = SparseVoxels(voxels.coords, features, self.grid, self.grid.shape, (1, 1, 1), voxels.batch_size)
        return BackboneFeatures({_STAGE: pillars})
