"""How high each point of a cloud stands above the ground, from the cloud alone.

The lowest return of each cell of a horizontal grid may be ground. From the level around the sensor the ground grows
outward, cell by cell and nearest first: a cell joins where its lowest return is no farther from the ground beside it
than a slope allows, and what lies between (gaps between rings, cars, houses) is bridged, with an allowance that grows
with the way. A plane through the cells around each place smooths what was found.

Region growing replaces a known height of the sensor: frames are the sensor's in some datasets and the vehicle's in
others.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from equilidar.compiled import compiled

_MAX_CELLS = 1024  # along each side of a grid
_STEPS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)


@dataclass(frozen=True)
class GroundSettings:
    """What ground may look like.

    Attributes:
        cell: edge length of a cell, metres.
        reach: metres to each side of the sensor within which ground is looked for.
        seed_radius: metres around the sensor within which its level is taken from the most frequent height.
        slope: rise of the ground over its run.
        tolerance: metres by which ground may leave the slope: roughness, kerbs, noise.
    """

    cell: float = 0.5
    reach: float = 100.0
    seed_radius: float = 20.0
    slope: float = 0.15
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if min(self.cell, self.reach, self.seed_radius, self.slope, self.tolerance) <= 0:
            raise ValueError(f"ground settings must be positive, got {self}")
        if 2 * self.reach > _MAX_CELLS * self.cell:
            raise ValueError(
                f"ground.reach={self.reach} needs more than {_MAX_CELLS} cells of {self.cell} m to a side; take a "
                "larger ground.cell"
            )


@dataclass(frozen=True, slots=True)
class GroundSurface:
    """The ground of one cloud, a plane for each cell of a grid around the sensor.

    Attributes:
        planes: (side, side, 3): height at the cell's middle, and slopes along x and y.
        reach: metres from the sensor to the grid's sides.
        cell: edge length of a cell, metres.
    """

    planes: Float64[np.ndarray, "S S 3"]
    reach: float
    cell: float

    def at(self, xy: Float[np.ndarray, "N 2"]) -> Float64[np.ndarray, " N"]:
        """Return the height of the ground at each place, metres; NaN where none was found near it."""
        return _height_at(xy, self.planes, self.reach, self.cell)


def fit_ground(points: Float[np.ndarray, "N 3"], settings: GroundSettings) -> GroundSurface:
    """Find the ground of one cloud, z up, whose sensor or vehicle is near the origin."""
    side = int(np.ceil(2 * settings.reach / settings.cell))
    lowest = _lowest(points, settings.reach, settings.cell, side)
    level = _seed_level(lowest, settings)
    if not np.isfinite(level):
        return GroundSurface(np.full((side, side, 3), np.nan), settings.reach, settings.cell)
    seeds = int(np.ceil(settings.seed_radius / settings.cell))
    found, surface = _grow(lowest, level, seeds, settings.slope, settings.tolerance, settings.cell)
    return GroundSurface(_smooth(found, surface, settings.tolerance, settings.cell), settings.reach, settings.cell)


def height_above_ground(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], settings: GroundSettings | None = None
) -> Float[Tensor, " N"]:
    """Return the height of each point above the ground, metres; NaN where no ground was found near it.

    Runs on the CPU wherever the points are.

    Args:
        xyz: points, z up; the sensor or its vehicle is near the origin.
        offsets: which of them belong to which item; each item has a ground of its own.
        settings: see there.
    """
    settings = settings or GroundSettings()
    points = xyz.detach().cpu().numpy()
    heights = np.full(len(points), np.nan, np.float32)
    for start, stop in itertools.pairwise(offsets.tolist()):
        if stop > start:
            own = points[start:stop]
            heights[start:stop] = own[:, 2] - fit_ground(own, settings).at(own[:, :2])
    return torch.from_numpy(heights).to(xyz)


def _seed_level(lowest: np.ndarray, settings: GroundSettings) -> float:
    """Return the most frequent height of the cells around the sensor, or around the origin's nearest that have any."""
    middle = (np.arange(len(lowest)) + 0.5) * settings.cell - settings.reach
    distance = np.hypot(middle[:, None], middle[None])
    measured = np.isfinite(lowest)
    if not measured.any():
        return np.nan
    radius = max(settings.seed_radius, float(distance[measured].min()) + settings.seed_radius / 2)
    heights = np.sort(lowest[measured & (distance < radius)])
    # The densest window of two tolerances to each side.
    width = 4 * settings.tolerance
    ends = np.searchsorted(heights, heights + width, side="right")
    start = int((ends - np.arange(len(heights))).argmax())
    return float(np.median(heights[start : ends[start]]))


@compiled
def _lowest(points, reach, cell, side):  # pragma: no cover - compiled
    """Return the lowest height of each cell, infinite where there is none; echoes from below ground are left out.

    A mirrored return lies alone: of a cell with three points or more the lowest is dropped where the next is much
    higher.
    """
    first = np.full((side, side), np.inf)
    second = np.full((side, side), np.inf)
    count = np.zeros((side, side), np.int32)
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
            continue
        i, j = int(np.floor((x + reach) / cell)), int(np.floor((y + reach) / cell))
        if not (0 <= i < side and 0 <= j < side):
            continue
        count[i, j] += 1
        if z < first[i, j]:
            first[i, j], second[i, j] = z, first[i, j]
        elif z < second[i, j]:
            second[i, j] = z
    for i in range(side):
        for j in range(side):
            if count[i, j] >= 3 and second[i, j] - first[i, j] > 0.5:
                first[i, j] = second[i, j]
    return first


@compiled
def _grow(lowest, level, seeds, slope, tolerance, cell):  # pragma: no cover - compiled
    """Return which cells are ground, and a height for each cell: its own where it is ground, else its neighbour's.

    Cells are visited nearest to a seed first. `way` is how far a cell is from ground that was measured.
    """
    side = len(lowest)
    found = np.zeros((side, side), np.bool_)
    seen = np.zeros((side, side), np.bool_)
    surface = np.full((side, side), np.nan)
    way = np.zeros((side, side))
    queue = np.empty((side * side, 2), np.int32)
    head, tail = 0, 0
    middle = side / 2 - 0.5
    nearest = np.inf
    for i in range(side):
        for j in range(side):
            if abs(lowest[i, j] - level) <= 2 * tolerance:
                nearest = min(nearest, np.hypot(i - middle, j - middle))
    for i in range(side):
        for j in range(side):
            near = np.hypot(i - middle, j - middle) <= max(seeds, nearest + 1)
            if near and abs(lowest[i, j] - level) <= 2 * tolerance:
                found[i, j] = seen[i, j] = True
                surface[i, j] = lowest[i, j]
                queue[tail] = i, j
                tail += 1
    while head < tail:
        i, j = queue[head]
        head += 1
        for di, dj in _STEPS:
            u, v = i + di, j + dj
            if not (0 <= u < side and 0 <= v < side):
                continue
            reached = way[i, j] + np.hypot(di, dj) * cell
            step = abs(lowest[u, v] - surface[i, j])
            is_ground = step <= tolerance + slope * min(reached, 10.0)
            if seen[u, v]:
                # Reached before from worse ground: a better neighbour may still claim it.
                if is_ground and not found[u, v] and reached < way[u, v]:
                    found[u, v], surface[u, v], way[u, v] = True, lowest[u, v], 0.0
                continue
            seen[u, v] = True
            if is_ground:
                found[u, v], surface[u, v] = True, lowest[u, v]
            else:
                surface[u, v], way[u, v] = surface[i, j], reached
            queue[tail] = u, v
            tail += 1
    return found, surface


def _smooth(found: np.ndarray, surface: np.ndarray, tolerance: float, cell: float) -> np.ndarray:
    """Return (side, side, 3): height at the cell's middle and slopes along x and y, of planes through ground cells."""
    planes = np.stack([surface, np.zeros_like(surface), np.zeros_like(surface)], -1)
    for _ in range(2):
        for half, fewest in ((9, 3), (3, 6)):
            _fit(found, surface, half, fewest, cell, planes)
        # What stands above the plane is no ground: the foot of a hedge, a sill.
        found = found & (np.abs(surface - planes[..., 0]) <= tolerance)
    return planes


@compiled
def _fit(found, surface, half, fewest, cell, planes):  # pragma: no cover - compiled
    """Fit a plane to the ground cells within `half` cells of each, in one pass over running sums of its columns."""
    side = len(found)
    columns = np.zeros((side, 6))
    ridge = 4.0 / (cell * cell)  # a level ground is likelier than a slope that few cells tell
    for i in range(side):
        # Sums over rows i - half .. i + half of: 1, di, z, di * di, di * z (rows are counted from i).
        for j in range(side):
            n = si = sz = sii = siz = 0.0
            for u in range(max(0, i - half), min(side, i + half + 1)):
                if found[u, j]:
                    d, z = float(u - i), surface[u, j]
                    n += 1.0
                    si += d
                    sz += z
                    sii += d * d
                    siz += d * z
            columns[j, 0], columns[j, 1], columns[j, 2], columns[j, 3], columns[j, 4] = n, si, sz, sii, siz
        for j in range(side):
            n = si = sj = sz = sii = sjj = sij = siz = sjz = 0.0
            for v in range(max(0, j - half), min(side, j + half + 1)):
                c = columns[v]
                if c[0] == 0.0:
                    continue
                d = float(v - j)
                n += c[0]
                si += c[1]
                sz += c[2]
                sii += c[3]
                siz += c[4]
                sj += d * c[0]
                sjj += d * d * c[0]
                sij += d * c[1]
                sjz += d * c[2]
            if n < fewest:
                continue
            mi, mj, mz = si / n, sj / n, sz / n
            a, b, c2 = sii - n * mi * mi + ridge, sij - n * mi * mj, sjj - n * mj * mj + ridge
            p, q = siz - n * mi * mz, sjz - n * mj * mz
            determinant = a * c2 - b * b
            gi, gj = (p * c2 - q * b) / determinant, (a * q - b * p) / determinant
            planes[i, j, 0] = mz - gi * mi - gj * mj
            planes[i, j, 1], planes[i, j, 2] = gi / cell, gj / cell


@compiled
def _height_at(xy, planes, reach, cell):  # pragma: no cover - compiled
    heights = np.full(len(xy), np.nan)
    side = len(planes)
    for n in range(len(xy)):
        x, y = xy[n, 0], xy[n, 1]
        if not (np.isfinite(x) and np.isfinite(y)):
            continue
        i, j = int(np.floor((x + reach) / cell)), int(np.floor((y + reach) / cell))
        if 0 <= i < side and 0 <= j < side:
            dx, dy = x + reach - (i + 0.5) * cell, y + reach - (j + 0.5) * cell
            heights[n] = planes[i, j, 0] + planes[i, j, 1] * dx + planes[i, j, 2] * dy
    return heights
