"""Roads: the route that the ego vehicle follows, with curves, junctions and turns, and the streets that branch off."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

STEP = 1.0  # metres between the points of a centre line
LANE = 3.6  # width of a driving lane
PARKING = 2.4  # width of a parking lane


@dataclass(frozen=True, slots=True)
class Street:
    """A two-way street with right-hand traffic, described along its centre line.

    Attributes:
        xy: (S, 2) points of the centre line, `STEP` apart.
        yaw: (S,) unwrapped heading.
        curvature: (S,) 1/m, positive to the left.
        parking: widths of the parking lane on the right and on the left, 0 without one.
        gaps: (G, 2) stations between which another street joins: nothing is put beside the road there.
    """

    xy: Float64[np.ndarray, "S 2"]
    yaw: Float64[np.ndarray, " S"]
    curvature: Float64[np.ndarray, " S"]
    parking: tuple[float, float]
    gaps: Float64[np.ndarray, "G 2"]

    @property
    def length(self) -> float:
        return (len(self.xy) - 1) * STEP

    @property
    def half_width(self) -> float:
        """Distance from the centre line to the kerbs: the same on both sides, so that it can be kept as one number."""
        return LANE + max(self.parking)

    def at(
        self, station: Float64[np.ndarray, " N"], lateral: Float64[np.ndarray, " N"] | float
    ) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
        """Return x, y and yaw at stations along the centre line, `lateral` metres to its left.

        Ends are continued as straight lines.
        """
        stations = np.arange(len(self.xy)) * STEP
        clipped = np.clip(station, 0.0, self.length)
        beyond = station - clipped
        yaw = np.interp(clipped, stations, self.yaw)
        cos, sin = np.cos(yaw), np.sin(yaw)
        x = np.interp(clipped, stations, self.xy[:, 0]) + beyond * cos - lateral * sin
        y = np.interp(clipped, stations, self.xy[:, 1]) + beyond * sin + lateral * cos
        return x, y, yaw

    def point(self, station: float, lateral: float) -> tuple[float, float, float]:
        """Return `at` for one station on the street."""
        index = min(max(int(station / STEP), 0), len(self.xy) - 2)
        weight = min(max(station / STEP - index, 0.0), 1.0)
        x, y = (float(v) for v in self.xy[index] * (1 - weight) + self.xy[index + 1] * weight)
        yaw = float(self.yaw[index] * (1 - weight) + self.yaw[index + 1] * weight)
        return x - lateral * math.sin(yaw), y + lateral * math.cos(yaw), yaw

    def in_gap(self, station: float, reach: float) -> bool:
        """Tell whether a thing of half length `reach` at `station` would stand in a junction."""
        return bool(np.any((station + reach > self.gaps[:, 0]) & (station - reach < self.gaps[:, 1])))

    def bends(self, station: float, lateral: float, reach: float = 4.0) -> bool:
        """Tell whether the street curves too sharply there for things beside it to keep their distances."""
        near = self.curvature[max(0, int(station - reach)) : int(station + reach) + 2]
        return bool(np.any(near * lateral > 0.6))


@dataclass(frozen=True, slots=True)
class Layout:
    """All streets of a scene; the first one is the route.

    Attributes:
        streets: the route and its branches.
        start: station of the route where the ego vehicle is at time 0.
    """

    streets: tuple[Street, ...]
    start: float

    def segments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the centre lines as segments: starts, ends and half widths."""
        starts = np.concatenate([street.xy[:-1:2] for street in self.streets])
        stops = np.concatenate([street.xy[np.minimum(np.arange(2, len(street.xy) + 1, 2), len(street.xy) - 1)]
                                for street in self.streets])  # fmt: skip
        widths = np.concatenate([np.full(len(street.xy[:-1:2]), street.half_width) for street in self.streets])
        return starts, stops, widths


def _trace(curvature: np.ndarray, start: np.ndarray, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Integrate a curvature per step into points and headings."""
    heading = yaw + np.concatenate([[0.0], np.cumsum(curvature[:-1]) * STEP])
    middle = heading[:-1] + curvature[:-1] * STEP / 2
    steps = STEP * np.stack([np.cos(middle), np.sin(middle)], 1)
    return np.concatenate([[start], start + np.cumsum(steps, 0)]), heading


def _smooth(curvature: np.ndarray, width: int) -> np.ndarray:
    """Round off the changes of curvature, as clothoids do; the total turn stays."""
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(curvature, width, mode="edge"), kernel / kernel.sum(), mode="same")[width:-width]


def _route_curvature(rng: np.random.Generator, length: float) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Draw straights, bends and turns at junctions.

    Returns:
        The curvature per step, and the junctions as (station, turn in radians; 0 where the route goes straight on).
    """
    pieces: list[np.ndarray] = []
    junctions: list[tuple[float, float]] = []
    total, heading = 0, 0.0
    while total < length:
        straight = int(rng.uniform(24, 75))
        if rng.random() < 0.55 and total > 20:
            junctions.append((total + straight * 0.5 * STEP, 0.0))
        pieces.append(np.zeros(straight))
        # Turn back towards the first direction, so that the route never meets itself.
        sign = -np.sign(heading) if abs(heading) > 0.6 else rng.choice([-1.0, 1.0])
        if rng.random() < 0.35:
            angle, radius = sign * np.pi / 2, rng.uniform(9.0, 13.0)
        else:
            angle, radius = sign * np.radians(rng.uniform(6, 45)), rng.uniform(40.0, 130.0)
        steps = max(4, round(abs(angle) * radius / STEP))
        if abs(angle) > 1.5:
            junctions.append((total + (straight + steps / 2) * STEP, float(angle)))
        pieces.append(np.full(steps, angle / (steps * STEP)))
        heading += angle
        total += straight + steps
    curvature = np.concatenate(pieces)
    return _smooth(curvature, 7), junctions


def _parking(rng: np.random.Generator) -> tuple[float, float]:
    lanes = [(PARKING, PARKING), (PARKING, 0.0), (0.0, PARKING), (0.0, 0.0)]
    return lanes[int(rng.choice(4, p=[0.55, 0.15, 0.15, 0.15]))]


def _branch(rng: np.random.Generator, start: np.ndarray, yaw: float, others: np.ndarray, clear: float) -> Street | None:
    """Lead a street away from a junction until it would come near another one; None if it would be short."""
    curvature = np.zeros(int(rng.uniform(70, 100)))
    curvature[25:] = rng.normal(0.0, 0.004)
    xy, heading = _trace(curvature, start, yaw)
    distance = np.sqrt(((xy[30:, None] - others[None]) ** 2).sum(-1)).min(1)
    blocked = np.flatnonzero(distance < 28.0)
    stop = 30 + int(blocked[0]) - 5 if len(blocked) else len(xy)
    if stop < 40:
        return None
    return Street(xy[:stop], heading[:stop], curvature[:stop], _parking(rng), np.array([[-5.0, clear]]))


def make_layout(rng: np.random.Generator, *, length: float = 460.0, start: float = 100.0) -> Layout:
    """Draw the streets of a scene.

    Args:
        rng: draws everything.
        length: of the route, metres.
        start: station of the ego vehicle at time 0, metres from the route's beginning.
    """
    curvature, junctions = _route_curvature(rng, length)
    yaw = float(rng.uniform(-np.pi, np.pi))
    xy, heading = _trace(curvature, np.zeros(2), yaw)
    parking = _parking(rng)
    route = Street(xy, heading, curvature, parking, np.zeros((0, 2)))
    branches: list[Street] = []
    gaps: list[tuple[float, float]] = []
    reach = route.half_width + 6.0
    taken = xy
    for station, turn in junctions:
        index = min(int(station / STEP), len(xy) - 1)
        before, after = heading[max(0, index - 14)], heading[min(len(xy) - 1, index + 14)]
        if turn == 0.0:
            point, ways = xy[index], [heading[index] + np.pi / 2, heading[index] - np.pi / 2]
        else:
            # The corner is where the straight lines before and after the turn meet.
            radius = 14.0
            point = xy[max(0, index - 14)] + radius * np.array([np.cos(before), np.sin(before)])
            ways = [before, after + np.pi]
        grown = False
        for way in ways:
            street = _branch(rng, point, float(way), taken, reach) if rng.random() < 0.8 else None
            if street is not None:
                branches.append(street)
                taken = np.concatenate([taken, street.xy[30:]])
                grown = True
        if grown or turn != 0.0:
            gaps.append((station - reach, station + reach))
    route = Street(xy, heading, curvature, parking, np.array(gaps).reshape(-1, 2))
    return Layout((route, *branches), start)
