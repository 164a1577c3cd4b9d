"""Line charts as inline SVG: small, sharp at any size, readable without scripts."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from equilidar.report.run_summary import Series

WIDTH, HEIGHT = 500, 250
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 34.0, 34.0
_MAX_POINTS = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of a chart: its name, its CSS class (which gives its color), its points."""

    name: str
    style: str
    series: Series


def line_chart(title: str, lines: Sequence[Line], reference: tuple[str, float] | None = None) -> str:
    """Return an SVG chart of values over training steps.

    Args:
        title: of the chart.
        lines: curves; those of more than 300 points are shown by means over equal numbers of points.
        reference: name and value of a horizontal line (chance level and the like).
    """
    drawn = [(line, thin(line.series)) for line in lines if len(line.series.steps)]
    values = np.concatenate([series.values for _, series in drawn] + [np.array([reference[1]] if reference else [])])
    x = Axis(0.0, max(float(series.steps[-1]) for _, series in drawn), LEFT, WIDTH - RIGHT)
    y = Axis(*padded(values), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        f'<text class="title" x="{LEFT}" y="18">{html.escape(title)}</text>',
        *_grid(x, y),
    ]
    for line, series in drawn:
        points = " ".join(
            f"{x.place(step):.1f},{y.place(value):.1f}" for step, value in zip(series.steps, series.values, strict=True)
        )
        hint = f"<title>{html.escape(line.name)}: {line.series.last:.4g} at the end</title>"
        if len(series.steps) == 1:
            cx, cy = points.split(",")
            parts.append(f'<circle class="{line.style}" cx="{cx}" cy="{cy}" r="3">{hint}</circle>')
        parts.append(f'<polyline class="{line.style}" points="{points}">{hint}</polyline>')
    if reference:  # over the curves, so that its name can be read
        at = y.place(reference[1])
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick over" x="{WIDTH - RIGHT}" y="{at - 4:.1f}" text-anchor="end">'
            f"{html.escape(reference[0])}</text>"
        )
    return "".join([*parts, "</svg>"])


def thin(series: Series, most: int = _MAX_POINTS) -> Series:
    """Return at most `most` points: means over equal numbers of neighbouring points."""
    size = math.ceil(len(series.steps) / most)
    if size <= 1:
        return series
    starts = np.arange(0, len(series.steps), size)
    counts = np.diff(np.append(starts, len(series.steps)))
    return Series(
        np.add.reduceat(series.steps, starts) / counts,
        np.add.reduceat(series.values, starts) / counts,
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values from `low` to `high` lie between `start` and `end` of a chart."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the coordinate of a value."""
        return self.start + (value - self.low) / (self.high - self.low or 1) * (self.end - self.start)

    def ticks(self, about: int = 5) -> Float64[np.ndarray, " N"]:
        """Return round numbers, about that many."""
        raw = (self.high - self.low or 1) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
        return np.arange(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1) * step


def padded(values: Float64[np.ndarray, " N"]) -> tuple[float, float]:
    """Return the range that an axis should show."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    margin = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.1
    return (low if low == 0 else low - margin), high + margin


def rows_of_grid(y: Axis) -> list[str]:
    """Return the horizontal lines with their numbers."""
    parts = []
    for tick in y.ticks():
        at = y.place(float(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    return parts


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = rows_of_grid(y)
    for tick in x.ticks():
        at = x.place(float(tick))
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{tick:,.10g}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step</text>')
    return parts
