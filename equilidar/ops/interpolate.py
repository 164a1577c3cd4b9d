"""Features of sparse voxels at points."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rulebook import cell_keys
from equilidar.structures import SparseVoxels
from equilidar.structures.host_sync import constants


def interpolate_voxels(
    voxels: SparseVoxels,
    xyz: Float[Tensor, "N 3"],
    batch_index: Int64[Tensor, " N"],
    mode: Literal["nearest", "trilinear"] = "trilinear",
) -> tuple[Float[Tensor, "N C"], Bool[Tensor, " N"]]:
    """Read voxel features at points; differentiable with respect to the features.

    Args:
        voxels: in any order, each cell once.
        xyz: metres, in the frame of the grid.
        batch_index: item of each point.
        mode: "nearest": the feature of the cell that the point is in. "trilinear": of the eight cells whose centers
            surround the point, weights renormalised over those that are occupied.

    Returns:
        features: zero where nothing was found.
        found: whether the cell, or any of the eight with a weight above zero, is occupied.

    Raises:
        ValueError: unknown mode.
    """
    if mode == "nearest":
        cells = voxels.grid.index_zyx(xyz, voxels.stride)
        rows = find_cells(voxels, torch.cat([batch_index[:, None], cells], 1))[:, None]
        weights = torch.ones_like(rows, dtype=xyz.dtype)
    elif mode == "trilinear":
        rows, weights = _corner_rows_and_weights(voxels, xyz, batch_index)
    else:
        raise ValueError(f'mode must be "nearest" or "trilinear", got {mode!r}')
    weights = torch.where(rows >= 0, weights, 0.0)
    total = weights.sum(1, keepdim=True)
    found = total > 0
    weights = torch.where(found, weights / torch.where(found, total, 1.0), 0.0)
    return gather_weighted(voxels.features, rows, weights.to(voxels.features.dtype)), found[:, 0]


def find_cells(voxels: SparseVoxels, cells: Int[Tensor, "N 4"]) -> Int64[Tensor, " N"]:
    """Return the voxel row of each cell [batch, z, y, x]; -1 where the cell is empty or outside the grid."""
    return cell_lookup(voxels.coords, cells, [voxels.batch_size, *voxels.shape])


def _find_reference(coords: Tensor, cells: Tensor, limits: list[int]) -> Tensor:
    """Return the lowest row of `coords` that is each cell, -1 if none is."""
    if len(coords) == 0:
        return cells.new_full((len(cells),), -1, dtype=torch.int64)
    held, row = cell_keys(coords, limits[1:]).sort(stable=True)
    inside = ((cells >= 0) & (cells < torch.tensor(limits, device=cells.device))).all(1)
    wanted = cell_keys(torch.where(inside[:, None], cells, 0), limits[1:])
    slot = torch.searchsorted(held, wanted).clamp_max(len(held) - 1)
    return torch.where(inside & (held[slot] == wanted), row[slot], -1)


def _corner_rows_and_weights(voxels: SparseVoxels, xyz: Tensor, batch_index: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, 8) rows of the surrounding cells, -1 if empty, and their trilinear weights."""
    low = constants(voxels.grid.low, device=xyz.device, dtype=xyz.dtype)
    size = constants(voxels.grid.cell_size(voxels.stride), device=xyz.device, dtype=xyz.dtype)
    # In units of cells, so that the center of cell i is at i.
    position = ((xyz - low) / size - 0.5).flip(1)
    lowest = position.floor()
    fraction = position - lowest
    # The bits of 0..7 are the corners, (z, y, x).
    upper = (torch.arange(8, device=xyz.device)[:, None] & constants((4, 2, 1), device=xyz.device)) > 0
    cells = (lowest.long()[:, None] + upper).flatten(0, 1)
    weights = torch.where(upper, fraction[:, None], 1 - fraction[:, None]).prod(2)
    rows = find_cells(voxels, torch.cat([batch_index.repeat_interleave(8)[:, None], cells], 1))
    return rows.view(-1, 8), weights


def _gather_reference(features: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k weights[n, k] * features[rows[n, k]]; a row below zero reads nothing."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    rows = torch.where(rows < 0, len(features), rows)
    # Unlike indexing and summing, this never holds (N, K, C).
    return torch.nn.functional.embedding_bag(rows, padded, per_sample_weights=weights, mode="sum")


def _gather_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    features, rows, weights = inputs
    ctx.save_for_backward(rows, weights)
    ctx.num_rows = features.shape[0]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    rows, weights = ctx.saved_tensors
    return spread_weighted(grad, rows, weights, ctx.num_rows), None, None


def _spread_reference(grad: Tensor, rows: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    """Return the transpose of the gathering: out[rows[n, k]] += weights[n, k] * grad[n]."""
    spread = grad.new_zeros(num_rows, grad.shape[1])
    for row, weight in zip(rows.unbind(1), weights.unbind(1), strict=True):
        known = row >= 0
        spread.index_add_(0, row[known], grad[known] * weight[known, None])
    return spread


spread_weighted = define_op(
    "spread_weighted(Tensor grad, Tensor rows, Tensor weights, SymInt num_rows) -> Tensor",
    reference=_spread_reference,
    fake=lambda grad, rows, weights, num_rows: grad.new_empty(num_rows, grad.shape[1]),
)
gather_weighted = define_op(
    "gather_weighted(Tensor features, Tensor rows, Tensor weights) -> Tensor",
    reference=_gather_reference,
    fake=lambda features, rows, weights: features.new_empty(rows.shape[0], features.shape[1]),
    setup_context=_gather_setup,
    backward=_gather_backward,
    autocast="float32",
)
cell_lookup = define_op(
    "find_cells(Tensor coords, Tensor cells, int[] limits) -> Tensor",
    reference=_find_reference,
    fake=lambda coords, cells, limits: cells.new_empty(cells.shape[0], dtype=torch.int64),
)
