"""Flow from rigid motions of clusters (ICP-Flow): label-free, from two sweeps alone."""

import itertools
import logging
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from scipy.spatial import KDTree

from equilidar.flow.clusters import ClusterSettings, cluster_labels
from equilidar.flow.ego_refinement import check_direction, refined
from equilidar.flow.ground import GroundSettings, GroundSurface, fit_ground
from equilidar.flow.point_grid import PointGrid, build_grid, distances
from equilidar.flow.registration import Motions, RegistrationSettings, register
from equilidar.structures import FlowField, SweepPairBatch
from equilidar.structures.host_sync import allowed_sync

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class IcpFlow:
    """Ego motion, ground, clusters, and for each cluster the rigid motion that brings it onto the next sweep.

    After Lin & Caesar, "ICP-Flow: LiDAR Scene Flow Estimation with ICP", CVPR 2024; `registration` says what differs.
    Ground, and whatever does not move by more than `min_speed`, has the ego motion's flow. Runs on the host, one pair
    after the other, wherever the batch is; deterministic.

    Attributes:
        clearance: metres above ground from which points form clusters.
        skirt: metres above ground from which loose points (feet, sills) go with a cluster beside them.
        cling: metres to that cluster's nearest point.
        ceiling: metres above ground; what is higher, or reaches up to it, stands still.
        longest: metres; longer clusters stand still (walls, hedges).
        footing: metres above ground; what begins higher has no motion of its own, but may follow one.
        max_speed: metres per second, of objects.
        min_speed: metres per second; slower is standing still (the scene-flow field calls 0.5 m/s dynamic).
        max_gap: seconds; over longer gaps objects are not followed, and only what is found at rest is valid.
        spacing: metres to which clouds are thinned for registration.
        min_points: a sweep with fewer tells nothing: its pair's flow is the ego motion's, and not valid.
        refine_ego: correct the ego motion (x, y, turn) where upright structure fits clearly better so.
        ground: how ground is found.
        clusters: how clusters are found.
        registration: how their motions are found.
    """

    clearance: float = 0.2
    skirt: float = 0.08
    cling: float = 0.4
    ceiling: float = 4.5
    longest: float = 20.0
    footing: float = 1.0
    max_speed: float = 30.0
    min_speed: float = 0.5
    max_gap: float = 0.6
    spacing: float = 0.1
    min_points: int = 100
    refine_ego: bool = True
    ground: GroundSettings = field(default_factory=GroundSettings)
    clusters: ClusterSettings = field(default_factory=ClusterSettings)
    registration: RegistrationSettings = field(default_factory=RegistrationSettings)
    name: ClassVar[str] = "icp_flow"
    from_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.skirt <= self.clearance < self.ceiling:
            raise ValueError(
                "flow=icp_flow needs 0 <= skirt <= clearance < ceiling, got "
                f"skirt={self.skirt}, clearance={self.clearance}, ceiling={self.ceiling}"
            )
        if not 0 <= self.min_speed < self.max_speed:
            raise ValueError(
                f"flow=icp_flow needs 0 <= min_speed < max_speed, got min_speed={self.min_speed}, "
                f"max_speed={self.max_speed}"
            )
        if min(self.cling, self.longest, self.max_gap, self.spacing, self.min_points) <= 0:
            raise ValueError(
                "flow=icp_flow needs positive cling, longest, max_gap, spacing and min_points, got "
                f"cling={self.cling}, longest={self.longest}, max_gap={self.max_gap}, spacing={self.spacing}, "
                f"min_points={self.min_points}"
            )

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow.

        A point is valid unless its pair tells nothing (a sweep with few points, no overlap) or it has vanished: nothing
        of the target sweep is where its cluster should be. Confidence falls with the distance to the target's nearest
        point; on the ground it is one.

        Raises:
            ValueError: a pair's ego motion is that of the opposite direction, or its time stamps are not finite.
        """
        source, target = batch.source, batch.target
        moved = batch.target_T_source.apply(source.xyz, source.offsets)
        with allowed_sync("clusters are registered on the host"):
            back = batch.target_T_source.inverse().apply(source.xyz, source.offsets).cpu().numpy()
            forth, found = moved.cpu().numpy(), target.xyz.cpu().numpy()
            bounds = [itertools.pairwise(part.offsets.tolist()) for part in (source, target)]
            fields = []
            for key, gap, (first, last), (start, stop) in zip(batch.keys, batch.gap.tolist(), *bounds, strict=True):
                pair = _Pair(key, abs(gap), forth[first:last], back[first:last], found[start:stop])
                fields.append(self._estimate(pair))
            columns = [
                torch.from_numpy(np.concatenate(column)).to(moved.device) for column in zip(*fields, strict=True)
            ]
        beyond, valid, confidence = columns
        return FlowField(moved - source.xyz + beyond.to(moved), valid, confidence.to(moved))

    def _estimate(self, pair: "_Pair") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the motion of each point beyond the ego's, validity and confidence."""
        if not np.isfinite(pair.gap):
            raise ValueError(f"flow=icp_flow: pair {pair.key} spans {pair.gap} s; give its sweeps time stamps")
        number = len(pair.source)
        nothing = np.zeros((number, 3)), np.zeros(number, np.bool_), np.zeros(number)
        if min(number, len(pair.target)) < self.min_points:
            _LOG.warning(
                "icp_flow: pair %s has sweeps of %d and %d points, fewer than min_points=%d; its flow is not valid",
                *(pair.key, number, len(pair.target), self.min_points),
            )
            return nothing
        ground = fit_ground(np.concatenate([pair.source, pair.target]), self.ground)
        points, target = (_lifted(part, ground) for part in (pair.source, pair.target))
        above, kept = self._standing(points)
        grid = build_grid(target[self._standing(target)[1]])
        far = self.registration.far
        if len(kept):
            distance = distances(points[kept], far, grid).mean()
            if distance > 0.95 * far:
                _LOG.warning("icp_flow: the sweeps of pair %s do not overlap; its flow is not valid", pair.key)
                return nothing
            check_direction(points[kept], _lifted(pair.reversed_source[kept], ground), grid, distance, far, pair.key)
        moved = refined(points, kept, grid, far) if self.refine_ego else points.copy()
        lost = np.zeros(number, np.bool_)
        if pair.gap <= self.max_gap:
            labels = cluster_labels(
                torch.from_numpy(moved), torch.tensor([0, number]), torch.from_numpy(above), self.clusters
            ).numpy()
            if labels.max() >= 0:
                motions = self._motions(moved, labels, kept, grid, pair.gap)
                lost = (labels >= 0) & (motions.lost > 0.5)[labels]
                moved[:, :2] += motions.displacements(moved[:, :2], self._members(moved, labels, motions.moving))
        else:
            _LOG.warning(
                "icp_flow: pair %s spans %.2f s, more than max_gap=%g; what moves by itself is not followed",
                *(pair.key, pair.gap, self.max_gap),
            )
        beyond = np.pad(moved[:, :2] - points[:, :2], ((0, 0), (0, 1)))
        beyond[:, 2] = np.nan_to_num(ground.at(moved[:, :2]) - ground.at(points[:, :2]))
        confidence = np.where(above, 1 - distances(moved, far, grid) / far, 1.0)
        valid = ~lost if pair.gap <= self.max_gap else confidence > 0
        return beyond, valid, np.where(valid, confidence, 0.0)

    def _standing(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which points stand above the ground, and rows of these, one for each cell of `spacing`."""
        above = (points[:, 2] > self.clearance) & (points[:, 2] < self.ceiling)
        rows = np.flatnonzero(above & np.isfinite(points).all(1))
        if len(rows) == 0:
            return above, rows
        cell = np.floor(points[rows] / self.spacing).astype(np.int64)
        cell -= cell.min(0)
        _, columns, layers = (cell.max(0) + 1).tolist()
        _, first = np.unique((cell[:, 0] * columns + cell[:, 1]) * layers + cell[:, 2], return_index=True)
        return above, rows[np.sort(first)]

    def _motions(
        self, points: np.ndarray, labels: np.ndarray, kept: np.ndarray, target: PointGrid, gap: float
    ) -> Motions:
        """Register all clusters; only what is short, low and stands on the ground may start to move."""
        rows = np.flatnonzero(labels >= 0)
        rows = rows[np.argsort(labels[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(labels[rows], prepend=-1))
        low, high = (extreme.reduceat(points[rows], starts) for extreme in (np.minimum, np.maximum))
        may_follow = (np.hypot(*(high - low)[:, :2].T) < self.longest) & (high[:, 2] < self.ceiling - 0.3)
        may_move = may_follow & (low[:, 2] < self.footing)
        grid = build_grid(points[kept], labels[kept])
        options = self.max_speed * gap, gap, self.min_speed * gap, self.registration
        return register(points[kept], labels[kept], grid, target, may_move, may_follow, *options)

    def _members(self, points: np.ndarray, labels: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Return the moving cluster that each point goes with, -1 for none: its own, or the one that it clings to."""
        who = np.where((labels >= 0) & moving[labels], labels, -1)
        core = np.flatnonzero(who >= 0)
        loose = np.flatnonzero((labels < 0) & (points[:, 2] > self.skirt) & (points[:, 2] < self.ceiling))
        if len(core) and len(loose):
            distance, nearest = KDTree(points[core]).query(points[loose], distance_upper_bound=self.cling)
            clings = np.asarray(distance) < np.inf
            who[loose[clings]] = who[core[np.asarray(nearest)[clings]]]
        return who


class _Pair(NamedTuple):
    """One pair; the source after the ego motion and after its inverse."""

    key: str
    gap: float
    source: np.ndarray
    reversed_source: np.ndarray
    target: np.ndarray


def _lifted(xyz: np.ndarray, ground: GroundSurface) -> Float64[np.ndarray, "N 3"]:
    """Return x, y and the height above the ground."""
    return np.column_stack([xyz[:, :2], xyz[:, 2] - ground.at(xyz[:, :2])]).astype(np.float64)
