"""How alike the squares of two sweeps are, for each shift within reach: a cost volume over occupied squares."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures import SparseVoxels


def shifts_of(steps: int, device: torch.device | str = "cpu") -> Int64[Tensor, "S 2"]:
    """Return the shifts (x, y) in cells up to `steps` to each side, y changing slowest."""
    axis = torch.arange(-steps, steps + 1, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def cells_at_shifts(source: SparseVoxels, target: SparseVoxels, steps: int) -> Int64[Tensor, "V S"]:
    """Return the row of the target's cell at each shift from each source cell, the number of target cells for none.

    Args:
        source: cells one layer high.
        target: of the same grid and items.
        steps: cells to each side.
    """
    _, height, width = target.shape
    high, wide = height + 2 * steps, width + 2 * steps
    table = torch.full((target.batch_size * high * wide,), len(target.coords), device=target.coords.device)
    table[_place(target, steps, high, wide)] = torch.arange(len(target.coords), device=table.device)
    shift = shifts_of(steps, table.device)
    return table[_place(source, steps, high, wide)[:, None] + shift[:, 1] * wide + shift[:, 0]]


def similarities(
    source: Float[Tensor, "V C"], target: Float[Tensor, "W C"], cells: Int64[Tensor, "V S"]
) -> Float[Tensor, "V S"]:
    """Return dot products of each source row with the target rows at its cells, 0 where there is none."""
    padded = torch.cat([target, target.new_zeros(1, target.shape[1])])
    # A few shifts at a time: all the gathered rows at once would not stay in a processor's cache.
    parts = [(padded[part] @ source[:, :, None])[:, :, 0] for part in cells.split(32, 1)]
    return torch.cat(parts, 1)


def peak_shift(logits: Float[Tensor, "V S"]) -> Float[Tensor, "V 2"]:
    """Return the mean of the likeliest shift and those beside it, in cells."""
    shift = shifts_of((math.isqrt(logits.shape[1]) - 1) // 2, logits.device)
    best = shift[logits.argmax(1)]
    near = ((shift - best[:, None]).abs() <= 1).all(2)
    share = torch.where(near, logits, -torch.inf).softmax(1)
    return share @ shift.to(logits.dtype)


def _place(cells: SparseVoxels, margin: int, high: int, wide: int) -> Int64[Tensor, " V"]:
    item, _, y, x = cells.coords.long().unbind(1)
    return (item * high + y + margin) * wide + x + margin
