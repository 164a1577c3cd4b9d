"""Second stage of Voxel R-CNN (Deng et al., AAAI 2021): voxel features at a grid of points in each proposal."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equilidar.detection.roi_loss import RoIPredictions
from equilidar.detection.voxel_pooling import VoxelNeighbors, VoxelPooling
from equilidar.nn.norm import BatchNorm1d
from equilidar.ops.roi_pooling import roi_grid_points
from equilidar.structures import BackboneFeatures


class VoxelRoIHead(nn.Module):
    """Refines proposals of any class; modules are named as in OpenPCDet's VoxelRCNNHead.

    Args:
        stage_channels: channels of the backbone's stages by name (`FeatureInfo.channels`).
        stages: which stages are pooled, and at which scales.
        grid_size: points along each axis of a proposal.
        shared: widths of the layers that both branches share.
        classification, regression: widths of the layers of each branch.
        dropout: behind every hidden layer of a stack but its last.

    Raises:
        ValueError: the backbone has no such stage.
    """

    def __init__(
        self,
        stage_channels: Mapping[str, int],
        *,
        stages: Mapping[str, Sequence[VoxelNeighbors]],
        grid_size: int = 6,
        shared: Sequence[int] = (256, 256),
        classification: Sequence[int] = (256, 256),
        regression: Sequence[int] = (256, 256),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        unknown = [name for name in stages if name not in stage_channels]
        if unknown or not stages:
            raise ValueError(
                f"voxel roi head: stages must be of the backbone's, {', '.join(stage_channels)}; "
                f"got {', '.join(unknown) or 'none'}"
            )
        self.stages, self.grid_size = tuple(stages), grid_size
        pools = [VoxelPooling(stage_channels[name], scales) for name, scales in stages.items()]
        self.roi_grid_pool_layers = nn.ModuleList(pools)
        pooled = grid_size**3 * sum(pool.out_channels for pool in pools)
        self.shared_fc_layer = _stack(pooled, shared, dropout)
        self.cls_fc_layers = _stack(shared[-1], classification, dropout)
        self.cls_pred_layer = nn.Linear(classification[-1], 1)
        self.reg_fc_layers = _stack(shared[-1], regression, dropout)
        self.reg_pred_layer = nn.Linear(regression[-1], 7)
        for layer, std in ((self.cls_pred_layer, 0.01), (self.reg_pred_layer, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: BackboneFeatures, rois: Float[Tensor, "B R 7"]) -> RoIPredictions:
        """Return a score and residuals for each proposal."""
        batch, num = rois.shape[:2]
        points = roi_grid_points(rois.flatten(0, 1), self.grid_size).flatten(0, 1)
        item = torch.arange(batch, device=rois.device).repeat_interleave(num * self.grid_size**3)
        pooled = [
            pool(features.stages[name], points, item)
            for name, pool in zip(self.stages, self.roi_grid_pool_layers, strict=True)
        ]
        # A proposal's grid points one after the other, each with all of its channels.
        hidden = self.shared_fc_layer(torch.cat(pooled, 1).view(batch * num, -1))
        logits = self.cls_pred_layer(self.cls_fc_layers(hidden))
        deltas = self.reg_pred_layer(self.reg_fc_layers(hidden))
        return RoIPredictions(logits.view(batch, num), deltas.view(batch, num, 7))


def _stack(in_channels: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        linear = nn.Linear(in_channels, width, bias=False)
        nn.init.xavier_normal_(linear.weight)
        layers += [linear, BatchNorm1d(width), nn.ReLU()]
        if index < len(widths) - 1 and dropout > 0:
            layers.append(nn.Dropout(dropout))
        in_channels = width
    return nn.Sequential(*layers)
