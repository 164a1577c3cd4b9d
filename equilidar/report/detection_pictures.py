"""Pictures of detections beside ground truth, seen from above."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equilidar.report.pictures import BACKGROUND, TEXT, draw_bev
from equilidar.structures import Boxes3D, Detections

TRUTH_COLOR, FOUND_COLOR = "#9ef01a", "#ff4d6d"


def detections_picture(
    xyz: Float[torch.Tensor, "N 3"],
    truth: Boxes3D | None,
    found: Detections,
    *,
    title: str = "",
    radius: float = 40.0,
    min_score: float = 0.3,
) -> Figure:
    """Draw the boxes of one sweep from above, ahead upwards; a stroke leads from the center to the front.

    Args:
        xyz: the points, in the frame of the boxes.
        truth: ground truth, green; None where there is none to compare with.
        found: detections, red, the surer the more solid.
        title: of the picture.
        radius: metres from the sensor to the border.
        min_score: detections below are left out.
    """
    figure = Figure(figsize=(7.0, 7.2), facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = xyz.detach().cpu().numpy().astype(np.float64)
    draw_bev(axes, points, np.clip((points[:, 2] + 2.2) / 4.5, 0, 1) * 0.4, radius)
    kept = found.scores >= min_score
    handles = []
    if truth is not None:
        _outline(axes, truth, TRUTH_COLOR, np.full(len(truth), 0.7), 3.2)
        handles.append(Line2D([], [], color=TRUTH_COLOR, label=f"ground truth ({len(truth)})"))
    opacity = 0.5 + 0.5 * found.scores[kept].detach().cpu().numpy().clip(0.0, 1.0)
    _outline(axes, found.boxes.select(kept), FOUND_COLOR, opacity, 1.2)
    label = f"detections, score from {min_score} ({int(kept.sum())})"
    handles.append(Line2D([], [], color=FOUND_COLOR, label=label))
    axes.legend(handles=handles, loc="upper right", facecolor=BACKGROUND, edgecolor="#444444", labelcolor=TEXT)
    axes.set_title(title, color=TEXT, fontsize=10)
    return figure


def pictures_of_sweeps(
    sweeps: Sequence[tuple[str, Float[torch.Tensor, "N 3"], Boxes3D, Detections]], radius: float = 40.0
) -> dict[str, Figure]:
    """Return a picture for each (key, points, ground truth, detections), by a name that can be a file's."""
    return {
        key.replace("/", "_"): detections_picture(xyz, truth, found, title=key, radius=radius)
        for key, xyz, truth, found in sweeps
    }


def _outline(axes: Axes, boxes: Boxes3D, color: str, opacity: np.ndarray, width: float) -> None:
    if len(boxes) == 0:
        return
    corners = boxes.corners()[:, :4, :2].detach().cpu().numpy()
    center, front = boxes.center[:, :2].detach().cpu().numpy(), (corners[:, 0] + corners[:, 1]) / 2
    # Plotted as (y, x): ahead is up, left is left.
    closed = np.concatenate([corners, corners[:, :1]], 1)[..., ::-1]
    strokes = np.stack([center, front], 1)[..., ::-1]
    for lines in (closed, strokes):
        axes.add_collection(LineCollection(list(lines), colors=color, alpha=list(opacity), linewidths=width))
