"""What a flow network calls moving, as objects whose rigid motions are fitted to the points of both sweeps."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from equilidar.flow.cluster_motion import ClusterMotion
from equilidar.flow.clustered_points import ClusteredPoints
from equilidar.flow.flow_network import FlowAnswer
from equilidar.flow.flow_pillars import PillarPair
from equilidar.flow.moving_objects import ObjectSettings, likely_shifts, mean_motion, moving_objects
from equilidar.flow.object_motion import ObjectFit, Scene, believed, fit_motion, judge
from equilidar.ops.neighbors import nearest
from equilidar.structures import PointCloudBatch
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import rows_where

_AROUND = 3  # squares around an object, at rest and moved, in which partners are looked for


@dataclass(frozen=True)
class ObjectRefinement:
    """Squares that move become objects, each with one turn about the vertical and one shift, or at rest.

    Two motions are tried for each object: the mean of its squares', and the shift that its squares together find
    likeliest. A third of the closest-point steps tells the better one; it takes the others, and is believed where it
    fits better than rest.

    Attributes:
        spacing: metres to which objects are thinned.
        skirt: metres above the lowest point nearby from which points (feet, sills) go with an object over them.
        objects: how objects are found.
        fit: how motions are fitted.
    """

    spacing: float = 0.1
    skirt: float = 0.08
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    fit: ObjectFit = field(default_factory=ObjectFit)

    def __post_init__(self) -> None:
        if self.spacing <= 0 or self.skirt < 0:
            raise ValueError(f"flow.refine: spacing must be positive and skirt not negative, got {self}")

    def __call__(
        self, source: PointCloudBatch, target: PointCloudBatch, pair: PillarPair, answer: FlowAnswer,
        threshold: float, gap: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:  # fmt: skip
        """Return motion over ground of each source point, and whether it moves.

        Args:
            source: moved into the target's frame by the ego motion.
            target: of the same items.
            pair: their pillars.
            answer: the network's.
            threshold: probability from which a square moves.
            gap: seconds from source to target.
        """
        still = torch.zeros_like(source.xyz)
        objects, num = moving_objects(answer, threshold, self.objects)
        if num == 0:
            return still, still[:, 0] > 0
        standing = torch.where(answer.rows >= 0, objects[answer.rows.clamp_min(0)], -1)
        mean = mean_motion(answer, objects, num)
        starts = [mean, torch.cat([likely_shifts(answer, objects, num), mean[:, 2:]], 1)]
        scene = self._scene(source, target, pair, answer, standing, starts, gap)
        centers = scene.objects.center
        quick = max(1, self.fit.iterations // 3)
        best, most = ClusterMotion.rest(centers), torch.full_like(centers[:, 0], -torch.inf)
        for shift in starts:
            start = ClusterMotion(centers, torch.zeros_like(most), shift)
            motion = fit_motion(scene, start, self.fit, range(quick))
            rest, cost = judge(scene, motion, self.fit)
            best, most = motion.where(rest - cost > most, best), torch.maximum(rest - cost, most)
        best = fit_motion(scene, best, self.fit, range(quick, self.fit.iterations))
        moves = believed(*judge(scene, best, self.fit), best, self.fit)
        member = self._members(source, pair, answer, objects, standing)
        moving = (member >= 0) & moves[member.clamp_min(0)]
        moved = best.apply(source.xyz, member.clamp_min(0))
        return torch.where(moving[:, None], moved - source.xyz, still), moving

    def _scene(
        self, source: PointCloudBatch, target: PointCloudBatch, pair: PillarPair, answer: FlowAnswer,
        standing: Int64[Tensor, " N"], starts: list[Float[Tensor, "C 3"]], gap: Float[Tensor, " B"],
    ) -> Scene:  # fmt: skip
        """Gather the objects' points, and what both sweeps hold around them, at rest and moved."""
        rows = rows_where(standing >= 0, "points of moving objects")
        rows = rows[standing[rows].argsort(stable=True)]
        own = standing[rows]
        objects = ClusteredPoints.thinned(
            source.xyz[rows], own, source.batch_index[rows], source.batch_size, self.spacing
        )
        grid = answer.squares
        places = [source.xyz[rows], *(source.xyz[rows] + shift[own] for shift in starts)]
        item = source.batch_index[rows]
        near = torch.zeros(grid.batch_size, *grid.shape[1:], device=rows.device)
        for xyz in places:
            y, x, inside = _cells(xyz, answer)
            near.view(-1)[(((item * near.shape[1]) + y) * near.shape[2] + x)[inside]] = 1.0
        near = F.max_pool2d(near[:, None], 2 * _AROUND + 1, 1, _AROUND)[:, 0] > 0
        there = _within(target, pair.target_rows >= 0, near, answer)
        here = _within(source, (answer.rows >= 0) & (standing < 0), near, answer)
        far = self.fit.far
        _, distance = nearest(there.xyz, there.offsets, here.xyz, here.offsets, far)
        return Scene(objects, there, distance.clamp_max(far), gap.to(distance))

    def _members(
        self, source: PointCloudBatch, pair: PillarPair, answer: FlowAnswer, objects: Int64[Tensor, " V"],
        standing: Int64[Tensor, " N"],
    ) -> Int64[Tensor, " N"]:  # fmt: skip
        """Return the object of each point: its square's; low points go with the object over them."""
        grid = answer.squares
        table = torch.full((grid.batch_size, *grid.shape[1:]), -1, device=objects.device)
        item, _, y, x = grid.coords.long().unbind(1)
        table[item, y, x] = objects
        low = rows_where((pair.rows < 0) & (pair.height > self.skirt), "low points about objects")
        y, x, inside = _cells(source.xyz[low], answer)
        member = standing.clone()
        member[low] = torch.where(inside, table[source.batch_index[low], y, x], -1)
        return member


def _cells(xyz: Tensor, answer: FlowAnswer) -> tuple[Tensor, Tensor, Tensor]:
    """Return the square of each point by y and x, and whether there is one."""
    squares = answer.squares
    _, y, x = squares.grid.index_zyx(xyz, squares.stride).unbind(1)
    _, high, wide = squares.shape
    inside = (x >= 0) & (x < wide) & (y >= 0) & (y < high)
    return y.clamp(0, high - 1), x.clamp(0, wide - 1), inside


def _within(points: PointCloudBatch, mask: Tensor, near: Tensor, answer: FlowAnswer) -> PointCloudBatch:
    """Return the points of a mask that lie in squares that are near."""
    y, x, inside = _cells(points.xyz, answer)
    kept = mask & inside & near[points.batch_index, y, x]
    rows = rows_where(kept, "points about moving objects")
    offsets = batch_offsets.after_mask(points.offsets, kept)
    return PointCloudBatch(points.xyz[rows], points.features[rows], offsets, points.channels)
