"""Points sorted by the cluster that they belong to, and sums over clusters."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops.scatter import scatter_sum
from equilidar.structures import offsets as batch_offsets


def cluster_sum(values: Float[Tensor, "N *C"], cluster: Int64[Tensor, " N"], num_clusters: int) -> Tensor:
    """Sum rows by cluster, in their order: the same bits on every run."""
    columns = values.reshape(len(values), math.prod(values.shape[1:]))
    rows = torch.arange(len(values), device=values.device)
    total = scatter_sum(columns, rows, cluster, torch.ones_like(columns[:, 0]), num_clusters)
    return total.view(num_clusters, *values.shape[1:])


def cluster_mean(values: Float[Tensor, "N *C"], cluster: Int64[Tensor, " N"], num_clusters: int) -> Tensor:
    """Return the mean of each cluster's rows, zero for a cluster without any."""
    count = cluster_sum(values.new_ones(len(values)), cluster, num_clusters).clamp_min(1)
    return cluster_sum(values, cluster, num_clusters) / count.view(-1, *[1] * (values.dim() - 1))


def distinct_rows(rows: Int64[Tensor, "N K"]) -> tuple[Int64[Tensor, " N"], int]:
    """Number the distinct rows in the order of their columns, the first being the most significant.

    Returns:
        The number of each row, and how many numbers there are.
    """
    if len(rows) == 0:
        return rows.new_zeros(0), 0
    low = rows.amin(0)
    extent = rows.amax(0) - low + 1
    code = torch.zeros_like(rows[:, 0])
    for column in range(rows.shape[1]):
        code = code * extent[column] + (rows[:, column] - low[column])
    distinct, number = code.unique(return_inverse=True)
    return number, len(distinct)


@dataclass(slots=True)
class ClusteredPoints:
    """The points of C clusters, sorted by cluster; clusters are sorted by batch item.

    Attributes:
        xyz: (N, 3) metres.
        cluster: (N,) rising.
        item: (C,) batch item of each cluster.
        batch_size: number of items.
        sizes: (C,) points of each cluster, none empty.
        starts: (C,) its first row.
        center: (C, 3) mean of its points.
        offsets: (batch_size + 1,) of the points by item.
    """

    xyz: Float[Tensor, "N 3"]
    cluster: Int64[Tensor, " N"]
    item: Int64[Tensor, " C"]
    batch_size: int

    @classmethod
    def thinned(
        cls, xyz: Float[Tensor, "N 3"], cluster: Int64[Tensor, " N"], item: Int64[Tensor, " N"], batch_size: int,
        cell: float,
    ) -> "ClusteredPoints":  # fmt: skip
        """Replace the points of each cluster by their means in cubic cells.

        Args:
            xyz: points, metres.
            cluster: of each point, from 0, none left out, rising with `item`.
            item: of each point.
            batch_size: number of items.
            cell: edge length, metres.
        """
        num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
        cells = torch.cat([cluster[:, None], (xyz / cell).floor().long()], 1)
        number, count = distinct_rows(cells)
        owner = torch.zeros(count, dtype=torch.int64, device=xyz.device).index_copy_(0, number, cluster)
        items = torch.zeros(num_clusters, dtype=torch.int64, device=xyz.device).index_copy_(0, cluster, item)
        return cls(cluster_mean(xyz, number, count), owner, items, batch_size)

    @property
    def num_clusters(self) -> int:
        return len(self.item)

    @property
    def sizes(self) -> Int64[Tensor, " C"]:
        return torch.bincount(self.cluster, minlength=self.num_clusters)

    @property
    def starts(self) -> Int64[Tensor, " C"]:
        return self.sizes.cumsum(0) - self.sizes

    @property
    def center(self) -> Float[Tensor, "C 3"]:
        return cluster_mean(self.xyz, self.cluster, self.num_clusters)

    @property
    def offsets(self) -> Int64[Tensor, " B1"]:
        return batch_offsets.from_lengths(torch.bincount(self.item[self.cluster], minlength=self.batch_size))

    def spread_rows(self, most: int) -> Int64[Tensor, " M"]:
        """Return at most `most` rows of each cluster, evenly spread over its rows, in order."""
        sizes, starts = self.sizes, self.starts
        taken = sizes.clamp_max(most)
        cluster = torch.arange(self.num_clusters, device=taken.device).repeat_interleave(taken)
        place = torch.arange(len(cluster), device=taken.device) - (taken.cumsum(0) - taken)[cluster]
        return starts[cluster] + place * sizes[cluster] // taken[cluster]

    def at(self, rows: Int64[Tensor, " M"]) -> "ClusteredPoints":
        """Return some of the points, rows in order and at least one of each cluster."""
        return ClusteredPoints(self.xyz[rows], self.cluster[rows], self.item, self.batch_size)
