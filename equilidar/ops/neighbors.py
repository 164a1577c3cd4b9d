"""Nearest points within a radius.

Distances are sqrt(dx * dx + dy * dy + dz * dz) in the dtype of the points, differences first: expanding to
|a|^2 - 2 ab + |b|^2 loses about a centimetre at 70 m in float32. Equal distances go to the lower row.
"""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from scipy.spatial import KDTree
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.structures import offsets as batch_offsets

_MAX_PAIRS = 1 << 22  # distances held at once
_TREE_FROM_PAIRS = 1 << 20  # below, all distances are faster than building a tree


class Neighbors(NamedTuple):
    """Nearest reference rows, by rising distance, then row.

    Attributes:
        index: row of the reference points, -1 where there is none.
        distance: metres, infinite where there is none.
    """

    index: Tensor
    distance: Tensor


def nearest(
    query: Float[Tensor, "N 3"],
    query_offsets: Int64[Tensor, " Q1"],
    reference: Float[Tensor, "M 3"],
    reference_offsets: Int64[Tensor, " R1"],
    radius: float = math.inf,
) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
    """Find for each query point the nearest reference point of the same batch item.

    Not differentiable: index the points to recompute a distance that should be. Points that are not finite have no
    neighbours and are none.

    Args:
        query: points, metres.
        query_offsets: which of them belong to which item.
        reference: points among which is searched.
        reference_offsets: the same number of items.
        radius: metres; a point at exactly this distance is found.

    Returns:
        Rows of `reference`, -1 where no point is within the radius, and distances, there infinite.

    Raises:
        ValueError: the numbers of items differ, or the radius is negative.
    """
    index, distance = k_nearest(query, query_offsets, reference, reference_offsets, 1, radius)
    return index[:, 0], distance[:, 0]


def k_nearest(
    query: Float[Tensor, "N 3"],
    query_offsets: Int64[Tensor, " Q1"],
    reference: Float[Tensor, "M 3"],
    reference_offsets: Int64[Tensor, " R1"],
    k: int,
    radius: float = math.inf,
) -> Neighbors:
    """Find the k nearest reference points; arguments as `nearest`.

    Returns:
        (N, k) rows and distances, nearest first; where fewer are within the radius the rest is -1 and infinite.
    """
    batch_offsets.check(query_offsets, len(query), "query")
    batch_offsets.check(reference_offsets, len(reference), "reference")
    if len(query_offsets) != len(reference_offsets):
        raise ValueError(
            f"query_offsets is for {len(query_offsets) - 1} items and reference_offsets for "
            f"{len(reference_offsets) - 1}; both must be of one batch"
        )
    if k < 1 or not radius >= 0:
        raise ValueError(f"k must be at least 1 and radius not negative, got {k} and {radius}")
    return Neighbors(*_k_nearest(query, query_offsets, reference, reference_offsets, k, radius))


def _k_nearest_reference(
    query: Tensor, query_offsets: Tensor, reference: Tensor, reference_offsets: Tensor, k: int, radius: float
) -> tuple[Tensor, Tensor]:
    index = query_offsets.new_full((len(query), k), -1)
    distance = query.new_full((len(query), k), math.inf)
    bounds = zip(
        itertools.pairwise(query_offsets.tolist()), itertools.pairwise(reference_offsets.tolist()), strict=True
    )
    for (start, stop), (first, last) in bounds:
        if start == stop or first == last:
            continue
        points, others = query[start:stop], reference[first:last]
        on_tree = query.device.type == "cpu" and len(points) * len(others) > _TREE_FROM_PAIRS
        found, away = (search_tree if on_tree else search_all)(points, others, k, radius)
        index[start:stop] = torch.where(found < 0, found, found + first)
        distance[start:stop] = away
    return index, distance


def search_all(query: Tensor, reference: Tensor, k: int, radius: float) -> Neighbors:
    """Search one cloud by all distances, in chunks: the specification."""
    step = max(1, _MAX_PAIRS // len(reference))
    chunks = [_search_chunk(chunk, reference, k, radius) for chunk in query.split(step)]
    return Neighbors(torch.cat([c.index for c in chunks]), torch.cat([c.distance for c in chunks]))


def _search_chunk(query: Tensor, reference: Tensor, k: int, radius: float) -> Neighbors:
    distance = _distance(query[:, None], reference[None])
    indices, distances = [], []
    for _ in range(k):
        index = distance.argmin(1, keepdim=True)  # the first of equal ones
        away = distance.gather(1, index)
        distance.scatter_(1, index, math.inf)
        found = away.isfinite() & (away <= radius)
        indices.append(torch.where(found, index, -1))
        distances.append(torch.where(found, away, math.inf))
    return Neighbors(torch.cat(indices, 1), torch.cat(distances, 1))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    dx, dy, dz = (a[..., i] - b[..., i] for i in range(3))
    # Rounded once, from float64: torch's float32 root is off by a bit on some machines, which would break ties there.
    return (dx * dx + dy * dy + dz * dz).double().sqrt().to(a.dtype).nan_to_num_(nan=math.inf)


def search_tree(query: Tensor, reference: Tensor, k: int, radius: float) -> Neighbors:
    """Search one cloud on the CPU by scipy's k-d tree; the same result as `search_all`, ties and rounding included.

    The tree's distances are in float64 and its choice among equals is arbitrary. So k + 1 neighbours are asked for,
    their distances computed anew and sorted; where the last two are too close to call, all points of that distance
    compete.
    """
    queried, held = query.isfinite().all(1).nonzero()[:, 0], reference.isfinite().all(1).nonzero()[:, 0]
    index = torch.full((len(query), k), -1)
    distance = query.new_full((len(query), k), math.inf)
    if len(queried) == 0 or len(held) == 0:
        return Neighbors(index, distance)
    finite_query, finite_reference = query[queried], reference[held]
    slack = 16 * torch.finfo(query.dtype).eps
    tree = KDTree(finite_reference.double().numpy())
    # The tree's bound is exclusive; the summand is for a radius of zero.
    bound = radius * (1 + slack) + 1e-30
    far, near = tree.query(finite_query.double().numpy(), k=k + 1, distance_upper_bound=bound)
    ranked = _ranked(finite_query, finite_reference, torch.from_numpy(near).long(), radius)
    found, away = ranked.index[:, :k], ranked.distance[:, :k]
    last, beyond = torch.from_numpy(far[:, k - 1]), torch.from_numpy(far[:, k])
    unclear = (last.isfinite() & (beyond <= last * (1 + slack))).nonzero()[:, 0]
    if len(unclear):
        # Points that coincide (padding at the origin) are asked for once.
        distinct, copy = finite_query[unclear].unique(dim=0, return_inverse=True)
        reach = last.new_empty(len(distinct)).index_copy_(0, copy, last[unclear] * (1 + slack))
        ranked = _ranked(distinct, finite_reference, _within(tree, distinct, reach), radius)
        found[unclear], away[unclear] = ranked.index[copy, :k], ranked.distance[copy, :k]
    index[queried] = torch.where(found < 0, found, held[found.clamp_min(0)])
    distance[queried] = away
    return Neighbors(index, distance)


def _within(tree: KDTree, query: Tensor, radius: Tensor) -> Tensor:
    """Return all rows within each query's own radius, padded with the number of rows: (N, largest number)."""
    lists = tree.query_ball_point(query.double().numpy(), radius.numpy())
    rows = [torch.tensor(row, dtype=torch.int64) for row in lists]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tree.n)


def _ranked(query: Tensor, reference: Tensor, candidates: Tensor, radius: float) -> Neighbors:
    """Sort (N, K) candidate rows by distance, then row; rows past the end of `reference` mean none."""
    candidates = candidates.sort(1).values
    distance = _distance(query[:, None], reference[candidates.clamp_max(len(reference) - 1)])
    found = (candidates < len(reference)) & (distance <= radius)
    distance, order = torch.where(found, distance, math.inf).sort(dim=1, stable=True)
    index = torch.where(found, candidates, -1).gather(1, order)
    return Neighbors(index, distance)


def _k_nearest_fake(
    query: Tensor, query_offsets: Tensor, reference: Tensor, reference_offsets: Tensor, k: int, radius: float
) -> tuple[Tensor, Tensor]:
    return query_offsets.new_empty(len(query), k), query.new_empty(len(query), k)


_k_nearest = define_op(
    "k_nearest(Tensor query, Tensor query_offsets, Tensor reference, Tensor reference_offsets, SymInt k, float radius)"
    " -> (Tensor, Tensor)",
    reference=_k_nearest_reference,
    fake=_k_nearest_fake,
    autocast="float32",
)
