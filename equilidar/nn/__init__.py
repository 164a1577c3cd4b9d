"""Layers: sparse convolutions, normalisation, blocks."""

from equilidar.nn.norm import BatchNorm1d, BatchNorm2d
from equilidar.nn.residual_block import SparseResidualBlock
from equilidar.nn.sparse_block import SparseBlock
from equilidar.nn.sparse_conv import InverseConv3d, SparseConv3d, SubmanifoldConv3d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "InverseConv3d",
    "SparseBlock",
    "SparseConv3d",
    "SparseResidualBlock",
    "SubmanifoldConv3d",
]
