"""Pictures of sweeps: from above, and as the sensor sees them. Headless; no global state of matplotlib is touched."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from equilidar.structures import Boxes3D, Sweep

BACKGROUND, TEXT = "#0b0d12", "#d7dae0"
# Told apart by lightness too, for readers who do not see red and green.
CLASS_COLORS = (
    "#ffb000", "#4cc9f0", "#f15bb5", "#9ef01a", "#c8b6ff", "#ffffff", "#ff6b4a", "#00a896", "#8d99ae", "#ffe5a8",
)  # fmt: skip
_COLORS = ("height", "intensity")


def sweep_picture(
    sweep: Sweep,
    *,
    boxes: Boxes3D | None = None,
    class_names: Sequence[str] = (),
    flow: Float[torch.Tensor, "N 3"] | None = None,
    target_T_sensor: Float64[torch.Tensor, "4 4"] | None = None,
    radius: float | int = 40.0,
    color: str = "height",
) -> Figure:
    """Draw a sweep from above, and its range image below.

    Args:
        sweep: what was measured.
        boxes: drawn in both, coloured by label; a stroke leads from the centre to the front.
        class_names: of the labels, for the legend.
        flow: of each point, metres over the gap; drawn where it differs from the ego motion.
        target_T_sensor: the ego motion; without it `flow` is drawn as it is.
        radius: metres from the sensor to the border.
        color: "height" or "intensity" (first feature column).

    Raises:
        ValueError: unknown `color`, or a radius that is not positive.
    """
    if color not in _COLORS:
        raise ValueError(f"color must be one of {_COLORS}, got {color!r}")
    if radius <= 0:
        raise ValueError(f"radius must be positive, got {radius}")
    figure = Figure(figsize=(12.0, 14.2), facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    above, ahead = figure.subplots(2, 1, height_ratios=[12.0, 2.2])
    xyz = sweep.xyz.detach().cpu().numpy().astype(np.float64)
    if color == "intensity" and sweep.features.shape[1]:
        value = np.clip(sweep.features[:, 0].detach().cpu().numpy() / 0.6, 0, 1)
    else:
        value = np.clip((xyz[:, 2] + 2.2) / 4.5, 0, 1)
    draw_bev(above, xyz, value, radius)
    draw_range_image(ahead, xyz)
    if boxes is not None and len(boxes):
        _draw_boxes(above, boxes, class_names)
        _draw_boxes_ahead(ahead, boxes)
    if flow is not None:
        _draw_flow(above, xyz, flow, target_T_sensor, radius)
    above.set_title(f"{sweep.key}   {len(xyz):,} points", color=TEXT, fontsize=11)
    return figure


def save_picture(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, creating the folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, facecolor=figure.get_facecolor())


def draw_bev(axes: Axes, xyz: Float[np.ndarray, "N 3"], value: Float[np.ndarray, " N"], radius: float = 40.0) -> None:
    """Draw points from above, x (ahead) upwards and y (left) to the left, coloured by `value` in 0..1."""
    draw_colors(axes, xyz, np.asarray(colormaps["turbo"](0.08 + 0.9 * value))[:, :3], radius)


def draw_colors(
    axes: Axes,
    xyz: Float[np.ndarray, "N 3"],
    colors: Float[np.ndarray, "N 3"],
    radius: float | int = 40.0,
    rank: Float[np.ndarray, " N"] | None = None,
    pixels: int = 1200,
) -> None:
    """Draw points from above in given colours (RGB in 0..1).

    Of points in one pixel the one of the highest `rank` is seen; by default the highest point hides what is under it.
    """
    image = np.zeros((pixels, pixels, 3))
    row = np.floor((radius - xyz[:, 0]) * pixels / (2 * radius)).astype(np.int64)
    column = np.floor((radius - xyz[:, 1]) * pixels / (2 * radius)).astype(np.int64)
    inside = (row >= 0) & (row < pixels) & (column >= 0) & (column < pixels)
    rank = xyz[:, 2] if rank is None else rank
    order = np.flatnonzero(inside)[np.argsort(rank[inside], kind="stable")]
    image[:] = _rgb(BACKGROUND)
    image[row[order], column[order]] = colors[order]
    axes.imshow(image, extent=(radius, -radius, -radius, radius), interpolation="nearest")
    axes.plot(0, 0, marker=(3, 0, 0), color="white", markersize=8)
    _style(axes)
    axes.set_xlim(radius, -radius)
    axes.set_ylim(-radius, radius)
    axes.set_aspect("equal")


def range_image(
    xyz: Float[np.ndarray, "N 3"], rows: int = 48, columns: int = 1024
) -> tuple[Float[np.ndarray, "R C"], tuple[float, float]]:
    """Project points onto rows of equal elevation and columns of equal azimuth, keeping the nearest.

    Returns:
        Ranges in metres, NaN where there is no point; the lowest and highest elevation in degrees.
    """
    image = np.full((rows, columns), np.inf)
    distance = np.linalg.norm(xyz, axis=1)
    seen = distance > 1e-3
    xyz, distance = xyz[seen], distance[seen]
    if len(xyz) == 0:
        return np.full((rows, columns), np.nan), (-25.0, 5.0)
    elevation = np.degrees(np.arcsin(np.clip(xyz[:, 2] / distance, -1, 1)))
    low, high = (float(v) for v in np.percentile(elevation, [0.05, 99.95]))
    high = max(high, low + 1.0)
    row = np.clip((high - elevation) / (high - low) * rows, 0, rows - 1).astype(np.int64)
    azimuth = np.arctan2(xyz[:, 1], xyz[:, 0])
    column = np.clip((np.pi - azimuth) / (2 * np.pi) * columns, 0, columns - 1).astype(np.int64)
    np.minimum.at(image, (row, column), distance)
    return np.where(np.isfinite(image), image, np.nan), (low, high)


def draw_range_image(axes: Axes, xyz: Float[np.ndarray, "N 3"]) -> None:
    """Draw the range image: azimuth from behind over the left, ahead and the right; near is bright."""
    image, (low, high) = range_image(xyz)
    shade = 1.0 - np.log1p(np.clip(image, 2, 80) - 2) / np.log1p(78.0)
    pixels = colormaps["magma"](0.12 + 0.88 * shade)[:, :, :3]
    pixels[np.isnan(image)] = _rgb(BACKGROUND)
    axes.imshow(pixels, extent=(180, -180, low, high), aspect="auto", interpolation="nearest")
    _style(axes)
    axes.set_xlim(180, -180)
    axes.set_ylim(low, high)
    axes.set_xlabel("azimuth (degrees, left positive)", color=TEXT, fontsize=9)


def _draw_boxes(axes: Axes, boxes: Boxes3D, class_names: Sequence[str]) -> None:
    corners = boxes.corners()[:, :4, :2].detach().cpu().numpy()
    label, center = boxes.label.cpu().numpy(), boxes.center[:, :2].detach().cpu().numpy()
    front = (corners[:, 0] + corners[:, 1]) / 2
    for index in np.unique(label):
        own = label == index
        color = CLASS_COLORS[int(index) % len(CLASS_COLORS)]
        closed = np.concatenate([corners[own], corners[own][:, :1]], 1)[..., ::-1]
        strokes = np.stack([center[own], front[own]], 1)[..., ::-1]
        name = class_names[index] if 0 <= index < len(class_names) else f"class {index}"
        axes.add_collection(LineCollection(list(closed), colors=color, linewidths=1.3, label=f"{name} ({own.sum()})"))
        axes.add_collection(LineCollection(list(strokes), colors=color, linewidths=1.3))
    legend = axes.legend(loc="upper right", facecolor=BACKGROUND, edgecolor="#444444", fontsize=9)
    for text in legend.get_texts():
        text.set_color(TEXT)


def _draw_boxes_ahead(axes: Axes, boxes: Boxes3D) -> None:
    """Draw each box's outline in angles; boxes across the rear seam are left out."""
    corners = boxes.corners().detach().cpu().numpy()
    azimuth = np.degrees(np.arctan2(corners[..., 1], corners[..., 0]))
    elevation = np.degrees(np.arctan2(corners[..., 2], np.hypot(corners[..., 0], corners[..., 1])))
    left, right = azimuth.max(1), azimuth.min(1)
    low, high = elevation.min(1), elevation.max(1)
    outline = np.stack([[left, low], [right, low], [right, high], [left, high], [left, low]]).transpose(2, 0, 1)
    colors = [CLASS_COLORS[int(index) % len(CLASS_COLORS)] for index in boxes.label]
    whole = left - right < 180
    axes.add_collection(
        LineCollection(
            list(outline[whole]),
            colors=[color for color, keep in zip(colors, whole, strict=True) if keep],
            linewidths=0.7,
        )
    )


def _draw_flow(
    axes: Axes, xyz: np.ndarray, flow: torch.Tensor, motion: torch.Tensor | None, radius: float | int
) -> None:
    """Draw the flow that ego motion does not explain, one arrow per half metre."""
    moved = flow.detach().cpu().numpy().astype(np.float64)
    if motion is not None:
        matrix = motion.cpu().numpy()
        moved = moved - (xyz @ matrix[:3, :3].T + matrix[:3, 3] - xyz)
    dynamic = np.flatnonzero((np.linalg.norm(moved, axis=1) > 0.05) & (np.abs(xyz[:, :2]) < radius).all(1))
    _, first = np.unique(np.floor(xyz[dynamic, :2] / 0.5), axis=0, return_index=True)
    shown = dynamic[first]
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 0.5, "width": 0.0012, "color": "white"}
    axes.quiver(xyz[shown, 1], xyz[shown, 0], moved[shown, 1], moved[shown, 0], **arrows)


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def _style(axes: Axes) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(colors=TEXT, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color("#333844")
