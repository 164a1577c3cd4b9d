"""The block that sparse backbones are made of."""

from torch import nn

from equilidar.nn.norm import BatchNorm1d
from equilidar.nn.sparse_conv import SparseConv3d, SubmanifoldConv3d
from equilidar.structures import SparseVoxels


class SparseBlock(nn.Sequential):
    """Sparse convolution, batch normalisation, ReLU.

    A `Sequential`, so that parameters are named as in OpenPCDet: 0 is the convolution, 1 the normalisation.
    """

    def __init__(self, conv: SubmanifoldConv3d | SparseConv3d, eps: float = 1e-3, momentum: float = 0.01) -> None:
        super().__init__(conv, BatchNorm1d(conv.out_channels, eps=eps, momentum=momentum), nn.ReLU(inplace=True))

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        conv, norm, activation = self
        convolved: SparseVoxels = conv(voxels)
        return convolved.with_features(activation(norm(convolved.features)))
