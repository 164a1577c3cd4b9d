"""Collects the objects of a scene, refusing what would touch something else."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from equilidar.compiled import compiled
from equilidar.data.simulator.classes import BOXED, semantic_id
from equilidar.data.simulator.ground import Ground, edge_at, height
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.primitives import object_bounds
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.traffic import collides, ticks, touches

# Metres from the ego vehicle beyond which nothing is put: few rays would reach it.
REACH = 90.0
_CAPACITY, _MOVERS = 4096, 1024
# Where a footprint is compared with the ground.
_PROBES = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 5), indexing="ij"), -1).reshape(-1, 2)
_LIFT = 0.02  # metres between the ground's highest point under an object and the object


@dataclass
class Population:
    """Objects so far.

    Attributes:
        ground: what they stand on.
        ego: (T, 3) x, y, yaw of the ego vehicle at all ticks: nothing may be in its way.
    """

    ground: Ground
    ego: Float64[np.ndarray, "T 3"]
    _rows: list[np.ndarray] = field(default_factory=list)
    _semantic: list[int] = field(default_factory=list)
    _low: list[np.ndarray] = field(default_factory=list)
    _high: list[np.ndarray] = field(default_factory=list)
    _pose: list[np.ndarray] = field(default_factory=list)
    _path_of: list[int] = field(default_factory=list)
    _paths: list[np.ndarray] = field(default_factory=list)
    _tracks: np.ndarray = field(default_factory=lambda: np.zeros((_MOVERS, len(ticks()), 3)))
    _halves: np.ndarray = field(default_factory=lambda: np.zeros((_MOVERS, 2)))
    _num_movers: int = 0
    _standing: np.ndarray = field(default_factory=lambda: np.zeros((_CAPACITY, 5)))
    _num_standing: int = 0

    def __post_init__(self) -> None:
        self._track(self.ego, np.array([2.3, 0.95]))

    def _track(self, path: np.ndarray, half: np.ndarray) -> None:
        self._tracks[self._num_movers], self._halves[self._num_movers] = path, half
        self._num_movers += 1

    def near(self, x: float, y: float) -> bool:
        """Tell whether the ego vehicle ever comes so close that something there could be seen well."""
        away = self.ego[::10, :2] - (x, y)
        return bool((away[:, 0] ** 2 + away[:, 1] ** 2).min() < REACH**2)

    def stand(
        self,
        shape: Shape,
        semantic: str,
        place: tuple[float, float, float],
        *,
        footprint: float | None = None,
        from_kerb: float | None = None,
        margin: float = 0.1,
    ) -> bool:
        """Put an object somewhere unless it would touch another one or stand in the road.

        Args:
            shape: its parts.
            semantic: class name.
            place: x, y, yaw.
            footprint: half side of the square that must be free (things with high crowns or arms); its bounding
                box where None.
            from_kerb: metres that it must keep from the road; None lets it stand on the road.
            margin: metres to other objects.

        Returns:
            Whether it was put there.
        """
        if self._num_standing >= _CAPACITY:
            return False
        rows = shape.rows()
        low, high = object_bounds(rows)
        rectangle = _rectangle(place, low, high, footprint)
        if touches(rectangle, self._standing, self._num_standing, margin):
            return False
        ground, required = self.ground, -np.inf if from_kerb is None else from_kerb
        edge, lowest, highest = _stand_on(rectangle, _PROBES, ground.origin, ground.grid, ground.kerb)
        if edge < required:
            return False
        self._standing[self._num_standing] = rectangle
        self._num_standing += 1
        # A box must not hold ground; walls must not end above it.
        z = highest + _LIFT - min(low[2], 0.0) if semantic in BOXED else lowest
        self._append(rows, semantic, low, high, np.array([place[0], place[1], z, place[2], 0.0]), -1)
        return True

    def move(
        self,
        shape: Shape,
        semantic: str,
        path: Float64[np.ndarray, "T 3"],
        phase: Float64[np.ndarray, " T"] | None = None,
        *,
        margin: float = 0.3,
    ) -> bool:
        """Let an object move along a path of x, y, yaw unless it would ever touch another one.

        Returns:
            Whether it was let in.
        """
        rows = shape.rows()
        low, high = object_bounds(rows)
        rectangles = _rectangles(path, low, high)
        half, movers = rectangles[0, 3:].copy(), self._num_movers
        if movers >= _MOVERS or collides(
            rectangles[:, :3],
            half,
            self._standing,
            self._num_standing,
            self._tracks[:movers],
            self._halves[:movers],
            margin,
            2,
        ):
            return False
        probes = _probe(rectangles)
        heights = self.ground.heights(probes.reshape(-1, 2)).reshape(len(path), -1).max(1)
        padded = np.pad(heights, 1, mode="edge")
        z = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:]) + _LIFT - min(low[2], 0.0)
        full = np.concatenate([path[:, :2], z[:, None], path[:, 2:], np.zeros((len(path), 1))], 1)
        if phase is not None:
            full[:, 4] = phase
        self._track(rectangles[:, :3], half)
        self._append(rows, semantic, low, high, full[0], len(self._paths))
        self._paths.append(full)
        return True

    def _append(
        self, rows: np.ndarray, semantic: str, low: np.ndarray, high: np.ndarray, pose: np.ndarray, path: int
    ) -> None:
        self._rows.append(rows)
        self._semantic.append(semantic_id(semantic))
        self._low.append(low)
        self._high.append(high)
        self._pose.append(pose)
        self._path_of.append(path)

    def scene(self, seed: int, sequence: int, ego: Float64[np.ndarray, "T 4"]) -> Scene:
        """Return the finished scene."""
        count = len(self._rows)
        return Scene(
            seed=seed,
            sequence=sequence,
            ground=self.ground,
            parts=np.concatenate(self._rows) if count else np.zeros((0, 33)),
            part_object=np.repeat(np.arange(count), [len(rows) for rows in self._rows]),
            semantic=np.array(self._semantic, dtype=np.int64),
            low=np.array(self._low).reshape(count, 3),
            high=np.array(self._high).reshape(count, 3),
            pose=np.array(self._pose).reshape(count, 5),
            path_of=np.array(self._path_of, dtype=np.int64),
            paths=np.array(self._paths).reshape(len(self._paths), len(ticks()), 5),
            ego=ego,
        )


@compiled
def _stand_on(rectangle, probes, origin, grid, kerb):  # pragma: no cover - compiled
    """Return the least distance to the road and the lowest and highest ground under a rectangle."""
    cos, sin = np.cos(rectangle[2]), np.sin(rectangle[2])
    edge, lowest, highest = np.inf, np.inf, -np.inf
    for i in range(len(probes)):
        u, v = probes[i, 0] * rectangle[3], probes[i, 1] * rectangle[4]
        x, y = rectangle[0] + cos * u - sin * v, rectangle[1] + sin * u + cos * v
        edge = min(edge, edge_at(origin, grid, x, y))
        z = height(origin, grid, kerb, x, y)
        lowest, highest = min(lowest, z), max(highest, z)
    return edge, lowest, highest


def _rectangle(
    place: tuple[float, float, float], low: np.ndarray, high: np.ndarray, footprint: float | None
) -> np.ndarray:
    """Return the footprint as x, y, yaw, half length, half width."""
    if footprint is not None:
        return np.array([*place, footprint, footprint])
    cx, cy, hl, hw = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (high[0] - low[0]) / 2, (high[1] - low[1]) / 2
    cos, sin = math.cos(place[2]), math.sin(place[2])
    return np.array([place[0] + cos * cx - sin * cy, place[1] + sin * cx + cos * cy, place[2], hl, hw])


def _rectangles(path: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the bounding boxes' footprints (T, 5) along a path of x, y, yaw."""
    (cx, cy), (hl, hw) = (low[:2] + high[:2]) / 2, (high[:2] - low[:2]) / 2
    cos, sin = np.cos(path[:, 2]), np.sin(path[:, 2])
    x, y = path[:, 0] + cos * cx - sin * cy, path[:, 1] + sin * cx + cos * cy
    return np.stack([x, y, path[:, 2], np.full(len(path), hl), np.full(len(path), hw)], 1)


def _probe(rectangles: np.ndarray) -> np.ndarray:
    """Return points (R, 45, 2) spread over rectangles (R, 5)."""
    local = _PROBES[None] * rectangles[:, None, 3:5]
    cos, sin = np.cos(rectangles[:, 2, None]), np.sin(rectangles[:, 2, None])
    x = rectangles[:, 0, None] + cos * local[..., 0] - sin * local[..., 1]
    y = rectangles[:, 1, None] + sin * local[..., 0] + cos * local[..., 1]
    return np.stack([x, y], -1)
