"""Uneven ground with kerbs: a smooth surface plus a step of pavement height at the edge of the road."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from equilidar.compiled import compiled

KERB_WIDTH = 0.08  # metres over which the kerb rises
FAR = 16.0  # the distance to the road is not followed further than this


@dataclass(frozen=True, slots=True)
class Ground:
    """A grid of 1 m cells, interpolated bilinearly and continued by its border values.

    Attributes:
        origin: (2,) world x, y of cell (0, 0).
        grid: (X, Y, 2) height of the ground without kerbs, and signed distance to the nearest kerb, negative on the
            road, at most `FAR`; metres. In one array, for the ray caster reads both.
        kerb: height of the pavement above the road, metres.
    """

    origin: Float64[np.ndarray, " 2"]
    grid: Float32[np.ndarray, "X Y 2"]
    kerb: float

    def heights(self, xy: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, " N"]:
        """Return the heights of the ground, metres."""
        out = np.empty(len(xy))
        _heights(self.origin, self.grid, self.kerb, xy, out)
        return out

    def bases(self, xy: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, " N"]:
        """Return the heights of the ground without kerbs, metres."""
        return self._interpolate(xy, 0)

    def edges(self, xy: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, " N"]:
        """Return the signed distances to the nearest kerb, negative on the road, metres."""
        return self._interpolate(xy, 1)

    def _interpolate(self, xy: np.ndarray, which: int) -> np.ndarray:
        out = np.empty((len(xy), 2))
        _interpolations(self.origin, self.grid, xy, out)
        return out[:, which]


@compiled
def _interpolate(origin, grid, x, y):  # pragma: no cover - compiled
    u = min(max(x - origin[0], 0.0), grid.shape[0] - 1.0001)
    v = min(max(y - origin[1], 0.0), grid.shape[1] - 1.0001)
    i, j = int(u), int(v)
    u -= i
    v -= j
    a, b, c, d = (1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v
    base = a * grid[i, j, 0] + b * grid[i, j + 1, 0] + c * grid[i + 1, j, 0] + d * grid[i + 1, j + 1, 0]
    edge = a * grid[i, j, 1] + b * grid[i, j + 1, 1] + c * grid[i + 1, j, 1] + d * grid[i + 1, j + 1, 1]
    return base, edge


@compiled
def height(origin, grid, kerb, x, y):  # pragma: no cover - compiled
    """Return the height of the ground at one point."""
    base, edge = _interpolate(origin, grid, x, y)
    return base + kerb * min(max(edge / KERB_WIDTH, 0.0), 1.0)


@compiled
def edge_at(origin, grid, x, y):  # pragma: no cover - compiled
    """Return the signed distance to the nearest kerb at one point."""
    return _interpolate(origin, grid, x, y)[1]


@compiled
def _heights(origin, grid, kerb, xy, out):  # pragma: no cover - compiled
    for i in range(len(xy)):
        out[i] = height(origin, grid, kerb, xy[i, 0], xy[i, 1])


@compiled
def _interpolations(origin, grid, xy, out):  # pragma: no cover - compiled
    for i in range(len(xy)):
        out[i, 0], out[i, 1] = _interpolate(origin, grid, xy[i, 0], xy[i, 1])


@compiled
def _splat(origin, edge, start, stop, half_width):  # pragma: no cover - compiled
    reach = FAR + half_width[0]
    for s in range(len(start)):
        ax, ay = start[s, 0], start[s, 1]
        bx, by = stop[s, 0] - ax, stop[s, 1] - ay
        length = max(bx * bx + by * by, 1e-9)
        i0 = max(0, int(min(ax, ax + bx) - origin[0] - reach))
        i1 = min(edge.shape[0], int(max(ax, ax + bx) - origin[0] + reach) + 2)
        j0 = max(0, int(min(ay, ay + by) - origin[1] - reach))
        j1 = min(edge.shape[1], int(max(ay, ay + by) - origin[1] + reach) + 2)
        for i in range(i0, i1):
            for j in range(j0, j1):
                px, py = origin[0] + i - ax, origin[1] + j - ay
                u = min(max((px * bx + py * by) / length, 0.0), 1.0)
                distance = math.hypot(px - u * bx, py - u * by) - half_width[s]
                if distance < edge[i, j]:
                    edge[i, j] = distance


def make_ground(
    start: Float64[np.ndarray, "S 2"],
    stop: Float64[np.ndarray, "S 2"],
    half_width: Float64[np.ndarray, " S"],
    rng: np.random.Generator,
    *,
    margin: float = 100.0,
    roughness: float | int = 1.0,
    kerb: float | None = None,
) -> Ground:
    """Build the ground around road segments.

    Args:
        start: where the centre lines' segments begin.
        stop: where they end.
        half_width: half of each segment's road width, metres.
        rng: draws hills, bumps and the height of the kerb.
        margin: metres of ground around the roads.
        roughness: factor of all unevenness; 0 gives a plane with kerbs.
        kerb: height of the pavement, metres; drawn where None.
    """
    corners = np.concatenate([start, stop])
    origin = np.floor(corners.min(0) - margin)
    shape = np.ceil(corners.max(0) + margin - origin).astype(int) + 1
    edge = np.full(shape, FAR)
    _splat(origin, edge, start, stop, half_width)
    x, y = np.arange(shape[0])[:, None] + origin[0], np.arange(shape[1])[None, :] + origin[1]
    base = np.zeros(shape)
    for wavelength, amplitude in ((170.0, 0.7), (85.0, 0.25), (31.0, 0.05), (13.0, 0.012)):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        k = 2 * np.pi / (wavelength * rng.uniform(0.8, 1.25))
        # A plane wave is the product of two: outer products spare a sine per cell.
        wave = np.exp(1j * (k * np.cos(angle) * x + phase)) * np.exp(1j * k * np.sin(angle) * y)
        base += roughness * amplitude * wave.real
    # Off the pavement the ground is rougher, and rises or falls away from the road.
    away = np.clip((edge - 2.5) / 10.0, 0.0, 1.0)
    bumps = rng.standard_normal(shape, dtype=np.float32)
    base += roughness * away * (0.045 * bumps + rng.uniform(-0.3, 0.8))
    # The road is crowned so that water runs off.
    base += 0.02 * roughness * np.clip(-edge, 0.0, 5.0)
    grid = np.stack([base, edge], -1).astype(np.float32)
    return Ground(origin, grid, float(rng.uniform(0.1, 0.16)) if kerb is None else kerb)
