"""Farthest point sampling."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.structures import offsets as batch_offsets


def farthest_points(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], num: int
) -> Int64[Tensor, "B num_samples"]:
    """Choose points of each batch item so that each is the farthest from those chosen before.

    Starts at an item's first point; equal distances go to the lower row. Where an item has fewer distinct points
    than are asked for, its first point is chosen again (all distances are then zero). Points that are not finite are
    as if they were not there.

    Args:
        xyz: points, metres.
        offsets: which of them belong to which item.
        num: how many to choose in each item.

    Returns:
        Rows of `xyz`, in the order of choice; -1 for an item without finite points.

    Raises:
        ValueError: `num` is less than 1.
    """
    batch_offsets.check(offsets, len(xyz), "points")
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    return _farthest_points(xyz, offsets, num)


def _farthest_points_reference(xyz: Tensor, offsets: Tensor, num: int) -> Tensor:
    lengths = offsets.diff()
    if len(xyz) == 0:
        return offsets.new_full((len(lengths), num), -1)
    item = batch_offsets.to_batch_index(offsets, len(xyz))
    slot = torch.arange(len(xyz), device=xyz.device) - offsets[item]
    finite = xyz.isfinite().all(1)
    padded = xyz.new_zeros(len(lengths), int(lengths.max()), 3)
    padded[item, slot] = torch.where(finite[:, None], xyz, 0.0)
    # Padding keeps the distance -1 and is never the farthest.
    squared = xyz.new_full(padded.shape[:2], -1.0)
    squared[item, slot] = torch.where(finite, torch.inf, -1.0).to(xyz.dtype)
    chosen = [squared.argmax(1)]  # the first of equal ones
    known = squared.amax(1) >= 0
    items = torch.arange(len(lengths), device=xyz.device)
    for _ in range(num - 1):
        delta = padded - padded[items, chosen[-1]][:, None]
        dx, dy, dz = delta.unbind(-1)
        squared = torch.minimum(squared, dx * dx + dy * dy + dz * dz)
        chosen.append(squared.argmax(1))
    rows = torch.stack(chosen, 1) + offsets[:-1, None]
    return torch.where(known[:, None], rows, -1)


_farthest_points = define_op(
    "farthest_points(Tensor xyz, Tensor offsets, SymInt num) -> Tensor",
    reference=_farthest_points_reference,
    fake=lambda xyz, offsets, num: offsets.new_empty(offsets.shape[0] - 1, num),
    autocast="float32",
)
