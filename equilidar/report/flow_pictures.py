"""Pictures of scene flow from above: which way points move over ground, and how wrong an estimate is."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, hsv_to_rgb
from matplotlib.figure import Figure

from equilidar.report.pictures import BACKGROUND, TEXT, draw_colors

_ERRORS = (0.01, 1.0)  # metres, ends of the scale
_PIXELS = 420


def flow_picture(
    xyz: Float[np.ndarray, "N 3"],
    rest: Float[np.ndarray, "N 3"],
    truth: Float[np.ndarray, "N 3"],
    estimates: Mapping[str, Float[np.ndarray, "N 3"]],
    counted: Bool[np.ndarray, " N"],
    *,
    title: str = "",
    radius: float | int = 40.0,
    full: float | int = 1.0,
) -> Figure:
    """Draw the true motion over ground and, for each estimator, its motion and below it its error.

    The hue of motion is its direction (red ahead, yellow-green to the left, cyan back, violet to the right), its
    strength the distance, full at `full`; what rests is grey. Errors are on a logarithmic scale of 1 cm to 1 m.

    Args:
        xyz: source points.
        rest: flow that each would have if it stood still.
        truth: true flow.
        estimates: estimated flow by name.
        counted: points whose error counts; the others have no error drawn.
        title: of the figure.
        radius: metres from the sensor to the border.
        full: metres of motion at full colour.
    """
    columns = 1 + len(estimates)
    figure = Figure(figsize=(5.6 * columns, 11.2), facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False)
    _draw_motion(axes[0, 0], xyz, truth - rest, radius, full)
    axes[0, 0].set_title("true motion over ground", color=TEXT)
    _draw_wheel(axes[1, 0], full)
    for column, (name, estimate) in enumerate(estimates.items(), 1):
        _draw_motion(axes[0, column], xyz, estimate - rest, radius, full)
        axes[0, column].set_title(name, color=TEXT)
        error = np.linalg.norm(estimate - truth, axis=1)
        norm, scale = LogNorm(*_ERRORS, clip=True), colormaps["inferno"]
        colors = np.asarray(scale(0.12 + 0.88 * np.asarray(norm(np.maximum(error, 1e-6)))))[:, :3]
        draw_colors(axes[1, column], xyz[counted], colors[counted], radius, error[counted], _PIXELS)
        mean = error[counted].mean() if counted.any() else float("nan")
        axes[1, column].set_title(f"error, mean {100 * mean:.1f} cm", color=TEXT)
        bar = figure.colorbar(ScalarMappable(norm, scale), ax=axes[1, column], shrink=0.6)
        bar.ax.tick_params(colors=TEXT, labelsize=8)
        bar.set_label("metres", color=TEXT)
    figure.suptitle(title, color=TEXT)
    return figure


def motion_colors(motion: Float[np.ndarray, "N 3"], full: float | int = 1.0) -> Float[np.ndarray, "N 3"]:
    """Return RGB in 0..1: hue by the direction on the ground, saturation by the distance, grey at rest."""
    strength = np.clip(np.linalg.norm(motion, axis=1) / full, 0, 1) ** 0.5
    hue = (np.arctan2(motion[:, 1], motion[:, 0]) / (2 * np.pi)) % 1
    return hsv_to_rgb(np.stack([hue, strength, 0.4 + 0.6 * strength], 1))


def _draw_motion(axes: Axes, xyz: np.ndarray, motion: np.ndarray, radius: float | int, full: float | int) -> None:
    # What moves most is seen: movers are few, and what rests is everywhere.
    draw_colors(axes, xyz, motion_colors(motion, full), radius, np.linalg.norm(motion, axis=1), _PIXELS)


def _draw_wheel(axes: Axes, full: float | int) -> None:
    side = np.linspace(-1, 1, 201)
    y, x = np.meshgrid(-side, side[::-1])  # left is +y, up is +x
    motion = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    colors = motion_colors(motion * full, full).reshape(*x.shape, 3)
    colors[np.hypot(x, y) > 1] = [int(BACKGROUND[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    axes.imshow(colors, extent=(-1, 1, -1, 1))
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2, 2)
    axes.set_aspect("equal")
    axes.axis("off")
    for x_text, y_text, text in ((0, 1.12, "ahead"), (-1.1, 0, "left"), (0, -1.2, "back"), (1.1, 0, "right")):
        axes.text(x_text, y_text, text, color=TEXT, ha="center" if x_text == 0 else ("right" if x_text < 0 else "left"))
    axes.set_title(f"direction; full colour: {full:g} m and more", color=TEXT)
