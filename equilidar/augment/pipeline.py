"""From a batch of sweep pairs to the views that networks are shown."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from equilidar.augment.crop import Crop, GridCrop
from equilidar.augment.group import PARTS, SpatialGroup, check_parts, with_parts
from equilidar.ops.move_points import move_points
from equilidar.structures import (
    FlowField,
    GridSpec,
    PointCloudBatch,
    SweepPairBatch,
    TransformDraw,
    View,
    ViewPair,
    WarpedSource,
)
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import rows_where

STREAM_A, STREAM_B, STREAM_TEMPORAL = 0, 1, 2


@dataclass(frozen=True)
class ViewPipeline:
    """Draws transforms and builds the two views of the target sweep, and the source sweep with its warp.

    Everything is batched and stays on the batch's device. By default a full sweep is moved first and cropped then: a
    crop that turns with the points would tell the rotation's class by its outline (method: E-SSL3D, section 3.1).

    Attributes:
        grid: the range that the networks see; points outside are dropped from every view.
        group: the transforms.
        crop: region kept besides the grid: `GridCrop`, `FrontWedge` or `Disc`.
        crop_then_rotate: crop the sweep before it is moved, the ablation of the shortcut above.
        parts_a, parts_b: the parts of the group that each view gets.
        shared: parts whose draw both views have in common; with "yaw" the contrast between views holds no rotation
            while each view can still be classified.
        temporal: "view_a" shows the temporal branch view a and puts the same transform on the source sweep (two
            online passes); "separate" gives it a view of the target sweep of its own (three online passes).
        temporal_parts: parts that the separate view and the source sweep get; none of them is the printed form.
        ego_radius: returns within this horizontal distance of the sensor are dropped as the ego vehicle's, metres.
    """

    grid: GridSpec
    group: SpatialGroup
    crop: Crop = field(default_factory=GridCrop)
    crop_then_rotate: bool = False
    parts_a: Collection[str] = PARTS
    parts_b: Collection[str] = PARTS
    shared: Collection[str] = ()
    temporal: str = "view_a"
    temporal_parts: Collection[str] = ()
    ego_radius: float = 0.0

    def __post_init__(self) -> None:
        for name in ("parts_a", "parts_b", "shared", "temporal_parts"):
            object.__setattr__(self, name, check_parts(f"augment.{name}", getattr(self, name)))
        if self.temporal not in ("view_a", "separate"):
            raise ValueError(f"augment.temporal must be view_a or separate, got {self.temporal!r}")
        if self.ego_radius < 0:
            raise ValueError(f"augment.ego_radius must not be negative, got {self.ego_radius}")

    def __call__(self, batch: SweepPairBatch, flow: FlowField | None) -> ViewPair:
        """Build the views.

        Args:
            batch: sweep pairs, each sweep in its own sensor frame.
            flow: scene flow of the source points; None if no objective reads the source.
        """
        draw_a, draw_b = self.draw(batch.seeds)
        view_a, view_b = self._view(batch.target, draw_a), self._view(batch.target, draw_b)
        matches, match_offsets = match_views(view_a, view_b, len(batch.target.xyz))
        source, temporal = None, None
        if flow is not None:
            draw = draw_a
            if self.temporal == "separate":
                drawn = self.group.sample(batch.seeds, STREAM_TEMPORAL)
                draw = with_parts(drawn, self.temporal_parts)
                temporal = self._view(batch.target, draw)
            source = self._warped(batch.source, flow, draw)
        return ViewPair(view_a, view_b, source, matches, match_offsets, batch.seeds, batch.keys, temporal)

    def draw(self, seeds: Int64[Tensor, " B"]) -> tuple[TransformDraw, TransformDraw]:
        """Draw the transforms of views a and b."""
        drawn_a = self.group.sample(seeds, STREAM_A)
        drawn_b = with_parts(drawn_a, self.shared, self.group.sample(seeds, STREAM_B))
        return with_parts(drawn_a, self.parts_a), with_parts(drawn_b, self.parts_b)

    def _view(self, sweep: PointCloudBatch, draw: TransformDraw) -> View:
        view_T_sweep = draw.affine()
        moved, shown = move_points(sweep.xyz, sweep.offsets, view_T_sweep, self.grid)
        shown &= self.crop(sweep.xyz if self.crop_then_rotate else moved)
        if self.ego_radius > 0:
            shown &= sweep.xyz[:, :2].square().sum(1) > self.ego_radius**2
        origin = rows_where(shown, "number of points that a view shows")
        # Rows before an item's first are rows before it that are shown.
        offsets = torch.searchsorted(origin, sweep.offsets)
        points = PointCloudBatch(moved[origin], sweep.features[origin], offsets, sweep.channels)
        return View(points, origin, draw, view_T_sweep)

    def _warped(self, sweep: PointCloudBatch, flow: FlowField, draw: TransformDraw) -> WarpedSource:
        """Show the source sweep under `draw`, in its own frame, and say where the flow takes its points."""
        view = self._view(sweep, draw)
        valid = flow.valid[view.origin] & flow.flow[view.origin].isfinite().all(1)
        displacement = torch.where(valid[:, None], flow.flow[view.origin], 0.0)
        # Flow is a displacement between two sensor frames: it is added first, and the sum moved.
        warped = view.view_T_sweep.apply(sweep.xyz[view.origin] + displacement, view.points.offsets)
        return WarpedSource(view, warped, valid, torch.where(valid, flow.confidence[view.origin], 0.0))


def match_views(a: View, b: View, num_points: int) -> tuple[Int64[Tensor, "P 2"], Int64[Tensor, " B1"]]:
    """Find the points of one sweep that both views show.

    Args:
        a: one view.
        b: another view of the same sweeps.
        num_points: points of the uncropped batch.

    Returns:
        Rows of a.points and b.points that are the same physical point, in the order of a's points; batch offsets.
    """
    row_in_b = torch.full((num_points,), -1, dtype=torch.int64, device=a.origin.device)
    row_in_b[b.origin] = torch.arange(len(b.origin), device=b.origin.device)
    partner = row_in_b[a.origin]
    matched = partner >= 0
    rows = rows_where(matched, "number of points that both views show")
    matches = torch.stack([rows, partner[rows]], 1)
    return matches, batch_offsets.after_mask(a.points.offsets, matched)
