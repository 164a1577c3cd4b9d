"""Points and voxels around centers, and features read there: the set-abstraction ops of PointNet++ (Qi et al., NeurIPS
2017), PV-RCNN and Voxel R-CNN, in the order that OpenPCDet's kernels have.
"""

import itertools

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.interpolate import cell_lookup, gather_weighted
from equilidar.ops.neighbors import k_nearest
from equilidar.structures import SparseVoxels
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.grid import IntTriple

_MAX_PAIRS = 1 << 22  # distances held at once


def ball_query(
    xyz: Float[Tensor, "N 3"],
    offsets: Int64[Tensor, " B1"],
    centers: Float[Tensor, "M 3"],
    center_offsets: Int64[Tensor, " C1"],
    radius: float,
    k: int,
) -> Int64[Tensor, "M k_max"]:
    """Return the first k points closer to each center than the radius.

    Args:
        xyz: points, metres.
        offsets: which of them belong to which item.
        centers: where to look.
        center_offsets: the same number of items.
        radius: metres; a point at exactly this distance is not found.
        k: how many.

    Returns:
        Rows of `xyz` in rising order; the first is repeated where fewer than k are found, -1 where none is. (OpenPCDet
        counts rows within their item, and gives row 0 and a mask where none is found.)

    Raises:
        ValueError: the numbers of items differ, or radius or k is not positive.
    """
    batch_offsets.check(offsets, len(xyz), "points")
    batch_offsets.check(center_offsets, len(centers), "centers")
    if len(offsets) != len(center_offsets):
        raise ValueError(
            f"offsets is for {len(offsets) - 1} items and center_offsets for {len(center_offsets) - 1}; both must be "
            "of one batch"
        )
    _check_ball(radius, k)
    return _ball_query(xyz, offsets, centers, center_offsets, radius, k)


def voxel_query(
    voxels: SparseVoxels,
    centers: Float[Tensor, "M 3"],
    batch_index: Int64[Tensor, " M"],
    max_range: IntTriple,
    radius: float,
    k: int,
) -> Int64[Tensor, "M k_max"]:
    """Return the first k voxels in the cells around each center (Voxel R-CNN, Deng et al., AAAI 2021).

    Args:
        voxels: in any order, each cell once; their positions are their centers.
        centers: where to look, metres.
        batch_index: item of each center.
        max_range: cells that are looked at to either side, (z, y, x).
        radius: metres from center to voxel; a voxel at exactly this distance is found, unlike in `ball_query`.
        k: how many.

    Returns:
        Voxel rows in the order of cells, x fastest, z slowest; the first is repeated where fewer than k are found, -1
        where none is.

    Raises:
        ValueError: a range is negative, or radius or k is not positive.
    """
    if len(max_range) != 3 or min(max_range) < 0:
        raise ValueError(f"max_range must be three numbers of cells (z, y, x), not negative, got {max_range}")
    _check_ball(radius, k)
    # The item of a center that is not finite is none.
    item = torch.where(centers.isfinite().all(1), batch_index, -1)
    cells = torch.cat([item[:, None], voxels.grid.index_zyx(centers, voxels.stride)], 1)
    limits = [voxels.batch_size, *voxels.shape]
    return _voxel_query(voxels.coords, voxels.centers().to(centers), limits, centers, cells, list(max_range), radius, k)


def three_nn(
    query: Float[Tensor, "N 3"],
    query_offsets: Int64[Tensor, " Q1"],
    reference: Float[Tensor, "M 3"],
    reference_offsets: Int64[Tensor, " R1"],
) -> tuple[Int64[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Find the three nearest reference points and their inverse-distance weights (PointNet++, equation 2, with p = 1).

    Returns:
        Rows of `reference`, nearest first, -1 where there are fewer, and weights: 1 / (distance + 1e-8) over their sum,
        zero where there is no point.
    """
    index, distance = k_nearest(query, query_offsets, reference, reference_offsets, 3)
    closeness = torch.where(index >= 0, 1 / (distance + 1e-8), 0.0)
    total = closeness.sum(1, keepdim=True)
    return index, closeness / torch.where(total > 0, total, 1.0)


def three_interpolate(
    features: Float[Tensor, "M C"], index: Int64[Tensor, "N 3"], weights: Float[Tensor, "N 3"]
) -> Float[Tensor, "N C"]:
    """Return the weighted sum of three rows of features for each point; differentiable by the features.

    Args:
        features: one row for each reference point.
        index: rows, -1 for none, as `three_nn` gives them.
        weights: of the rows.
    """
    return gather_weighted(features, index, weights.to(features.dtype))


def group(features: Float[Tensor, "N C"], index: Int64[Tensor, "*rows"]) -> Float[Tensor, "*rows C"]:
    """Return the features of rows, zero for row -1; differentiable by the features, their sum free of atomics.

    Args:
        features: one row for each point or voxel.
        index: rows of any shape: (M, k) as queries give them, or (M,) as `farthest_points` does for one item.
    """
    rows = index.reshape(-1, 1)
    weights = torch.ones_like(rows, dtype=features.dtype)
    return gather_weighted(features, rows, weights).view(*index.shape, features.shape[1])


def _check_ball(radius: float, k: int) -> None:
    if k < 1 or not radius > 0:
        raise ValueError(f"radius and k must be positive, got {radius} and {k}")


def _ball_reference(
    xyz: Tensor, offsets: Tensor, centers: Tensor, center_offsets: Tensor, radius: float, k: int
) -> Tensor:
    rows = offsets.new_full((len(centers), k), -1)
    bounds = zip(itertools.pairwise(center_offsets.tolist()), itertools.pairwise(offsets.tolist()), strict=True)
    for (start, stop), (first, last) in bounds:
        if start == stop or first == last:
            continue
        step = max(1, _MAX_PAIRS // (last - first))
        found = [_first_inside(chunk, xyz[first:last], radius, k) for chunk in centers[start:stop].split(step)]
        index = torch.cat(found)
        rows[start:stop] = torch.where(index < 0, -1, index + first)
    return rows


def _first_inside(centers: Tensor, xyz: Tensor, radius: float, k: int) -> Tensor:
    delta = centers[:, None] - xyz
    dx, dy, dz = delta.unbind(2)
    bound = xyz.new_tensor(radius)
    inside = dx * dx + dy * dy + dz * dz < bound * bound
    return _first_true(inside, k)


def _first_true(found: Tensor, k: int) -> Tensor:
    """Return the first k true columns of each row, padded by the first, -1 where there is none."""
    num = found.shape[1]
    places = torch.where(found, torch.arange(num, device=found.device), num)
    first = torch.cat([places.sort(1).values[:, :k], places.new_full((len(found), max(0, k - num)), num)], 1)
    first = torch.where(first < num, first, first[:, :1])
    return torch.where(first < num, first, -1)


def _voxel_reference(
    coords: Tensor,
    xyz: Tensor,
    limits: list[int],
    centers: Tensor,
    cells: Tensor,
    max_range: list[int],
    radius: float,
    k: int,
) -> Tensor:
    around = [range(-steps, steps + 1) for steps in max_range]
    shifts = torch.tensor(list(itertools.product((0,), *around)), device=cells.device)
    near = (cells[:, None] + shifts).flatten(0, 1)
    rows = cell_lookup(coords, near, limits).view(len(cells), len(shifts))
    if len(xyz) == 0:
        return rows.new_full((len(cells), k), -1)
    dx, dy, dz = (xyz[rows.clamp_min(0)] - centers[:, None]).unbind(2)
    bound = xyz.new_tensor(radius)
    slots = _first_true((rows >= 0) & (dx * dx + dy * dy + dz * dz <= bound * bound), k)
    return torch.where(slots < 0, -1, rows.gather(1, slots.clamp_min(0)))


_ball_query = define_op(
    "ball_query(Tensor xyz, Tensor offsets, Tensor centers, Tensor center_offsets, float radius, SymInt k) -> Tensor",
    reference=_ball_reference,
    fake=lambda xyz, offsets, centers, center_offsets, radius, k: offsets.new_empty(centers.shape[0], k),
    autocast="float32",
)
_voxel_query = define_op(
    "voxel_query(Tensor coords, Tensor xyz, int[] limits, Tensor centers, Tensor cells, int[] max_range, float radius,"
    " SymInt k) -> Tensor",
    reference=_voxel_reference,
    fake=lambda coords, xyz, limits, centers, cells, max_range, radius, k: cells.new_empty(centers.shape[0], k),
    autocast="float32",
)
