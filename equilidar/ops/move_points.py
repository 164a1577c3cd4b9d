"""Points moved by a map and cropped to a grid, in one pass over them."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.structures import Affine3, GridSpec
from equilidar.structures import offsets as batch_offsets


def move_points(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], transform: Affine3, grid: GridSpec
) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
    """Move points and tell which then fall into a voxel of a grid; the same bits as `Affine3.apply` gives.

    Not differentiable.

    Args:
        xyz: points, metres.
        offsets: which of them belong to which item.
        transform: one map for each item.
        grid: range and voxel size; points that are not finite are outside.

    Returns:
        All points, moved, and which are inside.

    Raises:
        ValueError: the numbers of items differ.
    """
    batch_offsets.check(offsets, len(xyz), "points")
    if len(offsets) != transform.batch_size + 1:
        raise ValueError(f"{transform.batch_size} transforms cannot move a batch of {len(offsets) - 1} items")
    linear, translation = transform.linear.to(xyz.dtype), transform.translation.to(xyz.dtype)
    return _move_points(
        xyz, offsets, linear, translation, list(grid.low), list(grid.voxel_size), list(grid.shape[::-1])
    )  # fmt: skip


def _move_reference(
    xyz: Tensor,
    offsets: Tensor,
    linear: Tensor,
    translation: Tensor,
    low: list[float],
    size: list[float],
    cells: list[int],
) -> tuple[Tensor, Tensor]:
    item = batch_offsets.to_batch_index(offsets, len(xyz))
    x, y, z = xyz[:, None].unbind(2)
    moved = linear[item, :, 0] * x + linear[item, :, 1] * y + linear[item, :, 2] * z + translation[item]
    index = ((moved - moved.new_tensor(low)) / moved.new_tensor(size)).floor()
    return moved, ((index >= 0) & (index < moved.new_tensor(cells))).all(1)


_move_points = define_op(
    "move_points(Tensor xyz, Tensor offsets, Tensor linear, Tensor translation, float[] low, float[] size, int[] cells)"
    " -> (Tensor, Tensor)",
    reference=_move_reference,
    fake=lambda xyz, *_: (
        torch.empty_like(xyz, memory_format=torch.contiguous_format),
        xyz.new_empty(xyz.shape[0], dtype=torch.bool),
    ),
    autocast="float32",
)
