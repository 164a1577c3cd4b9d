"""Pairs of points, and features of cells, that scene flow relates between two sweeps."""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.neighbors import nearest
from equilidar.ops.scatter import scatter_max, scatter_sum
from equilidar.structures import Affine3
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
    _check_items(source_offsets, target_offsets, len(source_xyz), len(target_xyz), radius)
    match = _match(
        torch.where(valid[:, None], warped, torch.nan), source_offsets, target_xyz, target_offsets, radius, mutual
    )
    paired = match >= 0
    return torch.stack([paired.nonzero()[:, 0], match[paired]], 1)


class FlowPairing(NamedTuple):
    """What flow leads each source point to.

    Attributes:
        warped: (N, 3) source points in the frame of the target; not a number where the flow is unknown.
        match: (N,) rows of the target, -1 where a point is not paired.
        voxels: (N, 2) voxel rows of a pair's source and target point; -1 without a pair.
    """

    warped: Tensor
    match: Tensor
    voxels: Tensor


def pair_sweeps(
    source_xyz: Float[Tensor, "N 3"],
    flow: Float[Tensor, "N 3"],
    valid: Bool[Tensor, " N"],
    source_offsets: Int64[Tensor, " S1"],
    view: Affine3,
    target_xyz: Float[Tensor, "M 3"],
    target_offsets: Int64[Tensor, " T1"],
    radius: float,
    mutual: bool = False,
    source_voxels: Int64[Tensor, " N"] | None = None,
    target_voxels: Int64[Tensor, " M"] | None = None,
) -> FlowPairing:
    """Warp by flow and pose, match, check mutually and look up voxels, in one pass that waits for no device.

    Not differentiable: index the points to recompute a distance that should be.

    Args:
        source_xyz: points of the source sweep.
        flow: their displacement, metres, added before the map.
        valid: whose flow is known; the others neither pair nor compete.
        source_offsets: which source points belong to which item.
        view: maps a source point plus its flow to the frame of the target points, one for each item.
        target_xyz: points of the target sweep.
        target_offsets: the same number of items.
        radius: metres from warped to target point, at most.
        mutual: keep only pairs where the warped point is also the nearest one to the target point.
        source_voxels: voxel row of each source point, -1 for none; all -1 if None.
        target_voxels: of each target point.

    Raises:
        ValueError: the numbers of points or items differ.
    """
    if not len(source_xyz) == len(flow) == len(valid):
        raise ValueError(
            f"source_xyz, flow and valid must have one row per source point, got {len(source_xyz)}, {len(flow)} and "
            f"{len(valid)}"
        )
    _check_items(source_offsets, target_offsets, len(source_xyz), len(target_xyz), radius)
    if view.batch_size != len(source_offsets) - 1:
        raise ValueError(f"view has {view.batch_size} maps for a batch of {len(source_offsets) - 1} items")
    if source_voxels is None:
        source_voxels = torch.full_like(valid, -1, dtype=torch.int64)
    if target_voxels is None:
        target_voxels = source_voxels.new_full((len(target_xyz),), -1)
    linear, translation = view.linear.to(source_xyz.dtype), view.translation.to(source_xyz.dtype)
    return FlowPairing(
        *_flow_pairing(
            source_xyz, flow, valid, source_offsets, linear, translation, target_xyz, target_offsets, source_voxels,
            target_voxels, radius, mutual,
        )
    )  # fmt: skip


def _check_items(
    source_offsets: Tensor, target_offsets: Tensor, num_sources: int, num_targets: int, radius: float
) -> None:
    batch_offsets.check(source_offsets, num_sources, "source")
    batch_offsets.check(target_offsets, num_targets, "target")
    if len(source_offsets) != len(target_offsets):
        raise ValueError(
            f"source_offsets is for {len(source_offsets) - 1} items and target_offsets for "
            f"{len(target_offsets) - 1}; both must be of one batch"
        )
    if not radius >= 0:
        raise ValueError(f"radius must not be negative, got {radius}")


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
    if weights is None:
        weights = torch.ones_like(point_rows, dtype=torch.float32)
    rows, cells, share = _distinct_moves(point_rows, cell_rows, weights.float(), len(features), num_cells)
    one, places = share.new_ones(len(share)), torch.arange(len(share), device=share.device)
    total = scatter_sum(share[:, None], places, cells, one, num_cells)[:, 0]
    if reduction == "max":
        return scatter_max(features, rows, cells, num_cells)[0], total
    mean_share = share / total[cells.clamp_min(0)] if num_cells else share
    return scatter_sum(features, rows, cells, mean_share, num_cells), total


def _match_reference(
    warped: Tensor, source_offsets: Tensor, target: Tensor, target_offsets: Tensor, radius: float, mutual: bool
) -> Tensor:
    """Return the target row nearest to each warped point, -1 for none."""
    match, _ = nearest(warped, source_offsets, target, target_offsets, radius)
    if not mutual or len(target) == 0:
        return match
    back, _ = nearest(target, target_offsets, warped, source_offsets, radius)
    own = torch.arange(len(warped), device=warped.device)
    return torch.where((match >= 0) & (back[match.clamp_min(0)] == own), match, -1)


def _flow_pairing_reference(
    source: Tensor,
    flow: Tensor,
    valid: Tensor,
    source_offsets: Tensor,
    linear: Tensor,
    translation: Tensor,
    target: Tensor,
    target_offsets: Tensor,
    source_voxels: Tensor,
    target_voxels: Tensor,
    radius: float,
    mutual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    item = batch_offsets.to_batch_index(source_offsets, len(source))
    x, y, z = (source + flow)[:, None].unbind(2)
    # Products are added one by one: a matrix product rounds differently for different numbers of rows.
    moved = linear[item, :, 0] * x + linear[item, :, 1] * y + linear[item, :, 2] * z + translation[item]
    warped = torch.where(valid[:, None], moved, torch.nan)
    match = _match_reference(warped, source_offsets, target, target_offsets, radius, mutual)
    matched = target_voxels[match.clamp_min(0)] if len(target) else match
    voxels = torch.where((match >= 0)[:, None], torch.stack([source_voxels, matched], 1), -1)
    return warped, match, voxels


def _moves_reference(
    rows: Tensor, cells: Tensor, weights: Tensor, num_rows: int, num_cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort moves by row, then cell, and join equal ones: many fewer features to carry.

    The first of equal moves carries the sum of their weights; the others, and those of weight zero or of unknown row
    or cell, are -1 and weigh nothing. So the number of moves stays what the host knows.
    """
    known = (rows >= 0) & (rows < num_rows) & (cells >= 0) & (cells < num_cells) & (weights > 0)
    last = torch.iinfo(torch.int64).max
    keys, order = torch.where(known, rows * num_cells + cells, last).sort(stable=True)
    known = keys != last
    first = known & (keys != torch.cat([keys.new_full((1,), -1), keys[:-1]])[: len(keys)])
    group = (first.cumsum(0) - 1).clamp_min(0)
    joined = torch.zeros_like(weights).index_add_(0, group, torch.where(known, weights[order], 0.0))
    sums = torch.where(first, joined[group], 0.0)
    wide = max(1, num_cells)
    return torch.where(first, keys // wide, -1), torch.where(first, keys % wide, -1), sums


def _flow_pairing_fake(source: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    voxels = args[7]
    num = source.shape[0]
    return torch.empty_like(source), voxels.new_empty(num), voxels.new_empty(num, 2)


_match = define_op(
    "match_flow(Tensor warped, Tensor source_offsets, Tensor target, Tensor target_offsets, float radius, bool mutual)"
    " -> Tensor",
    reference=_match_reference,
    fake=lambda warped, source_offsets, *_: source_offsets.new_empty(warped.shape[0]),
    autocast="float32",
)
_flow_pairing = define_op(
    "flow_pairing(Tensor source, Tensor flow, Tensor valid, Tensor source_offsets, Tensor linear, Tensor translation,"
    " Tensor target, Tensor target_offsets, Tensor source_voxels, Tensor target_voxels, float radius, bool mutual)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_flow_pairing_reference,
    fake=_flow_pairing_fake,
    autocast="float32",
)
_distinct_moves = define_op(
    "distinct_moves(Tensor rows, Tensor cells, Tensor weights, SymInt num_rows, SymInt num_cells)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_moves_reference,
    fake=lambda rows, cells, weights, *_: (torch.empty_like(rows), torch.empty_like(cells), torch.empty_like(weights)),
)
