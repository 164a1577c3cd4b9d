"""Objects in a cloud without ground: points that hang together.

Single linkage between the occupied cells of a fine grid, each at the mean of its points. How far two may be apart grows
with their distance from the sensor, as the spacing of its beams does; upward they may be farther apart than sideways,
for beams lie closer along a ring than across.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.compiled import compiled

_MAX_CELLS = 1 << 11  # along each side of a grid


@dataclass(frozen=True)
class ClusterSettings:
    """What hangs together.

    Attributes:
        cell: edge length of the grid's cells, metres; below the link.
        link: metres, horizontally, between points of one object.
        link_growth: metres added to the link for each metre from the sensor.
        rise: times the link that points may be apart in height.
        reach: metres to each side of the sensor within which clusters are looked for.
        min_points: fewer are no cluster.
    """

    cell: float = 0.2
    link: float = 0.3
    link_growth: float = 0.01
    rise: float = 2.0
    reach: float = 100.0
    min_points: int = 5

    def __post_init__(self) -> None:
        if min(self.cell, self.link, self.rise, self.reach, self.min_points) <= 0 or self.link_growth < 0:
            raise ValueError(f"cluster settings must be positive, got {self}")
        if 2 * self.reach > _MAX_CELLS * self.cell:
            raise ValueError(
                f"clusters.reach={self.reach} needs more than {_MAX_CELLS} cells of {self.cell} m to a side; take a "
                "larger clusters.cell"
            )


def cluster_labels(
    xyz: Float[Tensor, "N 3"],
    offsets: Int64[Tensor, " B1"],
    mask: Bool[Tensor, " N"] | None = None,
    settings: ClusterSettings | None = None,
) -> Int64[Tensor, " N"]:
    """Number the clusters of each item, from 0 through the whole batch, item by item; -1 for points of none.

    Runs on the CPU wherever the points are.

    Args:
        xyz: points, metres, the sensor near the origin.
        offsets: which of them belong to which item; clusters end there.
        mask: which points take part (those above ground); None for all.
        settings: see there.
    """
    settings = settings or ClusterSettings()
    inside = xyz.isfinite().all(1) & (xyz[:, :2].abs() < settings.reach).all(1)
    taken = (inside if mask is None else inside & mask).cpu().numpy()
    points = xyz.detach().cpu().numpy()
    labels = np.full(len(points), -1, np.int64)
    bounds, first = offsets.tolist(), 0
    for start, stop in itertools.pairwise(bounds):
        rows = start + np.flatnonzero(taken[start:stop])
        if len(rows) == 0:
            continue
        found, number = _label(points[rows], settings)
        labels[rows] = np.where(found < 0, -1, found + first)
        first += number
    return torch.from_numpy(labels).to(xyz.device)


def _label(points: np.ndarray, settings: ClusterSettings) -> tuple[np.ndarray, int]:
    side = int(np.ceil(2 * settings.reach / settings.cell))
    horizontal = ((points[:, :2] + settings.reach) / settings.cell).astype(np.int64)
    vertical = np.floor(points[:, 2] / (settings.cell * settings.rise)).astype(np.int64)
    vertical -= vertical.min()
    column = horizontal[:, 0] * side + horizontal[:, 1]
    layers = int(vertical.max()) + 1
    nodes, node, counts = np.unique(column * layers + vertical, return_inverse=True, return_counts=True)
    middles = np.stack([np.bincount(node, points[:, axis]) for axis in range(3)], 1) / counts[:, None]
    starts = np.searchsorted(nodes // layers, np.arange(side * side + 1))
    roots = _link(
        middles, nodes // layers, starts, side, settings.cell, settings.link, settings.link_growth, settings.rise
    )
    size = np.bincount(roots, counts, minlength=len(roots))
    kept = np.flatnonzero(size >= settings.min_points)
    number = np.full(len(roots), -1)
    number[kept] = np.arange(len(kept))
    return number[roots[node]], len(kept)


@compiled
def _root(parent, n):  # pragma: no cover - compiled
    while parent[n] != n:
        parent[n] = parent[parent[n]]
        n = parent[n]
    return n


@compiled
def _link(middles, columns, starts, side, cell, link, growth, rise):  # pragma: no cover - compiled
    """Return the lowest node of each node's component; nodes are sorted by column, `starts` are the columns' first."""
    parent = np.arange(len(middles))
    for n in range(len(middles)):
        x, y, z = middles[n]
        limit = link + growth * np.hypot(x, y)
        steps = int(np.ceil(limit / cell))
        i, j = columns[n] // side, columns[n] % side
        # Each pair is looked at from its first node; columns ahead hold the others.
        for u in range(i, min(side, i + steps + 1)):
            for v in range(max(0, j - steps) if u > i else j, min(side, j + steps + 1)):
                for m in range(starts[u * side + v], starts[u * side + v + 1]):
                    dx, dy, dz = middles[m, 0] - x, middles[m, 1] - y, abs(middles[m, 2] - z)
                    if m <= n or dx * dx + dy * dy > limit * limit or dz > rise * limit:
                        continue
                    a, b = _root(parent, n), _root(parent, m)
                    if a != b:
                        parent[max(a, b)] = min(a, b)
    for n in range(len(parent)):
        parent[n] = _root(parent, n)
    return parent
