"""Which clusters move: rest is believed until a motion explains a sweep better and leads to a free place."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.flow.clustered_points import ClusteredPoints, cluster_mean
from equilidar.flow.scanned_surface import ScannedSurface
from equilidar.ops.neighbors import nearest

_ROUNDS = 3


@dataclass(frozen=True)
class StaticPrior:
    """What a motion must show.

    Attributes:
        min_speed: metres per second below which a cluster rests (the field calls 0.5 m/s dynamic).
        gain: by how much the disagreement must fall.
        gain_per_metre: how much more of it for each metre of motion.
        most_disagreement: above, nothing is known of a cluster, and it rests.
        most_taken: part of the places where it lands that may be taken already by what rests.
        taken_radius: metres from a resting cluster within which a place is taken.
    """

    min_speed: float = 0.4
    gain: float = 0.08
    gain_per_metre: float = 0.1
    most_disagreement: float = 0.6
    most_taken: float = 0.5
    taken_radius: float = 0.3

    def __post_init__(self) -> None:
        if min(self.min_speed, self.gain, self.gain_per_metre, self.most_disagreement, self.most_taken) < 0:
            raise ValueError(f"static prior: thresholds must not be negative, got {self}")
        if self.taken_radius <= 0:
            raise ValueError(f"static prior: taken_radius must be positive, got {self.taken_radius}")


def moving_clusters(
    points: ClusteredPoints,
    target: ScannedSurface,
    length: Float[Tensor, " C"],
    gap: Float[Tensor, " C"],
    reach: Float[Tensor, " C"],
    at_rest: Float[Tensor, " C"],
    moved: Float[Tensor, " C"],
    landing: Int64[Tensor, " N"],
    prior: StaticPrior,
) -> Bool[Tensor, " C"]:
    """Tell which clusters move.

    Args:
        points: clusters.
        target: the surface where they land.
        length: of each cluster's motion, metres.
        gap: seconds.
        reach: metres beyond which nothing was searched.
        at_rest: disagreement without motion.
        moved: disagreement with it.
        landing: the target point nearest to each moved point, -1 if none.
        prior: what is asked.
    """
    shown = (length > prior.min_speed * gap) & (length < reach) & (moved < prior.most_disagreement)
    shown &= at_rest - moved > prior.gain + prior.gain_per_metre * length
    origin, _ = nearest(target.xyz, target.offsets, points.xyz, points.offsets, prior.taken_radius)
    holder = torch.where(origin >= 0, points.cluster[origin.clamp_min(0)], -1)[landing.clamp_min(0)]
    other = (landing >= 0) & (holder >= 0) & (holder != points.cluster)
    moving = shown
    # A place is free again where its holder turns out to move: cars in a queue.
    for _ in range(_ROUNDS):
        taken = other & ~moving[holder.clamp_min(0)]
        moving = shown & (cluster_mean(taken.float(), points.cluster, points.num_clusters) <= prior.most_taken)
    return moving
