"""Scene flow by optimisation of each pair: a voxel grid of flow vectors, no training, no labels."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.flow.cluster_motion import ClusterMotion
from equilidar.flow.clustered_points import ClusteredPoints
from equilidar.flow.clusters import ClusterSettings, cluster_labels
from equilidar.flow.ground import GroundSettings, height_above_ground
from equilidar.flow.motion_refinement import RefinementSettings, disagreement, refine
from equilidar.flow.motion_search import SearchSettings, search_shifts
from equilidar.flow.scanned_surface import ScannedSurface, SurfaceSettings, common_grid
from equilidar.flow.static_prior import StaticPrior, moving_clusters
from equilidar.flow.voxel_flow import VoxelFlowSettings, optimise
from equilidar.ops.distance_transform import distance_field
from equilidar.ops.neighbors import nearest
from equilidar.structures import FlowField, PointCloudBatch, SweepPairBatch
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import allowed_sync


@dataclass(slots=True)
class FurtherSweeps:
    """Sweeps at another time than source and target, one for each pair.

    Attributes:
        points: in the target's frame; none where a pair has no such sweep.
        ratio: (B,) time from the source to them, over the time from the source to the target; negative before.
    """

    points: PointCloudBatch
    ratio: Float[Tensor, " B"]


@dataclass(frozen=True)
class GridFlow:
    """Ego motion, and for each cluster above ground the motion that carries it onto the target sweep.

    1. Ego motion is taken out; ground rests; what stands on it is clustered.
    2. For each cluster all horizontal shifts within reach are tried on the target's field of distances.
    3. From there a voxel grid of flow vectors is optimised: distances forward and backward, rigidity within clusters.
    4. The rigid motions nearest to it, and rest, are refined on the points; the better one is kept.
    5. A cluster moves only where that explains the target much better than rest (`StaticPrior`).

    After Floxels (Hoffmann et al., CVPR 2025) and Fast Neural Scene Flow (Li et al., ICCV 2023), which start from no
    motion, and ICP-Flow (Lin and Caesar, CVPR 2024), whose clusters and search of a start they lack. Deterministic.

    Attributes:
        min_height: metres above ground from which points count as standing on it, and are clustered.
        foot_height: metres above ground from which points below `min_height`, and those of no cluster, go with a moving
            cluster that is near them: feet, wheels.
        foot_radius: metres; how near.
        far_prior: by how much a motion from the search must agree better than one that was found from rest.
        support_radius: metres; a point without a target point that near to its end is not valid. Confidence falls
            linearly to zero there, and with the disagreement of the point's cluster.
        ground: how ground is found.
        clusters: how clusters are found.
        surface: how sweeps are thinned, and the field of distances.
        search: how far and how finely is searched.
        grid: how flow vectors are optimised.
        refinement: how motions are refined and judged.
        static: when a cluster is believed to move.
    """

    min_height: float = 0.15
    foot_height: float = 0.06
    foot_radius: float = 0.5
    far_prior: float = 0.05
    support_radius: float = 2.0
    ground: GroundSettings = field(default_factory=GroundSettings)
    clusters: ClusterSettings = field(default_factory=ClusterSettings)
    surface: SurfaceSettings = field(default_factory=SurfaceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    grid: VoxelFlowSettings = field(default_factory=VoxelFlowSettings)
    refinement: RefinementSettings = field(default_factory=RefinementSettings)
    static: StaticPrior = field(default_factory=StaticPrior)
    name: ClassVar[str] = "grid_flow"
    from_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (
            min(self.min_height, self.foot_height, self.far_prior) < 0
            or min(self.foot_radius, self.support_radius) <= 0
        ):
            raise ValueError(
                "flow=grid_flow needs min_height, foot_height, far_prior >= 0 and foot_radius, support_radius > 0, got "
                f"{self.min_height}, {self.foot_height}, {self.far_prior}, {self.foot_radius} and {self.support_radius}"
            )

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow of the source points.

        Points that are not finite, and those that end where the target sweep saw nothing, are not valid; the latter
        have the ego motion's flow or their cluster's.
        """
        return self.estimate(batch, [])

    def estimate(self, batch: SweepPairBatch, further: list[FurtherSweeps]) -> FlowField:
        """Return the flow of the source points, from more sweeps than two.

        Args:
            batch: the pairs.
            further: sweeps at other times, in the target's frame; none for the pair alone.
        """
        source, target = batch.source, batch.target
        # Outside of inference mode, for vectors are optimised.
        with torch.inference_mode(False), torch.no_grad(), allowed_sync("grid_flow: how many clusters there are"):
            moved = batch.target_T_source.apply(source.xyz, source.offsets)
            known = moved.isfinite().all(1)
            height = height_above_ground(source.xyz, source.offsets, self.ground)
            label = cluster_labels(source.xyz, source.offsets, known & (height > self.min_height), self.clusters)
            loose = known & (label < 0) & (height > self.foot_height)
            end, agreement = self._end(batch, further, moved, label, loose)
            _, distance = nearest(end, source.offsets, target.xyz, target.offsets, self.support_radius)
            valid = known & distance.isfinite()
            flow = torch.where(known[:, None], end - source.xyz, 0.0)
            return FlowField(flow, valid, torch.where(valid, agreement * (1 - distance / self.support_radius), 0.0))

    def _stands(self, points: PointCloudBatch) -> Bool[Tensor, " N"]:
        """Tell which points stand on the ground; none do where no ground is known."""
        return height_above_ground(points.xyz, points.offsets, self.ground) > self.min_height

    def _end(
        self,
        batch: SweepPairBatch,
        further: list[FurtherSweeps],
        moved: Float[Tensor, "N 3"],
        label: Int64[Tensor, " N"],
        loose: Bool[Tensor, " N"],
    ) -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"]]:
        """Return where points end, in the target's frame, and how well their clusters agree with it, 0..1.

        Args:
            batch: the pairs.
            further: see `estimate`.
            moved: source points after the ego motion.
            label: their clusters, -1 for none.
            loose: which of none may go with a cluster.
        """
        rows = (label >= 0).nonzero()[:, 0]
        sweeps = [FurtherSweeps(batch.target, torch.ones_like(batch.gap)), *further]
        standing = [sweep.points.select(self._stands(sweep.points)) for sweep in sweeps]
        if len(rows) == 0 or len(standing[0].xyz) == 0:
            return moved, torch.ones_like(moved[:, 0])
        item = batch.source.batch_index[rows]
        points = ClusteredPoints.thinned(moved[rows], label[rows], item, batch.batch_size, self.surface.thinning)
        grid = common_grid([points.xyz, *(cloud.xyz for cloud in standing)], self.surface)
        views = [
            ScannedSurface.of_points(cloud.xyz, cloud.batch_index, sweep.ratio, grid, self.surface)
            for cloud, sweep in zip(standing, sweeps, strict=True)
            if len(cloud.xyz)
        ]
        motion, moving, agreement = self._motions(points, views, batch.gap.abs())
        label = self._with_feet(batch.source, moved, label, loose, moving)
        carried = ((label >= 0) & moving[label.clamp_min(0)]).nonzero()[:, 0]
        end = moved.index_copy(0, carried, motion.apply(moved[carried], label[carried]))
        return end, torch.where(label >= 0, agreement[label.clamp_min(0)], 1.0)

    def _with_feet(
        self, source: PointCloudBatch, moved: Tensor, label: Tensor, loose: Tensor, moving: Bool[Tensor, " C"]
    ) -> Int64[Tensor, " N"]:
        """Return the labels, those of loose points near moving clusters being theirs."""
        body = (label >= 0) & moving[label.clamp_min(0)]
        ends = [batch_offsets.after_mask(source.offsets, mask) for mask in (loose, body)]
        row, _ = nearest(moved[loose], ends[0], moved[body], ends[1], self.foot_radius)
        owner = torch.where(row >= 0, label[body][row.clamp_min(0)], -1) if len(label[body]) else label[loose]
        return label.masked_scatter(loose, owner)

    def _motions(
        self, points: ClusteredPoints, views: list[ScannedSurface], gap: Float[Tensor, " B"]
    ) -> tuple[ClusterMotion, Bool[Tensor, " C"], Float[Tensor, " C"]]:
        """Return each cluster's best motion, which clusters move at all, and how well each agrees with the views."""
        rest = ClusterMotion.rest(points.center)
        source_field = distance_field(points.xyz, points.offsets, views[0].grid, self.surface.max_distance)
        shift = search_shifts(points, views, gap, self.search)
        flow = optimise(points, views, source_field, shift, self.grid)
        near = refine(points, views, rest, self.refinement)
        far = refine(points, views, ClusterMotion(rest.center, flow.yaw, flow.shift), self.refinement)
        at_rest, _ = disagreement(points, views, rest, self.refinement)
        at_near, landing_near = disagreement(points, views, near, self.refinement)
        at_far, landing_far = disagreement(points, views, far, self.refinement)
        is_far = at_far + self.far_prior < at_near
        motion = far.where(is_far, near)
        at_end = torch.where(is_far, at_far, at_near)
        moving = moving_clusters(
            points,
            views[0],
            motion.shift[:, :2].norm(dim=1),
            gap[points.item],
            self.search.reach(gap)[points.item] + self.surface.max_distance / 2,
            at_rest,
            at_end,
            torch.where(is_far[points.cluster], landing_far, landing_near),
            self.static,
        )
        worst = 1 + self.refinement.backward
        return motion, moving, 1 - torch.where(moving, at_end, at_rest) / worst
