"""From a center head's raw outputs to detections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.detection.center_predictions import BOX_CODES, CenterLayout, CenterPredictions, class_table
from equilidar.detection.decode import all_finite, rank_in_run
from equilidar.ops.nms import circle_nms, nms_batched
from equilidar.structures import Boxes3D, Detections
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import constants, rows_where
from equilidar.structures.moving import Movable

SUPPRESSIONS = ("rotated", "circle")


@dataclass(slots=True)
class CenterBoxes(Movable):
    """The likeliest centers of each sweep and task, by falling score.

    Attributes:
        boxes: (B, T, N, 7) x, y, z, length, width, height, yaw.
        velocities: (B, T, N, 2) metres per second, NaN where the head has none.
        scores: (B, T, N) probability.
        classes: (B, T, N) int64 index into the layout's classes.
        finite: (B,) bool, whether all raw outputs of the sweep were finite.
    """

    boxes: Float[Tensor, "B T N 7"]
    velocities: Float[Tensor, "B T N 2"]
    scores: Float[Tensor, "B T N"]
    classes: Int64[Tensor, "B T N"]
    finite: Bool[Tensor, " B"]


def decode_centers(predictions: CenterPredictions, max_candidates: int = 500) -> CenterBoxes:
    """Decode the `max_candidates` likeliest pairs of cell and class of each task, in float32.

    Neighbours are not suppressed on the heat map: that is left to the suppression of boxes, as in OpenPCDet.
    """
    layout = predictions.layout
    scores, task, classes, cell = _likeliest(predictions.heatmap.float().sigmoid(), layout, max_candidates)
    item = torch.arange(len(scores), device=scores.device)[:, None, None]
    codes = predictions.codes_at(item, task, cell).float()

    width = layout.shape[1]
    corner = torch.stack([cell % width, cell.div(width, rounding_mode="floor")], -1).to(codes.dtype)
    center = layout.to_metres(corner + codes[..., :2])
    yaw = torch.atan2(codes[..., 7:8], codes[..., 6:7])
    boxes = torch.cat([center, codes[..., 2:3], codes[..., 3:6].exp(), yaw], -1)
    velocity = codes[..., BOX_CODES:] if layout.has_velocity else torch.full_like(codes[..., :2], math.nan)
    return CenterBoxes(boxes, velocity, scores, classes, all_finite(predictions.heatmap, predictions.codes))


def _likeliest(
    probability: Float[Tensor, "B K H W"], layout: CenterLayout, max_candidates: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return score (B, T, N), task (T, 1), class (B, T, N) and cell (B, T, N); a score of -inf is no candidate."""
    batch, _, height, width = probability.shape
    task, place = class_table(layout, probability.device)
    most = max(len(names) for names in layout.tasks)
    # Tasks with fewer classes are filled up, so that all are ranked at once.
    filled = probability.new_full((batch, len(layout.tasks), most, height * width), -math.inf)
    filled[:, task, place] = probability.flatten(2)
    scores, best = filled.flatten(2).topk(min(max_candidates, most * height * width), 2)
    number = torch.arange(len(layout.tasks), device=task.device)[:, None]
    first = torch.searchsorted(task, number)
    classes = first + best.div(height * width, rounding_mode="floor")
    return scores, number, classes, best % (height * width)


@dataclass(frozen=True)
class CenterSelection:
    """Which decoded centers are detections; defaults as OpenPCDet's nuScenes configs (POST_PROCESSING).

    Suppression is within a sweep and task: of two boxes that suppress each other the lower-scored one is dropped.

    Attributes:
        score_threshold: only higher scores pass.
        center_range: x, y, z lowest and highest of centers that pass, metres; None lets all pass.
        max_candidates: of a sweep and task that are decoded.
        suppression: "rotated": boxes with more BEV IoU than `nms_iou` suppress each other; "circle": boxes whose
            centers are within their task's circle do.
        nms_iou: 0..1.
        circle_radii: of each task, metres: the square roots of CenterPoint's `min_radius`, see `ops.nms.circle_nms`.
        max_boxes: of a sweep and task that leave suppression.

    Raises:
        ValueError: `suppression` is none of those, or circles have no radii, or the range is no range.
    """

    score_threshold: float = 0.1
    center_range: Sequence[float | int] | None = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    max_candidates: int = 500
    suppression: str = "rotated"
    nms_iou: float = 0.2
    circle_radii: Sequence[float | int] | None = None
    max_boxes: int = 83

    def __post_init__(self) -> None:
        if self.suppression not in SUPPRESSIONS:
            raise ValueError(f"selection.suppression must be one of {', '.join(SUPPRESSIONS)}, got {self.suppression}")
        if self.suppression == "circle" and not self.circle_radii:
            raise ValueError("selection.suppression=circle needs selection.circle_radii, one radius for each task")
        if any(not radius > 0 for radius in self.circle_radii or ()):
            raise ValueError(f"selection.circle_radii must be positive, got {self.circle_radii}")
        bounds = self.center_range
        if bounds is not None and (len(bounds) != 6 or any(bounds[i] >= bounds[i + 3] for i in range(3))):
            raise ValueError(f"selection.center_range must be [x0, y0, z0, x1, y1, z1], got {list(bounds)}")
        if self.max_candidates < 1 or self.max_boxes < 1:
            raise ValueError("selection.max_candidates and selection.max_boxes must be at least 1")

    def check(self, layout: CenterLayout) -> None:
        """Raise ValueError unless there is a circle for each task, where circles are used."""
        if self.suppression == "circle" and len(self.circle_radii or ()) != len(layout.tasks):
            raise ValueError(
                f"selection.circle_radii must hold one radius for each of the {len(layout.tasks)} tasks, "
                f"got {self.circle_radii}"
            )

    def __call__(self, decoded: CenterBoxes) -> Detections:
        """Return what is left, by falling score in each sweep; `label` is the index among the head's classes."""
        batch, tasks, _ = decoded.scores.shape
        is_box = decoded.boxes.isfinite().all(-1)
        finite = decoded.finite & (is_box | (decoded.scores <= self.score_threshold)).flatten(1).all(1)
        rows = rows_where(self._usable(decoded).flatten(), "number of candidates")
        group = rows.div(decoded.scores.shape[2], rounding_mode="floor")  # item * tasks + task
        boxes, scores = decoded.boxes.flatten(0, 2)[rows], decoded.scores.flatten()[rows]
        kept = self._suppress(boxes, scores, group, tasks)

        by_group = kept[group[kept].argsort(stable=True)]  # then falling score
        kept = by_group[rank_in_run(group[by_group]) < self.max_boxes]
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        item = group.div(tasks, rounding_mode="floor")
        kept = kept[item[kept].argsort(stable=True)]
        offsets = batch_offsets.from_lengths((item[kept] == torch.arange(batch, device=item.device)[:, None]).sum(1))
        label = decoded.classes.flatten()[rows[kept]]
        velocity = decoded.velocities.flatten(0, 2)[rows[kept]]
        # On the ground plane: a height of NaN would spoil the rest wherever boxes are turned.
        velocity = torch.cat([velocity, velocity[:, :1] * 0], 1)
        best = boxes[kept]
        return Detections(
            Boxes3D.make(best[:, :3], best[:, 3:6], best[:, 6], label=label, velocity=velocity, offsets=offsets),
            scores[kept],
            finite,
        )

    def _usable(self, decoded: CenterBoxes) -> Bool[Tensor, "B T N"]:
        # An untrained or diverged head can give sizes that overflow; suppression must not see them.
        usable = decoded.boxes.isfinite().all(-1) & (decoded.scores > self.score_threshold)
        if self.center_range is not None:
            bounds = constants(self.center_range, device=usable.device, dtype=decoded.boxes.dtype)
            center = decoded.boxes[..., :3]
            usable &= ((center >= bounds[:3]) & (center <= bounds[3:])).all(-1)
        return usable

    def _suppress(self, boxes: Tensor, scores: Tensor, group: Tensor, tasks: int) -> Int64[Tensor, " K"]:
        """Return the kept rows by falling score."""
        if self.suppression == "rotated":
            return nms_batched(boxes, scores, self.nms_iou, group)
        # In units of each task's radius there is but one circle.
        radii = constants(self.circle_radii or (), device=boxes.device, dtype=torch.float64)
        return circle_nms(boxes[:, :2].double() / radii[group % tasks][:, None], scores.double(), 1.0, group)
