"""Second stage of PV-RCNN (Shi et al., CVPR 2020, section 3.3): keypoint features on a grid in each proposal."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.detection.roi_loss import RoIPredictions
from equilidar.detection.set_abstraction import Ball, SetAbstraction
from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.pointwise import PointwiseConv1d, PointwiseConv2d
from equilidar.ops.roi_pooling import roi_grid_points


class KeypointRoIHead(nn.Module):
    """Refines proposals of any class; modules are named as in OpenPCDet's PVRCNNHead.

    Args:
        in_channels: of the keypoints.
        balls: around a grid point in which keypoints are pooled.
        grid_size: points along each axis of a proposal.
        shared: widths of the layers that both branches share.
        classification, regression: widths of the hidden layers of each branch.
        dropout: behind every shared layer but the last, and behind the first layer of each branch.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        balls: Sequence[Ball],
        grid_size: int = 6,
        shared: Sequence[int] = (256, 256),
        classification: Sequence[int] = (256, 256),
        regression: Sequence[int] = (256, 256),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.roi_grid_pool_layer = SetAbstraction(in_channels, balls)
        pooled = grid_size**3 * self.roi_grid_pool_layer.out_channels
        between = [dropout if dropout > 0 else None] * (len(shared) - 1)
        self.shared_fc_layer = nn.Sequential(*_hidden(pooled, shared, [*between, None]))
        self.cls_layers = _branch(shared[-1], classification, 1, dropout)
        self.reg_layers = _branch(shared[-1], regression, 7, dropout)
        for module in self.modules():
            if isinstance(module, PointwiseConv1d | PointwiseConv2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        final = self.reg_layers[-1]
        assert isinstance(final, PointwiseConv1d)
        nn.init.normal_(final.weight, std=0.001)

    def forward(
        self,
        xyz: Float[Tensor, "K 3"],
        offsets: Int64[Tensor, " B1"],
        features: Float[Tensor, "K C"],
        rois: Float[Tensor, "B R 7"],
    ) -> RoIPredictions:
        """Return a score and residuals for each proposal.

        Args:
            xyz: keypoints, metres.
            offsets: which of them belong to which sweep.
            features: of the keypoints, weighted.
            rois: proposals of the same sweeps.
        """
        batch, num = rois.shape[:2]
        points = roi_grid_points(rois.flatten(0, 1), self.grid_size).flatten(0, 1)
        per_sweep = num * self.grid_size**3
        bounds = torch.arange(batch + 1, device=rois.device) * per_sweep
        pooled = self.roi_grid_pool_layer(xyz, offsets, features, points, bounds)
        # Channel by channel, each with all of the proposal's grid points.
        by_channel = pooled.view(batch * num, self.grid_size**3, -1).transpose(1, 2).flatten(1)
        hidden = self.shared_fc_layer(by_channel)
        return RoIPredictions(self.cls_layers(hidden).view(batch, num), self.reg_layers(hidden).view(batch, num, 7))


def _branch(in_channels: int, widths: Sequence[int], out_channels: int, dropout: float) -> nn.Sequential:
    # OpenPCDet has this dropout even where its rate is 0, unlike the shared one.
    hidden = _hidden(in_channels, widths, [dropout, *[None] * (len(widths) - 1)])
    return nn.Sequential(*hidden, PointwiseConv1d(widths[-1], out_channels, bias=True))


def _hidden(in_channels: int, widths: Sequence[int], dropouts: Sequence[float | None]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, dropout in zip(widths, dropouts, strict=True):
        layers += [PointwiseConv1d(in_channels, width), BatchNorm1d(width), nn.ReLU()]
        if dropout is not None:
            layers.append(nn.Dropout(dropout))
        in_channels = width
    return layers
