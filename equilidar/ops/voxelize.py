"""Voxelization: which voxel each point falls into, and what a voxel then holds.

`GridSpec.index_xyz` is the one definition of the voxel of a point; everything here follows it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rulebook import cell_keys, cells_of_keys
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures import offsets as batch_offsets


@dataclass(slots=True)
class HardVoxels:
    """Voxels with their points, capped in both numbers (what SECOND's first voxelizer yields).

    Attributes:
        coords: (V, 4) int32 [batch, z, y, x], by item and then in the order in which a point first fell into them.
        points: (V, max_points, 3 + C): x, y, z and the feature channels; unused slots are zero.
        num_points: (V,) used slots.
        grid: the grid.
        batch_size: B.
    """

    coords: Int32[Tensor, "V 4"]
    points: Float[Tensor, "V P C"]
    num_points: Int64[Tensor, " V"]
    grid: GridSpec
    batch_size: int

    def mean(self) -> SparseVoxels:
        """Return the mean of each voxel's kept points, voxels sorted by [batch, z, y, x]."""
        mean = self.points.sum(1) / self.num_points[:, None].to(self.points.dtype)
        order = cell_keys(self.coords, self.grid.shape).argsort()
        return SparseVoxels(self.coords[order], mean[order], self.grid, self.grid.shape, (1, 1, 1), self.batch_size)


def voxel_rows(xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], grid: GridSpec) -> Int64[Tensor, " N"]:
    """Return the row of each point's voxel in `voxelize_mean`'s order, -1 for points outside the grid."""
    return occupied_voxels(xyz, offsets, grid)[0]


def occupied_voxels(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], grid: GridSpec
) -> tuple[Int64[Tensor, " N"], Int32[Tensor, "V 4"]]:
    """Find the voxel of each point.

    Args:
        xyz: metres.
        offsets: batch offsets of the points.
        grid: range and voxel size.

    Returns:
        The row of each point's voxel, -1 for points outside the grid, and the occupied voxels [batch, z, y, x], sorted.
    """
    # Not a number falls into no voxel, whatever integer a device makes of it.
    index = torch.where(xyz.isfinite(), grid.index_xyz(xyz), -1)
    return _rows_of_cells(index, batch_offsets.to_batch_index(offsets, len(xyz)), grid.shape)


def voxelize_mean(points: PointCloudBatch, grid: GridSpec) -> SparseVoxels:
    """Average all points of each voxel, without a cap (OpenPCDet's DynamicMeanVFE).

    Returns:
        Voxels sorted by [batch, z, y, x]; feature columns are x, y, z in metres and then the points' channels.
    """
    rows, coords = occupied_voxels(points.xyz, points.offsets, grid)
    inside = rows >= 0
    values = torch.cat([points.xyz, points.features], 1)[inside]
    mean = mean_by_row(values, rows[inside], len(coords))
    return SparseVoxels(coords, mean, grid, grid.shape, (1, 1, 1), points.batch_size)


def mean_by_row(values: Float[Tensor, "N C"], rows: Int64[Tensor, " N"], num_rows: int) -> Float[Tensor, "V C"]:
    """Average `values` that share a row; rows that none has are zero. Differentiable."""
    total = values.new_zeros(num_rows, values.shape[1]).index_add(0, rows, values)
    count = torch.bincount(rows, minlength=num_rows).clamp(min=1)
    return total / count[:, None].to(values.dtype)


def voxelize_hard(points: PointCloudBatch, grid: GridSpec, max_points: int, max_voxels: int) -> HardVoxels:
    """Collect the first points of each voxel (OpenPCDet's and spconv's voxel generator).

    Args:
        points: clouds.
        grid: range and voxel size.
        max_points: points that a voxel keeps: the first in the order of the cloud.
        max_voxels: voxels that each item keeps: those into which a point falls first.
    """
    if max_points < 1 or max_voxels < 1:
        raise ValueError(f"max_points and max_voxels must be at least 1, got {max_points} and {max_voxels}")
    rows, coords = occupied_voxels(points.xyz, points.offsets, grid)
    inside = (rows >= 0).nonzero()[:, 0]
    rows = rows[inside]
    first = inside.new_full((len(coords),), len(points.xyz)).scatter_reduce(0, rows, inside, "amin")
    # Points are sorted by item, so the order of first points is by item, too.
    order = first.argsort()
    rank = _rank_in_group(coords[order, 0].long(), points.batch_size)
    kept = order[rank < max_voxels]
    new_row = torch.full_like(first, -1)
    new_row[kept] = torch.arange(len(kept), device=kept.device)

    by_voxel = rows.argsort(stable=True)
    slot = torch.empty_like(rows)
    slot[by_voxel] = _rank_in_group(rows[by_voxel], len(coords))
    target = new_row[rows]
    used = (target >= 0) & (slot < max_points)
    values = torch.cat([points.xyz, points.features], 1)[inside[used]]
    padded = values.new_zeros(len(kept), max_points, values.shape[1])
    padded[target[used], slot[used]] = values
    num_points = torch.bincount(target[used], minlength=len(kept))
    return HardVoxels(coords[kept], padded, num_points, grid, points.batch_size)


def _rank_in_group(groups: Int64[Tensor, " N"], num_groups: int) -> Int64[Tensor, " N"]:
    """Number the members of each group from zero; `groups` is sorted."""
    starts = batch_offsets.from_lengths(torch.bincount(groups, minlength=num_groups))
    return torch.arange(len(groups), device=groups.device) - starts[groups]


def _rows_reference(index_xyz: Tensor, batch_index: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    limit = torch.tensor(shape[::-1], device=index_xyz.device)
    inside = ((index_xyz >= 0) & (index_xyz < limit)).all(1)
    cells = torch.cat([batch_index[:, None], index_xyz.flip(1)], 1)[inside]
    keys, ranks = cell_keys(cells, shape).unique(return_inverse=True)
    rows = torch.full_like(batch_index, -1)
    rows[inside] = ranks
    return rows, cells_of_keys(keys, shape)


def _rows_fake(index_xyz: Tensor, batch_index: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    num_voxels = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(batch_index), index_xyz.new_empty((num_voxels, 4), dtype=torch.int32)


_rows_of_cells = define_op(
    "voxel_rows(Tensor index_xyz, Tensor batch_index, int[] shape) -> (Tensor, Tensor)",
    reference=_rows_reference,
    fake=_rows_fake,
)
