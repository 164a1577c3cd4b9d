"""Rigid motions of moving objects, fitted to closest points in both directions and judged against rest."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equilidar.flow.cluster_motion import ClusterMotion
from equilidar.flow.clustered_points import ClusteredPoints, cluster_sum
from equilidar.ops.neighbors import nearest
from equilidar.structures import PointCloudBatch


@dataclass(frozen=True)
class ObjectFit:
    """How motions are fitted, and when one is believed.

    Attributes:
        iterations: of closest points.
        gate: metres between partners at first.
        narrow: the same in the end.
        turn_rate: radians per second that objects turn at, as a standard deviation.
        far: metres from which a point counts as unexplained, however far it is.
        min_drop: metres by which a motion must bring the points concerned closer to their partners, on average.
        min_gain: the same as a fraction of their distance at rest; and `gain_per_shift` more for each metre of the
            shift: the farther, the likelier something fits by chance.
        gain_per_shift: see there.
    """

    iterations: int = 8
    gate: float = 0.9
    narrow: float = 0.25
    turn_rate: float = 0.5
    far: float = 0.5
    min_drop: float = 0.01
    min_gain: float = 0.05
    gain_per_shift: float = 0.03

    def __post_init__(self) -> None:
        if min(self.iterations, self.gate, self.narrow, self.turn_rate, self.far) <= 0:
            raise ValueError(
                f"flow.refine.fit: iterations, gate, narrow, turn_rate and far must be positive, got {self}"
            )
        if min(self.min_drop, self.min_gain, self.gain_per_shift) < 0:
            raise ValueError(f"flow.refine.fit: min_drop, min_gain and gain_per_shift must not be negative, got {self}")


@dataclass(slots=True)
class Scene:
    """What motions of objects are judged by.

    Attributes:
        objects: their points where they are in the source sweep.
        target: points of the target sweep about them.
        explained: (M,) metres from each of these to what rests; `far` at most.
        gap: (B,) seconds; 0.1 where it is not known.
    """

    objects: ClusteredPoints
    target: PointCloudBatch
    explained: Float[Tensor, " M"]
    gap: Float[Tensor, " B"]


def fit_motion(scene: Scene, start: ClusterMotion, fit: ObjectFit, steps: range) -> ClusterMotion:
    """Improve motions by closest points, weighted by Tukey's biweight; the gate falls.

    Object points ask for their nearest target points, and target points that nothing at rest explains better ask for
    the objects'. Without the second direction a car that is seen from its side may slide along itself.

    Args:
        scene: both sweeps.
        start: motions.
        fit: see there.
        steps: which of its iterations.
    """
    objects, motion = scene.objects, start
    # Few points close together tell no turn: a prior of the turn, against a noise of a tenth of a metre.
    gap = scene.gap.abs().nan_to_num(0.1).clamp_min(1e-3)
    stiff = 0.01 / (fit.turn_rate * gap).square()[objects.item]
    for iteration in steps:
        limit = fit.gate + (fit.narrow - fit.gate) * min(1.0, iteration / max(1.0, 0.7 * fit.iterations))
        moved = motion.apply(objects.xyz, objects.cluster)
        row, ahead = nearest(moved, objects.offsets, scene.target.xyz, scene.target.offsets, limit)
        own, back = nearest(scene.target.xyz, scene.target.offsets, moved, objects.offsets, limit)
        back = torch.where(back <= scene.explained, back, torch.inf)
        # Rows of objects' points and of target points, pair by pair.
        places = torch.cat([torch.arange(len(moved), device=row.device), own.clamp_min(0)])
        partners = torch.cat([row.clamp_min(0), torch.arange(len(own), device=row.device)])
        distance = torch.cat([ahead, back])
        weight = (1 - (distance / limit).clamp_max(1).square()).square()
        cluster = objects.cluster[places]
        center = motion.center[cluster, :2]
        p, q = objects.xyz[places, :2] - center, scene.target.xyz[partners, :2] - center
        motion = _nearest_motion(motion, p, q, weight, cluster, stiff)
    return motion


def _nearest_motion(
    old: ClusterMotion, p: Tensor, q: Tensor, weight: Tensor, cluster: Tensor, stiff: Tensor
) -> ClusterMotion:
    """Return the motions that bring p nearest to q (Kabsch in the plane); old ones where pairs are missing."""
    num = len(stiff)
    columns = torch.stack([weight, *(weight[:, None] * torch.cat([p, q], 1)).unbind(1)], 1)
    sums = cluster_sum(columns, cluster, num)
    total = sums[:, :1].clamp_min(1e-6)
    mean_p, mean_q = sums[:, 1:3] / total, sums[:, 3:5] / total
    a, b = p - mean_p[cluster], q - mean_q[cluster]
    dot, cross = (a * b).sum(1), a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    turns = cluster_sum(torch.stack([dot, cross], 1) * weight[:, None], cluster, num)
    yaw = torch.atan2(turns[:, 1], turns[:, 0] + stiff)
    cos, sin = yaw.cos(), yaw.sin()
    x, y = mean_p.unbind(1)
    shift = mean_q - torch.stack([cos * x - sin * y, sin * x + cos * y], 1)
    fitted = ClusterMotion(old.center, yaw, torch.cat([shift, old.shift[:, 2:]], 1))
    return fitted.where(total[:, 0] >= 2, old)


def judge(scene: Scene, motion: ClusterMotion, fit: ObjectFit) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return metres to the nearest partner at rest and after a motion, means over the same points concerned.

    These are the objects' points, and the target points that an object explains in either place.
    """
    objects, num = scene.objects, scene.objects.num_clusters
    found = []
    for xyz in (objects.xyz, motion.apply(objects.xyz, objects.cluster)):
        _, ahead = nearest(xyz, objects.offsets, scene.target.xyz, scene.target.offsets, fit.far)
        own, back = nearest(scene.target.xyz, scene.target.offsets, xyz, objects.offsets, fit.far)
        own = torch.where(back < scene.explained, own, -1)
        owner = torch.where(own >= 0, objects.cluster[own.clamp_min(0)], -1)
        found.append((ahead.clamp_max(fit.far), torch.minimum(back, scene.explained), owner))
    (ahead, back, owner), (ahead_then, back_then, owner_then) = found
    ones = torch.ones_like(ahead)
    sums = cluster_sum(torch.stack([ahead, ahead_then, ones], 1), objects.cluster, num)
    ones = torch.ones_like(back)
    # A target point counts once for each of the two objects that it may belong to.
    then = torch.where(owner == owner_then, back_then, scene.explained)
    sums += cluster_sum(torch.stack([back, then, ones], 1), owner, num)
    others = torch.where(owner == owner_then, -1, owner_then)
    sums += cluster_sum(torch.stack([scene.explained, back_then, ones], 1), others, num)
    mean = sums[:, :2] / sums[:, 2:].clamp_min(1)
    return mean[:, 0], mean[:, 1]


def believed(
    rest: Float[Tensor, " C"], cost: Float[Tensor, " C"], motion: ClusterMotion, fit: ObjectFit
) -> Bool[Tensor, " C"]:
    """Tell which motions fit enough better than rest."""
    share = fit.min_gain + fit.gain_per_shift * motion.shift[:, :2].norm(dim=1)
    return rest - cost > (share * rest).clamp_min(fit.min_drop)
