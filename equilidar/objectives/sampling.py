"""Choosing among matched points: at random by the samples' own seeds, each cell once, so many per cloud."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from equilidar.objectives.cells import cells_along, cells_of_points
from equilidar.ops.rulebook import cell_keys
from equilidar.structures import GridSpec, ViewPair
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.grid import IntTriple
from equilidar.structures.host_sync import rows_where
from equilidar.structures.seeding import random_keys

STREAM_PAIRS = 200


def sample_matches(
    views: ViewPair, grid: GridSpec, stride: IntTriple | None, max_pairs: int
) -> tuple[Int64[Tensor, "P 2"], Int64[Tensor, " B1"]]:
    """Choose matches at random, each cell of either view at most once.

    Two pairs in one cell would have the same feature vector, and be each other's false negatives.

    Args:
        views: the views and their matches.
        grid: grid of the cells.
        stride: (z, y, x) stride of the cells; None chooses among all matches.
        max_pairs: pairs per cloud, at most.

    Returns:
        The chosen matches, in their order, and their batch offsets. A cloud's choice depends on its seed and its
        points alone.
    """
    matches, offsets = views.matches, views.match_offsets
    item = batch_offsets.to_batch_index(offsets, len(matches))
    rank = _ranks(random_keys(offsets, len(matches), views.seeds, STREAM_PAIRS))
    chosen = torch.ones_like(item, dtype=torch.bool)
    if stride is not None:
        for column, view in enumerate((views.a, views.b)):
            xyz = view.points.xyz[matches[:, column]]
            cells = cells_of_points(grid, stride, xyz, item)
            group = _groups(cell_keys(cells, cells_along(grid, stride)))
            chosen &= _first_of_each(group, rank, chosen)
    chosen &= _place_sorted(item, rank, chosen) - offsets[item] < max_pairs
    return matches[rows_where(chosen, "number of sampled pairs")], batch_offsets.after_mask(offsets, chosen)


def _groups(keys: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Number the distinct keys by rising value; as `unique`'s inverse, without asking how many there are."""
    ordered, order = keys.sort()
    starts = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    return torch.empty_like(keys).index_copy(0, order, starts)


def _ranks(keys: Tensor) -> Int64[Tensor, " N"]:
    ranks = torch.empty_like(keys)
    ranks[keys.argsort(stable=True)] = torch.arange(len(keys), device=keys.device)
    return ranks


def _first_of_each(group: Tensor, rank: Tensor, among: Tensor) -> Bool[Tensor, " N"]:
    """Mark, of the rows `among`, the one of lowest rank in each group."""
    held = torch.where(among, rank, len(rank))
    # Groups are fewer than rows; asking how many would wait for the device.
    lowest = torch.full_like(rank, len(rank)).scatter_reduce(0, group, held, "amin")
    return among & (lowest[group] == rank)


def _place_sorted(item: Tensor, rank: Tensor, among: Tensor) -> Int64[Tensor, " N"]:
    """Return each row's place when sorted by item, rows `among` first, and then by rank."""
    order = rank.argsort()
    order = order[(item * 2 + (~among).long())[order].argsort(stable=True)]
    place = torch.empty_like(item)
    place[order] = torch.arange(len(item), device=item.device)
    return place
