"""Pairs of points, and features of cells, that scene flow relates between two sweeps."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.neighbors import nearest
from equilidar.structures import offsets as batch_offsets


def pair_by_flow(
    source_xyz: Float[Tensor, "N 3"],
    warped: Float[Tensor, "N 3"],
    valid: Bool[Tensor, " N"],
    source_offsets: Int64[Tensor, " S1"],
    target_xyz: Float[Tensor, "M 3"],
    target_offsets: Int64[Tensor, " T1"],
    radius: float,
    mutual: bool = False,
) -> Int64[Tensor, "P 2"]:
    """Pair each source point with the target point nearest to where flow takes it.

    Args:
        source_xyz: points of the source sweep, one for each warped one.
        warped: the same points after scene flow, in the frame of the target.
        valid: whose flow is known; the others neither pair nor compete.
        source_offsets: which source points belong to which item.
        target_xyz: points of the target sweep.
        target_offsets: the same number of items.
        radius: metres from warped to target point, at most.
        mutual: keep only pairs where the warped point is also the nearest one to the target point.

    Returns:
        Rows of source and target, sorted by source row; a source row occurs once, a target row can occur more often
        unless `mutual`.

    Raises:
        ValueError: the numbers of points or items differ.
    """
    if not len(source_xyz) == len(warped) == len(valid):
        raise ValueError(
            f"source_xyz, warped and valid must have one row per source point, got {len(source_xyz)}, "
            f"{len(warped)} and {len(valid)}"
        )
    batch_offsets.check(source_offsets, len(warped), "source")
    moved, moved_offsets = warped[valid], batch_offsets.after_mask(source_offsets, valid)
    match, _ = nearest(moved, moved_offsets, target_xyz, target_offsets, radius)
    paired = match >= 0
    if mutual:
        back, _ = nearest(target_xyz, target_offsets, moved, moved_offsets, radius)
        own = torch.arange(len(moved), device=moved.device)
        paired &= _take(back, match.clamp_min(0)) == own
    return torch.stack([valid.nonzero()[:, 0][paired], match[paired]], 1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values[index] if len(values) else torch.full_like(index, -1)


def warp_to_cells(
    features: Float[Tensor, "V C"],
    point_rows: Int64[Tensor, " N"],
    cell_rows: Int64[Tensor, " N"],
    num_cells: int,
    reduction: Literal["mean", "max"] = "mean",
    weights: Float[Tensor, " N"] | None = None,
) -> tuple[Float[Tensor, "K C"], Float[Tensor, " K"]]:
    """Carry voxel features along with their points into the cells that the points reach.

    Forward warping (E-SSL3D, section 3.3): each source point takes the feature of the voxel it is in to the target
    cell where flow leads it; what meets in a cell is reduced. Differentiable with respect to `features` only.

    Args:
        features: of the source voxels.
        point_rows: voxel row of each source point, -1 for none.
        cell_rows: target cell row of each warped point, -1 for none.
        num_cells: K.
        reduction: "mean": weighted mean over points. "max": per channel, over points of weight above zero; among
            equal values the gradient goes to the lowest voxel row.
        weights: confidence of each point, not negative; 1 if None.

    Returns:
        features: per cell; zero for a cell that no point of weight above zero reaches.
        weight: summed weights per cell.

    Raises:
        ValueError: unknown reduction, or differing numbers of points.
    """
    if reduction not in ("mean", "max"):
        raise ValueError(f'reduction must be "mean" or "max", got {reduction!r}')
    if len(point_rows) != len(cell_rows) or (weights is not None and len(weights) != len(point_rows)):
        raise ValueError(
            f"point_rows, cell_rows and weights must have one entry per point, got {len(point_rows)}, "
            f"{len(cell_rows)} and {None if weights is None else len(weights)}"
        )
    known = (point_rows >= 0) & (cell_rows >= 0)
    if weights is None:
        weights = torch.ones_like(point_rows, dtype=torch.float32)
    known &= weights > 0
    rows, cells, share = _distinct_moves(point_rows[known], cell_rows[known], weights[known].float(), num_cells)
    total = share.new_zeros(num_cells).index_add_(0, cells, share)
    if reduction == "max":
        return _scatter_max(features, rows, cells, num_cells)[0], total
    return _scatter_sum(features, rows, cells, share / total[cells], num_cells), total


def _distinct_moves(rows: Tensor, cells: Tensor, weights: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Join the points that make the same move, with summed weights: many fewer features to carry.

    Sorted by voxel row, then cell.
    """
    moves, inverse = (rows * num_cells + cells).unique(return_inverse=True)
    summed = weights.new_zeros(len(moves)).index_add_(0, inverse, weights)
    return moves // max(1, num_cells), moves % max(1, num_cells), summed


def _sum_reference(features: Tensor, rows: Tensor, cells: Tensor, weights: Tensor, num_cells: int) -> Tensor:
    carried = features[rows] * weights[:, None].to(features.dtype)
    return features.new_zeros(num_cells, features.shape[1]).index_add_(0, cells, carried)


def _sum_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rows, cells, weights, _ = inputs
    ctx.save_for_backward(rows, cells, weights)
    ctx.num_rows = features.shape[0]


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    rows, cells, weights = ctx.saved_tensors
    # The transpose: cells and rows change places.
    return _scatter_sum(grad, cells, rows, weights, ctx.num_rows), None, None, None, None


def _max_reference(features: Tensor, rows: Tensor, cells: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """Return per cell and channel the largest feature, zero if none, and the row it came from, -1 if none."""
    shape = (num_cells, features.shape[1])
    target = cells[:, None].expand(-1, shape[1])
    carried = features[rows]
    largest = features.new_full(shape, -torch.inf).scatter_reduce(0, target, carried, "amax")
    winner = torch.where(carried == largest[cells], rows[:, None], features.shape[0])
    origin = rows.new_full(shape, features.shape[0]).scatter_reduce(0, target, winner, "amin")
    reached = torch.zeros(num_cells, 1, dtype=torch.bool, device=cells.device).index_fill(0, cells, True)
    # By cell, not by value: NaN has no origin but must come through.
    return torch.where(reached, largest, 0.0), torch.where(origin < features.shape[0], origin, -1)


def _max_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.num_rows = inputs[0].shape[0]


def _max_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    (origin,) = ctx.saved_tensors
    spread = grad.new_zeros(ctx.num_rows, grad.shape[1])
    if ctx.num_rows:
        spread.scatter_add_(0, origin.clamp_min(0), torch.where(origin >= 0, grad, 0.0))
    return spread, None, None, None


_scatter_sum = define_op(
    "scatter_sum(Tensor features, Tensor rows, Tensor cells, Tensor weights, SymInt num_cells) -> Tensor",
    reference=_sum_reference,
    fake=lambda features, rows, cells, weights, num_cells: features.new_empty(num_cells, features.shape[1]),
    setup_context=_sum_setup,
    backward=_sum_backward,
    autocast="float32",
)
_scatter_max = define_op(
    "scatter_max(Tensor features, Tensor rows, Tensor cells, SymInt num_cells) -> (Tensor, Tensor)",
    reference=_max_reference,
    fake=lambda features, rows, cells, num_cells: (
        features.new_empty(num_cells, features.shape[1]),
        rows.new_empty(num_cells, features.shape[1]),
    ),
    setup_context=_max_setup,
    backward=_max_backward,
    autocast="float32",
)
