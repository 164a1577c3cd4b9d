"""Distance to the nearest occupied voxel, everywhere on a grid, and reading of such a field at points.

Optimisation-based scene flow (Fast Neural Scene Flow, Li et al., ICCV 2023; Floxels, Hoffmann et al., CVPR 2025) builds
the field of the later sweep once and then reads it at warped points in every step, in place of a search for neighbours.
"""

import itertools
import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.interpolate import spread_weighted
from equilidar.structures import GridSpec
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.grid import Triple

_MAX_ENTRIES = 1 << 24  # of the reference's table of distances along an axis


def distance_transform(
    occupied: Bool[Tensor, "B Z Y X"], cell_size: Triple, max_distance: float = math.inf
) -> Float[Tensor, "B Z Y X"]:
    """Return each cell's distance to the nearest occupied cell, center to center, exactly.

    Separable over the axes (Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, 2012). Not
    differentiable.

    Args:
        occupied: grids.
        cell_size: (x, y, z) edge lengths, metres.
        max_distance: metres at which distances are capped, and what a grid without occupied cells is filled with; a
            small cap is also faster.

    Returns:
        float32, metres.

    Raises:
        ValueError: an edge length or `max_distance` is not positive.
    """
    if len(cell_size) != 3 or not all(0 < size < math.inf for size in cell_size):
        raise ValueError(f"cell_size must be three positive edge lengths (x, y, z), got {cell_size}")
    if not max_distance > 0:
        raise ValueError(f"max_distance must be positive, got {max_distance}")
    return _distance_transform(occupied, [float(size) for size in cell_size], float(max_distance))


def distance_field(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], grid: GridSpec, max_distance: float = math.inf
) -> Float[Tensor, "B Z Y X"]:
    """Return the distance from each cell of a grid to the nearest cell that holds a point, for each batch item.

    Args:
        xyz: points, metres; those outside the grid or not finite do not count.
        offsets: which of them belong to which item.
        grid: range and voxel size. A field is dense: 4 bytes a cell.
        max_distance: as `distance_transform`; finite where an item may be empty and the field is to be differentiated.
    """
    batch_offsets.check(offsets, len(xyz), "points")
    batch_size = len(offsets) - 1
    inside = xyz.isfinite().all(1) & grid.contains(xyz)
    cells = torch.where(inside[:, None], grid.index_xyz(xyz), 0)
    z, y, x = grid.shape
    item = batch_offsets.to_batch_index(offsets, len(xyz))
    key = ((item * z + cells[:, 2]) * y + cells[:, 1]) * x + cells[:, 0]
    # One more entry takes what is outside: no mask, no waiting for its count.
    marked = torch.zeros(batch_size * z * y * x + 1, dtype=torch.bool, device=xyz.device)
    marked[torch.where(inside, key, len(marked) - 1)] = True
    return distance_transform(marked[:-1].view(batch_size, z, y, x), grid.voxel_size, max_distance)


def sample_field(
    field: Float[Tensor, "B Z Y X"], grid: GridSpec, xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"]
) -> Float[Tensor, " N"]:
    """Read a dense field at points, trilinearly between cell centers; differentiable by points and field.

    Beyond the outermost centers the field continues as it is there, without slope. A point that is not a number reads
    as such and has no gradient.

    Args:
        field: values at cell centers, one grid for each batch item.
        grid: where the cells are; its shape is the field's.
        xyz: points, metres, in the dtype of the field.
        offsets: which of them belong to which item.

    Raises:
        ValueError: field, grid and offsets do not belong together.
    """
    batch_offsets.check(offsets, len(xyz), "points")
    expected = (len(offsets) - 1, *grid.shape)
    if tuple(field.shape) != expected:
        raise ValueError(
            f"field must be {expected} for this grid and {expected[0]} items, as [batch, z, y, x], got "
            f"{tuple(field.shape)}"
        )
    return _sample_field(field, xyz, offsets, list(grid.low), list(grid.voxel_size))


def _transform_reference(occupied: Tensor, cell_size: list[float], max_distance: float) -> Tensor:
    if occupied.numel() == 0:
        return occupied.float()
    squared = torch.where(occupied, 0.0, math.inf).double()
    for axis, size in zip((3, 2, 1), cell_size, strict=True):
        squared = _nearest_along(squared.movedim(axis, -1), size).movedim(-1, axis)
    return squared.sqrt().clamp_max(max_distance).float().contiguous()


def _nearest_along(squared: Tensor, size: float) -> Tensor:
    """Return min over j of squared[..., j] + (size * (i - j))^2."""
    places = torch.arange(squared.shape[-1], device=squared.device, dtype=torch.float64)
    apart = ((places[:, None] - places) * size).square()
    lines = squared.reshape(-1, squared.shape[-1])
    step = max(1, _MAX_ENTRIES // max(1, apart.numel()))
    return torch.cat([(chunk[:, None] + apart).amin(2) for chunk in lines.split(step)]).view(squared.shape)


def _corners(
    field: Tensor, xyz: Tensor, offsets: Tensor, low: list[float], size: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each point's eight cells the flat rows and weights (N, 8), and the slopes of the weights (N, 8, 3)."""
    _, z, y, x = field.shape
    limit = torch.tensor([x, y, z], device=xyz.device) - 1
    edge = xyz.new_tensor(size)
    position = (xyz - xyz.new_tensor(low)) / edge - 0.5
    between = (position >= 0) & (position <= limit)
    inside = position.nan_to_num(nan=0.0).clamp_min(0).minimum(limit.to(xyz.dtype))
    lower = inside.long().minimum(limit - 1).clamp_min(0)
    share = inside - lower
    upper = torch.tensor(list(itertools.product((0, 1), repeat=3)), device=xyz.device)
    cells = (lower[:, None] + upper).minimum(limit)
    item = batch_offsets.to_batch_index(offsets, len(xyz))[:, None]
    rows = ((item * z + cells[..., 2]) * y + cells[..., 1]) * x + cells[..., 0]
    factors = torch.where(upper.bool(), share[:, None], 1 - share[:, None])
    others = torch.stack([factors[..., 1] * factors[..., 2], factors[..., 2] * factors[..., 0],
                          factors[..., 0] * factors[..., 1]], 2)  # fmt: skip
    slopes = others * (2 * upper - 1) / edge * between[:, None]
    return rows, factors.prod(2), slopes


def _sample_reference(field: Tensor, xyz: Tensor, offsets: Tensor, low: list[float], size: list[float]) -> Tensor:
    rows, weights, _ = _corners(field, xyz, offsets, low, size)
    # A corner without weight may be infinite.
    values = torch.where(weights > 0, weights * field.flatten()[rows], 0.0).sum(1)
    return torch.where(xyz.isnan().any(1), math.nan, values)


def _sample_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    field, xyz, offsets, ctx.low, ctx.size = inputs
    ctx.save_for_backward(field, xyz, offsets)


def _sample_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    field, xyz, offsets = ctx.saved_tensors
    by_field = by_xyz = None
    if ctx.needs_input_grad[0]:
        by_field = _sample_field_spread(grad, field, xyz, offsets, ctx.low, ctx.size)
    if ctx.needs_input_grad[1]:
        by_xyz = _sample_field_backward(grad, field, xyz, offsets, ctx.low, ctx.size)
    return by_field, by_xyz, None, None, None


def _sample_backward_reference(
    grad: Tensor, field: Tensor, xyz: Tensor, offsets: Tensor, low: list[float], size: list[float]
) -> Tensor:
    rows, _, slopes = _corners(field, xyz, offsets, low, size)
    by_corner = torch.where(slopes != 0, slopes * field.flatten()[rows][:, :, None], 0.0)
    return torch.where(xyz.isnan().any(1, keepdim=True), 0.0, by_corner.sum(1) * grad[:, None])


def _spread_reference(
    grad: Tensor, field: Tensor, xyz: Tensor, offsets: Tensor, low: list[float], size: list[float]
) -> Tensor:
    rows, weights, _ = _corners(field, xyz, offsets, low, size)
    known = grad.where(~xyz.isnan().any(1), 0.0)
    return spread_weighted(known[:, None], rows, weights, field.numel()).view(field.shape)


_distance_transform = define_op(
    "distance_transform(Tensor occupied, float[] cell_size, float max_distance) -> Tensor",
    reference=_transform_reference,
    fake=lambda occupied, cell_size, max_distance: occupied.new_empty(occupied.shape, dtype=torch.float32),
)
_sample_field_backward = define_op(
    "sample_field_backward(Tensor grad, Tensor field, Tensor xyz, Tensor offsets, float[] low, float[] size) -> Tensor",
    reference=_sample_backward_reference,
    fake=lambda grad, field, xyz, offsets, low, size: torch.empty_like(xyz, memory_format=torch.contiguous_format),
)
_sample_field_spread = define_op(
    "sample_field_spread(Tensor grad, Tensor field, Tensor xyz, Tensor offsets, float[] low, float[] size) -> Tensor",
    reference=_spread_reference,  # spreads by an op that has kernels; nothing is gained by one of its own
    fake=lambda grad, field, xyz, offsets, low, size: torch.empty_like(field, memory_format=torch.contiguous_format),
)
_sample_field = define_op(
    "sample_field(Tensor field, Tensor xyz, Tensor offsets, float[] low, float[] size) -> Tensor",
    reference=_sample_reference,
    fake=lambda field, xyz, offsets, low, size: xyz.new_empty(xyz.shape[0]),
    setup_context=_sample_setup,
    backward=_sample_backward,
    autocast="float32",
)
