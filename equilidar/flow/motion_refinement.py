"""Rigid motions of clusters fitted to the scanned points themselves, finer than a grid tells, and judged by them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.flow.cluster_motion import ClusterMotion
from equilidar.flow.clustered_points import ClusteredPoints, cluster_mean, cluster_sum
from equilidar.flow.scanned_surface import ScannedSurface, shares
from equilidar.ops.neighbors import nearest

_FORWARD, _BACKWARD = 1.0, 0.6  # metres within which neighbours are looked for
_MAX_STEP, _MAX_TURN = 0.3, 0.05  # metres and radians of one step
_MAX_YAW = 0.3


@dataclass(frozen=True)
class RefinementSettings:
    """How motions are fitted and judged.

    Attributes:
        iterations: Gauss-Newton steps.
        tolerance: metres between a moved point and the surface at which they do not agree.
        tolerance_growth: metres more for each metre from the sensor.
        trim: tolerances at which a pair loses its weight; twice that in the first half of the steps.
        level: weight of a prior of no vertical shift, per square metre and pair.
        straight: the same of no turn, per square radian.
        backward: weight of what target points say, against what source points say, in the judgement.
    """

    iterations: int = 6
    tolerance: float = 0.12
    tolerance_growth: float = 0.004
    trim: float = 2.0
    level: float = 0.3
    straight: float = 0.005
    backward: float = 0.5

    def __post_init__(self) -> None:
        if self.tolerance <= 0 or self.trim <= 0:
            raise ValueError(f"refinement: tolerance and trim must be positive, got {self}")
        if min(self.iterations, self.tolerance_growth, self.level, self.straight, self.backward) < 0:
            raise ValueError(f"refinement: iterations and weights must not be negative, got {self}")

    def tolerances(self, xyz: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Return the tolerance of each point."""
        return self.tolerance + self.tolerance_growth * xyz.norm(dim=1)


@dataclass(slots=True)
class _Pairs:
    """Neighbours of moved points among a view's and the other way round.

    Attributes:
        row: (N,) nearest view point of each moved point, -1 if none.
        own: (M,) the moved points that are nearest to view points.
        place: (N + M, 3) the moved points of all pairs.
        apart: (N + M, 3) from them to the view's points.
        metric: (N + M, 3, 3) of the view's points.
        cluster: (N + M,).
        agreement: (N + M,) difference across the surface over the tolerance; infinite where there is no pair.
    """

    row: Tensor
    own: Tensor
    place: Tensor
    apart: Tensor
    metric: Tensor
    cluster: Tensor
    agreement: Tensor


def refine(
    points: ClusteredPoints, views: list[ScannedSurface], motion: ClusterMotion, settings: RefinementSettings
) -> ClusterMotion:
    """Fit motions by Gauss-Newton steps on pairs of nearest points, weighted robustly (Tukey's biweight).

    Differences count across the target's surface rather than along it: rings of beams stand still where cars do not.
    """
    tolerance = settings.tolerances(points.xyz)
    count = points.num_clusters
    prior = motion.shift.new_tensor([5e-4, 5e-4, settings.level, settings.straight])
    for step in range(settings.iterations):
        trim = settings.trim * (1 if 2 * step >= settings.iterations else 2)
        sums = motion.shift.new_zeros(count, 21)
        for view, share in zip(views, shares(views), strict=True):
            pairs = _pairs(points, view, motion, tolerance)
            weight = (1 - (pairs.agreement / trim).square()).clamp_min(0).square() * share[points.item][pairs.cluster]
            sums += cluster_sum(_normal_equations(pairs, motion, weight, view.ratio[points.item]), pairs.cluster, count)
        seen = 1 + sums[:, 20:]
        state = torch.cat([torch.zeros_like(motion.shift[:, :2]), motion.shift[:, 2:], motion.yaw[:, None]], 1)
        normal = sums[:, :16].view(-1, 4, 4) + torch.diag_embed(prior * seen)
        change = torch.linalg.solve(normal, sums[:, 16:20] - prior * seen * state)
        motion = ClusterMotion(
            motion.center,
            (motion.yaw + change[:, 3].clamp(-_MAX_TURN, _MAX_TURN)).clamp(-_MAX_YAW, _MAX_YAW),
            motion.shift + change[:, :3].clamp(-_MAX_STEP, _MAX_STEP),
        )
    return motion


def disagreement(
    points: ClusteredPoints, views: list[ScannedSurface], motion: ClusterMotion, settings: RefinementSettings
) -> tuple[Float[Tensor, " C"], Int64[Tensor, " N"]]:
    """Return how badly moved clusters fit the views, and where they land.

    Returns:
        The mean, over points, of the difference across the surface in tolerances, at most 1 each, plus the weighted
        mean of that from the views' points back; and the nearest point of the first view to each point, or -1.
    """
    tolerance = settings.tolerances(points.xyz)
    total = motion.shift.new_zeros(points.num_clusters)
    landing = []
    for view, share in zip(views, shares(views), strict=True):
        pairs = _pairs(points, view, motion, tolerance)
        bounded = pairs.agreement.clamp_max(1)
        forward, backward = bounded[: len(points.xyz)], bounded[len(points.xyz) :]
        own = cluster_mean(forward, points.cluster, points.num_clusters)
        returned = pairs.own >= 0
        owner = torch.where(returned, points.cluster[pairs.own.clamp_min(0)], -1)
        sums = cluster_sum(
            torch.stack([torch.where(returned, backward, 0.0), returned.to(backward.dtype)], 1),
            owner,
            points.num_clusters,
        )
        total += share[points.item] * (own + settings.backward * sums[:, 0] / sums[:, 1].clamp_min(1))
        landing.append(pairs.row)
    return total, landing[0]


def _pairs(points: ClusteredPoints, view: ScannedSurface, motion: ClusterMotion, tolerance: Tensor) -> _Pairs:
    moved = motion.apply(points.xyz, points.cluster, view.ratio[points.item])
    row, _ = nearest(moved, points.offsets, view.xyz, view.offsets, _FORWARD)
    own, _ = nearest(view.xyz, view.offsets, moved, points.offsets, _BACKWARD)
    here, there = own.clamp_min(0), row.clamp_min(0)
    place = torch.cat([moved, moved[here]])
    apart = torch.cat([view.xyz[there], view.xyz]) - place
    metric = torch.cat([view.metric[there], view.metric])
    across = (apart[:, None] @ metric @ apart[:, :, None])[:, 0, 0].clamp_min(0).sqrt()
    agreement = across / torch.cat([tolerance, tolerance[here]])
    agreement = torch.where(torch.cat([row, own]) >= 0, agreement, torch.inf)
    cluster = torch.cat([points.cluster, points.cluster[here]])
    return _Pairs(row, own, place, apart, metric, cluster, agreement)


def _normal_equations(pairs: _Pairs, motion: ClusterMotion, weight: Tensor, ratio: Tensor) -> Float[Tensor, "N 21"]:
    """Return of each pair, weighted: J^T M J (16 entries), J^T M r (4) and 1; unknowns are x, y, z and yaw."""
    arm = pairs.place - (motion.center + motion.shift * ratio[:, None])[pairs.cluster]
    zero = torch.zeros_like(arm[:, 0])
    turn = torch.stack([-arm[:, 1], arm[:, 0], zero], 1)
    eye = torch.eye(3, device=arm.device, dtype=arm.dtype).expand(len(arm), 3, 3)
    jacobian = torch.cat([eye, turn[:, :, None]], 2) * ratio[pairs.cluster, None, None]
    weighted = (pairs.metric @ jacobian * weight[:, None, None]).transpose(1, 2)
    normal, right = weighted @ jacobian, weighted @ pairs.apart[:, :, None]
    return torch.cat([normal.flatten(1), right[:, :, 0], weight[:, None]], 1)
