"""Rows of features carried into cells, where what meets is summed or the largest wins.

A row or cell below zero means none. What goes to one cell is added in its own order: no result depends on threads.
"""

from typing import Any

import torch
from torch import Tensor

from equilidar.ops._registration import define_op


def _sum_reference(features: Tensor, rows: Tensor, cells: Tensor, weights: Tensor, num_cells: int) -> Tensor:
    """Return out[cells[i]] += weights[i] * features[rows[i]]."""
    known = (rows >= 0) & (cells >= 0)
    carried = features[rows[known]] * weights[known, None].to(features.dtype)
    return features.new_zeros(num_cells, features.shape[1]).index_add_(0, cells[known], carried)


def _sum_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rows, cells, weights, _ = inputs
    ctx.save_for_backward(rows, cells, weights)
    ctx.num_rows = features.shape[0]


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    rows, cells, weights = ctx.saved_tensors
    # The transpose: cells and rows change places.
    return scatter_sum(grad, cells, rows, weights, ctx.num_rows), None, None, None, None


def _max_reference(features: Tensor, rows: Tensor, cells: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """Return per cell and channel the largest feature, zero if none, and the row it came from, -1 if none."""
    known = (rows >= 0) & (cells >= 0)
    rows, cells = rows[known], cells[known]
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
    features, rows, cells, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], rows, cells)
    ctx.num_rows = features.shape[0]


def _max_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    return _scatter_max_backward(grad, *ctx.saved_tensors, ctx.num_rows), None, None, None


def _max_backward_reference(grad: Tensor, origin: Tensor, rows: Tensor, cells: Tensor, num_rows: int) -> Tensor:
    """Return out[origin[k, c], c] += grad[k, c]. Rows and cells of the moves are a way to find the origins."""
    spread = grad.new_zeros(num_rows, grad.shape[1])
    return spread.scatter_add_(0, origin.clamp_min(0), torch.where(origin >= 0, grad, 0.0)) if num_rows else spread


_scatter_max_backward = define_op(
    "scatter_max_backward(Tensor grad, Tensor origin, Tensor rows, Tensor cells, SymInt num_rows) -> Tensor",
    reference=_max_backward_reference,
    fake=lambda grad, origin, rows, cells, num_rows: grad.new_empty(num_rows, grad.shape[1]),
)
scatter_sum = define_op(
    "scatter_sum(Tensor features, Tensor rows, Tensor cells, Tensor weights, SymInt num_cells) -> Tensor",
    reference=_sum_reference,
    fake=lambda features, rows, cells, weights, num_cells: features.new_empty(num_cells, features.shape[1]),
    setup_context=_sum_setup,
    backward=_sum_backward,
    autocast="float32",
)
scatter_max = define_op(
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
