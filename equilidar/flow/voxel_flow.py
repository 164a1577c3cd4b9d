"""Optimises a voxel grid of flow vectors under a distance-transform loss, forward and backward.

As Floxels (Hoffmann et al., CVPR 2025) has it: vectors stand on a grid of voxels, a point's flow is their trilinear
mean, the loss reads a field of distances to the other sweep (Fast Neural Scene Flow, Li et al., ICCV 2023), and
clusters are to move as one. Here each cluster has a layer of vectors of its own: a car and a wall beside it share none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.flow.cluster_motion import ClusterMotion
from equilidar.flow.clustered_points import ClusteredPoints, distinct_rows
from equilidar.flow.scanned_surface import ScannedSurface, shares
from equilidar.ops.distance_transform import sample_field
from equilidar.ops.interpolate import gather_weighted
from equilidar.ops.neighbors import nearest
from equilidar.structures import offsets as batch_offsets


@dataclass(frozen=True)
class VoxelFlowSettings:
    """How the vectors are optimised.

    Attributes:
        cell: edge length of their voxels, metres.
        iterations: steps of Adam; 0 leaves the flow as the search found it.
        learning_rate: metres that a step may move a vector by.
        backward: weight of the loss from target to source, against that from source to target.
        rigidity: weight of the squared difference to the cluster's own rigid motion, per square metre.
        level: weight of squared vertical flow, per square metre.
        points_per_cluster: more are thinned out, evenly.
        pull_radius: metres within which a target point is taken for the next sight of a cluster.
    """

    cell: float = 0.5
    iterations: int = 12
    learning_rate: float = 0.05
    backward: float = 0.5
    rigidity: float = 2.0
    level: float = 2.0
    points_per_cluster: int = 128
    pull_radius: float = 0.75

    def __post_init__(self) -> None:
        if self.cell <= 0 or self.learning_rate <= 0 or self.points_per_cluster < 1 or self.pull_radius <= 0:
            raise ValueError(
                f"voxel flow: cell, learning_rate, points_per_cluster, pull_radius must be > 0, got {self}"
            )
        if min(self.iterations, self.backward, self.rigidity, self.level) < 0:
            raise ValueError(f"voxel flow: iterations and weights must not be negative, got {self}")


class VoxelFlow:
    """Flow vectors at the corners around the points of each cluster.

    Attributes:
        vectors: (V, 3) metres.
        rows: (N, 8) of the vectors around each point.
        weights: (N, 8) trilinear.
    """

    def __init__(self, points: ClusteredPoints, cell: float, flow: Float[Tensor, "C 3"]) -> None:
        """Start from one vector for each cluster."""
        position = points.xyz / cell - 0.5
        low = position.floor()
        share = position - low
        upper = torch.cartesian_prod(*[torch.arange(2, device=low.device)] * 3)
        corners = low.long()[:, None] + upper
        layer = points.cluster[:, None, None].expand(-1, 8, 1)
        number, count = distinct_rows(torch.cat([layer, corners], 2).view(-1, 4))
        self.rows = number.view(-1, 8)
        self.weights = torch.where(upper.bool(), share[:, None], 1 - share[:, None]).prod(2)
        start = flow[points.cluster].repeat_interleave(8, 0)
        self.vectors = start.new_zeros(count, 3).index_copy_(0, number, start)

    def read(self) -> Float[Tensor, "N 3"]:
        """Return the flow of each point."""
        return gather_weighted(self.vectors, self.rows, self.weights)


def optimise(
    points: ClusteredPoints,
    views: list[ScannedSurface],
    source_field: Float[Tensor, "B Z Y X"],
    shift: Float[Tensor, "C 3"],
    settings: VoxelFlowSettings,
) -> ClusterMotion:
    """Optimise the flow of clusters and return the rigid motions nearest to it.

    Args:
        points: clusters.
        views: surfaces that they are to lie on, the target's first.
        source_field: distance from each cell of the target's grid to the source's points.
        shift: what to start from.
        settings: see there.
    """
    kept = points.at(points.spread_rows(settings.points_per_cluster))
    center = kept.center
    vectors = VoxelFlow(kept, settings.cell, shift)
    pulled, own, pulled_offsets = _next_sight(kept, views[0], shift, settings.pull_radius)
    # Each cluster counts alike, however many points it has.
    weight = 1 / kept.sizes[kept.cluster]
    pulled_weight = (
        settings.backward / torch.bincount(kept.cluster[own], minlength=kept.num_clusters)[kept.cluster[own]]
    )
    offsets, target, item = kept.offsets, views[0], kept.item[kept.cluster]
    seen = [
        (view, view.ratio[item, None], weight * share[item]) for view, share in zip(views, shares(views), strict=True)
    ]
    with torch.enable_grad():
        vectors.vectors.requires_grad_()
        adam = torch.optim.Adam([vectors.vectors], lr=settings.learning_rate, betas=(0.9, 0.95))
        for _ in range(settings.iterations):
            flow = vectors.read()
            rigid = ClusterMotion.fit(kept.xyz, flow.detach(), kept.cluster, center).apply(kept.xyz, kept.cluster)
            apart = (flow + kept.xyz - rigid).square().sum(1)
            loss = (weight * (settings.rigidity * apart + settings.level * flow[:, 2].square())).sum()
            for view, ratio, view_weight in seen:
                distance = sample_field(view.field, view.grid, kept.xyz + flow * ratio, offsets)
                loss = loss + (view_weight * distance).sum()
            back = sample_field(source_field, target.grid, pulled - flow[own], pulled_offsets)
            loss = loss + (pulled_weight * back).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        vectors.vectors.requires_grad_(False)
    return ClusterMotion.fit(kept.xyz, vectors.read(), kept.cluster, center)


def _next_sight(
    points: ClusteredPoints, target: ScannedSurface, shift: Float[Tensor, "C 3"], radius: float
) -> tuple[Float[Tensor, "M 3"], Int64[Tensor, " M"], Int64[Tensor, " B1"]]:
    """Return the target points near the clusters where they start from, the point of a cluster each, and offsets."""
    moved = points.xyz + shift[points.cluster]
    row, _ = nearest(target.xyz, target.offsets, moved, points.offsets, radius)
    found = (row >= 0).nonzero()[:, 0]
    lengths = torch.bincount(target.item[found], minlength=points.batch_size)
    return target.xyz[found], row[found], batch_offsets.from_lengths(lengths)
