"""Which cell of a feature map a point is in."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures import BEVCells, GridSpec, SparseVoxels
from equilidar.structures.grid import IntTriple


def column_stride(grid: GridSpec, bev_stride: tuple[int, int]) -> IntTriple:
    """Return the (z, y, x) stride at which a bird's-eye-view cell is one voxel, as high as the grid."""
    return grid.shape[0], *bev_stride


def as_columns(cells: BEVCells) -> SparseVoxels:
    """Return bird's-eye-view cells as voxels as high as the grid, for the ops that read voxels."""
    batch, y, x = cells.coords.unbind(1)
    coords = torch.stack([batch, torch.zeros_like(batch), y, x], 1).int()
    stride = column_stride(cells.grid, cells.stride)
    return SparseVoxels(coords, cells.features, cells.grid, (1, *cells.shape), stride, cells.batch_size)


def cells_along(grid: GridSpec, stride: IntTriple) -> IntTriple:
    """Return how many cells (z, y, x) cover the grid at a stride."""
    z, y, x = (-(-cells // step) for cells, step in zip(grid.shape, stride, strict=True))
    return z, y, x


def cells_of_points(
    grid: GridSpec, stride: IntTriple, xyz: Float[Tensor, "N 3"], batch_index: Int64[Tensor, " N"]
) -> Int64[Tensor, "N 4"]:
    """Return each point's cell [batch, z, y, x] at a stride; outside the grid it is a cell outside."""
    return torch.cat([batch_index[:, None], grid.index_zyx(xyz, stride)], 1)
