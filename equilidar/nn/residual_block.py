"""The block that residual sparse backbones are made of."""

from torch import nn

from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.sparse_conv import SubmanifoldConv3d
from equilidar.structures import SparseVoxels


class SparseResidualBlock(nn.Module):
    """Two submanifold convolutions around which the input is led and added (He et al. 2016, figure 2).

    Parameters are named as in OpenPCDet's SparseBasicBlock. Its convolutions have a bias although a normalisation
    follows them: weights that are handed over have one.
    """

    def __init__(self, channels: int, *, eps: float = 1e-3, momentum: float = 0.01, engine: str = "auto") -> None:
        super().__init__()
        self.conv1 = SubmanifoldConv3d(channels, channels, 3, bias=True, engine=engine)
        self.bn1 = BatchNorm1d(channels, eps=eps, momentum=momentum)
        self.conv2 = SubmanifoldConv3d(channels, channels, 3, bias=True, engine=engine)
        self.bn2 = BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        first: SparseVoxels = self.conv1(voxels)
        # In place on what normalisation made: its gradient needs its input alone.
        inner = first.with_features(self.bn1(first.features).relu_())
        second: SparseVoxels = self.conv2(inner)
        return second.with_features(self.bn2(second.features).add_(voxels.features).relu_())
