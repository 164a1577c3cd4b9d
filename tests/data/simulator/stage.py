"""Small worlds for tests: given shapes on a flat plane, an ego vehicle that stands or drives straight."""

import numpy as np

from equilidar.compiled import compiled
from equilidar.data.simulator.ground import Ground, make_ground
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.population import Population
from equilidar.data.simulator.primitives import DIMS, KIND, intersect
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.traffic import ticks

Placing = tuple[Shape, str, tuple[float, float, float]]
Moving = tuple[Shape, str, np.ndarray, np.ndarray | None]


def flat_ground() -> Ground:
    """Return a road 120 m wide on a plane at height 0."""
    ends = np.array([[-100.0, 0.0]]), np.array([[100.0, 0.0]])
    return make_ground(*ends, np.array([60.0]), np.random.default_rng(0), roughness=0.0, kerb=0.0)


def straight(x: float, y: float, speed: float, yaw: float = 0.0) -> np.ndarray:
    """Return a path (T, 3) that passes (x, y) at time 0."""
    time = ticks()
    return np.stack([x + speed * np.cos(yaw) * time, y + speed * np.sin(yaw) * time, np.full(len(time), yaw)], 1)


def stage(placed: list[Placing], moving: list[Moving] | None = None, ego_speed: float = 0.0) -> Scene:
    """Return a scene of exactly these objects."""
    ego = straight(0.0, 0.0, ego_speed)
    population = Population(flat_ground(), ego)
    for shape, semantic, place in placed:
        assert population.stand(shape, semantic, place, margin=0.0)
    for shape, semantic, path, phase in moving or []:
        assert population.move(shape, semantic, path, phase, margin=0.0)
    return population.scene(0, 0, np.concatenate([ego[:, :2], np.zeros((len(ego), 1)), ego[:, 2:]], 1))


def wall(distance: float, height: float = 30.0, width: float = 60.0) -> Placing:
    """Return a wall whose near face is the plane x = distance."""
    shape = Shape()
    shape.prism((0.0, 0.0, height / 2), (1.0, width, height), 0.5)
    return shape, "Wall", (distance + 0.5, 0.0, 0.0)


@compiled
def _nearest(parts, rotation, center, directions, low, out, which):
    local_o, local_d = np.empty(3), np.empty(3)
    for n in range(len(directions)):
        for p in range(len(parts)):
            for i in range(3):
                local_o[i] = -(rotation[p, :, i] * center[p]).sum()
                local_d[i] = (rotation[p, :, i] * directions[n]).sum()
            t, t_out, _ = intersect(
                int(parts[p, KIND]), parts[p, DIMS : DIMS + 6], local_o[0], local_o[1], local_o[2],
                local_d[0], local_d[1], local_d[2],
            )  # fmt: skip
            if low <= t <= t_out and t < out[n]:
                out[n], which[n] = t, p


def brute_force(
    parts: np.ndarray, rotation: np.ndarray, center: np.ndarray, directions: np.ndarray, low: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nearest solid along each direction from the origin, and its row (-1: none)."""
    out, which = np.full(len(directions), np.inf), np.full(len(directions), -1, dtype=np.int64)
    _nearest(parts, rotation, center, np.ascontiguousarray(directions, dtype=np.float64), low, out, which)
    return out, which
