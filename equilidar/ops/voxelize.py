"""Voxelization: which voxel each point falls into, and what a voxel then holds.

`GridSpec.index_xyz` is the one definition of the voxel of a point; everything here follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rulebook import cell_keys, cells_of_keys, check_cells
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import allowed_sync


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

    def sorted(self) -> "HardVoxels":
        """Return the voxels in the order of [batch, z, y, x]."""
        order = cell_keys(self.coords, self.grid.shape).argsort()
        return HardVoxels(self.coords[order], self.points[order], self.num_points[order], self.grid, self.batch_size)

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
    check_cells(grid.shape, len(offsets) - 1)
    with allowed_sync("number of occupied voxels"):
        return _voxel_rows(xyz, offsets, grid.low, grid.high, grid.voxel_size)


def voxelize_mean(points: PointCloudBatch, grid: GridSpec) -> SparseVoxels:
    """Average all points of each voxel, without a cap (OpenPCDet's DynamicMeanVFE).

    Returns:
        Voxels sorted by [batch, z, y, x]; feature columns are x, y, z in metres and then the points' channels.
    """
    if torch.is_grad_enabled() and (points.xyz.requires_grad or points.features.requires_grad):
        rows, coords = occupied_voxels(points.xyz, points.offsets, grid)
        means = mean_by_row(torch.cat([points.xyz, points.features], 1), rows, len(coords))
    else:
        # Clouds are seldom differentiated: one op does all, without a gradient.
        check_cells(grid.shape, points.batch_size)
        with allowed_sync("number of occupied voxels"):
            means, coords = _voxel_means(
                points.xyz, points.features, points.offsets, grid.low, grid.high, grid.voxel_size
            )
    return SparseVoxels(coords, means, grid, grid.shape, (1, 1, 1), points.batch_size)


def mean_by_row(values: Float[Tensor, "N C"], rows: Int64[Tensor, " N"], num_rows: int) -> Float[Tensor, "V C"]:
    """Average `values` that share a row; rows that none has are zero, values of row -1 are left out. Differentiable."""
    # One more row, for those that are left out.
    slots = torch.where(rows < 0, num_rows, rows)
    total = values.new_zeros(num_rows + 1, values.shape[1]).index_add(0, slots, values)[:num_rows]
    count = torch.bincount(slots, minlength=num_rows + 1)[:num_rows].clamp(min=1)
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
    check_cells(grid.shape, points.batch_size)
    with allowed_sync("number of occupied voxels"):
        coords, num_points, slots = _voxel_slots(
            points.xyz, points.offsets, grid.low, grid.high, grid.voxel_size, max_points, max_voxels
        )
    padded = _fill_voxel_slots(points.xyz, points.features, slots, num_points, max_points)
    return HardVoxels(coords, padded, num_points, grid, points.batch_size)


def _rank_in_group(groups: Int64[Tensor, " N"], num_groups: int) -> Int64[Tensor, " N"]:
    """Number the members of each group from zero; `groups` is sorted."""
    starts = batch_offsets.from_lengths(torch.bincount(groups, minlength=num_groups))
    return torch.arange(len(groups), device=groups.device) - starts[groups]


def _rows_reference(
    xyz: Tensor, offsets: Tensor, low: Sequence[float], high: Sequence[float], voxel_size: Sequence[float]
) -> tuple[Tensor, Tensor]:
    grid = GridSpec.from_range([*low, *high], voxel_size)
    # Not a number falls into no voxel, whatever integer a device makes of it.
    index = torch.where(xyz.isfinite(), grid.index_xyz(xyz), -1)
    limit = torch.tensor(grid.shape[::-1], device=xyz.device)
    inside = ((index >= 0) & (index < limit)).all(1)
    item = batch_offsets.to_batch_index(offsets, len(xyz))
    cells = torch.cat([item[:, None], index.flip(1)], 1)[inside]
    keys, ranks = cell_keys(cells, grid.shape).unique(return_inverse=True)
    rows = torch.full_like(item, -1)
    rows[inside] = ranks
    return rows, cells_of_keys(keys, grid.shape)


def _rows_fake(
    xyz: Tensor, offsets: Tensor, low: Sequence[float], high: Sequence[float], voxel_size: Sequence[float]
) -> tuple[Tensor, Tensor]:
    num_voxels = torch.library.get_ctx().new_dynamic_size()
    return offsets.new_empty(xyz.shape[0]), xyz.new_empty((num_voxels, 4), dtype=torch.int32)


def _means_reference(
    xyz: Tensor,
    features: Tensor,
    offsets: Tensor,
    low: Sequence[float],
    high: Sequence[float],
    voxel_size: Sequence[float],
) -> tuple[Tensor, Tensor]:
    rows, coords = _rows_reference(xyz, offsets, low, high, voxel_size)
    return mean_by_row(torch.cat([xyz, features], 1), rows, len(coords)), coords


def _means_fake(
    xyz: Tensor,
    features: Tensor,
    offsets: Tensor,
    low: Sequence[float],
    high: Sequence[float],
    voxel_size: Sequence[float],
) -> tuple[Tensor, Tensor]:
    _, coords = _rows_fake(xyz, offsets, low, high, voxel_size)
    return xyz.new_empty(coords.shape[0], 3 + features.shape[1]), coords


def _slots_reference(
    xyz: Tensor,
    offsets: Tensor,
    low: Sequence[float],
    high: Sequence[float],
    voxel_size: Sequence[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the voxels that are kept, how many points each keeps, and each point's (voxel * max_points + slot)."""
    rows, coords = _rows_reference(xyz, offsets, low, high, voxel_size)
    num_voxels = len(coords)
    inside = (rows >= 0).nonzero()[:, 0]
    voxel = rows[inside]
    first = rows.new_full((num_voxels,), len(rows)).scatter_reduce(0, voxel, inside, "amin")
    # Points are sorted by item, so the order of first points is by item, too.
    order = first.argsort()
    items = len(offsets) - 1
    rank = _rank_in_group(batch_offsets.to_batch_index(offsets, len(rows))[first[order]], items)
    kept = order[rank < max_voxels]
    place = torch.full_like(first, -1)
    place[kept] = torch.arange(len(kept), device=kept.device)

    by_voxel = voxel.argsort(stable=True)
    nth = torch.empty_like(voxel)
    nth[by_voxel] = _rank_in_group(voxel[by_voxel], num_voxels)
    used = (place[voxel] >= 0) & (nth < max_points)
    slots = torch.full_like(rows, -1)
    slots[inside[used]] = place[voxel[used]] * max_points + nth[used]
    return coords[kept], torch.bincount(place[voxel[used]], minlength=len(kept)), slots


def _slots_fake(
    xyz: Tensor,
    offsets: Tensor,
    low: Sequence[float],
    high: Sequence[float],
    voxel_size: Sequence[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    slots, coords = _rows_fake(xyz, offsets, low, high, voxel_size)
    return coords, offsets.new_empty(coords.shape[0]), slots


def _fill_reference(xyz: Tensor, features: Tensor, slots: Tensor, num_points: Tensor, max_points: int) -> Tensor:
    used = (slots >= 0).nonzero()[:, 0]
    values = torch.cat([xyz, features], 1)[used]
    padded = values.new_zeros(len(num_points) * max_points, values.shape[1]).index_copy(0, slots[used], values)
    return padded.view(len(num_points), max_points, values.shape[1])


def _fill_fake(xyz: Tensor, features: Tensor, slots: Tensor, num_points: Tensor, max_points: int) -> Tensor:
    return xyz.new_empty(num_points.shape[0], max_points, 3 + features.shape[1])


def _fill_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _fill_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (slots,) = ctx.saved_tensors
    # One more row, for points that have no slot.
    rows = torch.cat([grad.flatten(0, 1), grad.new_zeros(1, grad.shape[2])])[slots]
    return rows[:, :3], rows[:, 3:], None, None, None


_voxel_rows = define_op(
    "voxel_rows(Tensor xyz, Tensor offsets, float[] low, float[] high, float[] voxel_size) -> (Tensor, Tensor)",
    reference=_rows_reference,
    fake=_rows_fake,
)
_voxel_means = define_op(
    "voxel_means(Tensor xyz, Tensor features, Tensor offsets, float[] low, float[] high, float[] voxel_size) "
    "-> (Tensor, Tensor)",
    reference=_means_reference,
    fake=_means_fake,
    autocast="float32",
)
_voxel_slots = define_op(
    "voxel_slots(Tensor xyz, Tensor offsets, float[] low, float[] high, float[] voxel_size, int max_points, "
    "int max_voxels) -> (Tensor, Tensor, Tensor)",
    reference=_slots_reference,
    fake=_slots_fake,
)
_fill_voxel_slots = define_op(
    "fill_voxel_slots(Tensor xyz, Tensor features, Tensor slots, Tensor num_points, int max_points) -> Tensor",
    reference=_fill_reference,
    fake=_fill_fake,
    setup_context=_fill_setup,
    backward=_fill_backward,
    autocast="float32",
)
