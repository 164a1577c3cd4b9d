"""Is the ego motion right? Compares static structure of two sweeps, and corrects what poses left.

Walls, poles and cars that are parked stand upright, so that a horizontal correction (x, y, turn) can be told from the
distance of points to the lines that the other sweep's points form seen from above. Along a line nothing is told: the
beams' pattern moves with the sensor, and distances from point to point would pull every correction towards none.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.compiled import compiled
from equilidar.flow.point_grid import PointGrid, closest, distances
from equilidar.flow.upright_lines import line_normals

_MOST_POINTS = 4000
_ITERATIONS = 8
_FEWEST = 50
_LEAST_MOTION = 0.2  # metres: a shorter ego motion has no direction to tell


class Correction(NamedTuple):
    """A horizontal motion of the source points after the ego motion, and what it does.

    Attributes:
        turn: radians about the vertical through the sensor.
        x, y: metres.
        before: metres from a point to its line, mean over those that have one.
        after: the same, after the correction.
        support: number of points that have a line.
    """

    turn: float
    x: float
    y: float
    before: float
    after: float
    support: int

    def apply(self, xy: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "N 2"]:
        """Move points."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return xy @ np.array([[cos, sin], [-sin, cos]]) + np.array([self.x, self.y])


def refined(
    points: Float64[np.ndarray, "N 3"], upright: Int64[np.ndarray, " K"], target: PointGrid, far: float
) -> Float64[np.ndarray, "N 3"]:
    """Return the points after the correction, or as they are where it is not clearly better.

    Exact poses are better than any registration: the correction must bring structure a tenth closer.

    Args:
        points: x, y, height of the source points after the ego motion, metres.
        upright: rows of points above the ground.
        target: points above the ground of the target sweep.
        far: metres within which partners are looked for.
    """
    moved = points.copy()
    correction = find_correction(points[upright], target, far)
    if correction.support >= _FEWEST and correction.after < 0.9 * correction.before:
        moved[:, :2] = correction.apply(points[:, :2])
    return moved


def check_direction(
    points: Float64[np.ndarray, "N 3"],
    reversed_points: Float64[np.ndarray, "N 3"],
    target: PointGrid,
    distance: float,
    far: float,
    key: str,
) -> None:
    """Refuse an ego motion that fits backwards: poses in the wrong order, or sweeps.

    Args:
        points: source points above the ground after the ego motion.
        reversed_points: the same points after the inverse of the ego motion.
        target: points above the ground of the target sweep.
        distance: mean of `points` to the target, metres.
        far: a point's distance counts as this at most.
        key: of the pair.

    Raises:
        ValueError: the inverse fits much better.
    """
    if np.linalg.norm(points[:, :2] - reversed_points[:, :2], axis=1).mean() < 2 * _LEAST_MOTION:
        return
    backwards = distances(reversed_points, far, target).mean()
    if backwards < 0.6 * distance:
        raise ValueError(
            f"flow=icp_flow: the ego motion of pair {key} fits backwards (after it, points are {distance:.2f} m from "
            f"the target sweep, after its inverse {backwards:.2f} m): swap the poses, or the sweeps"
        )


def find_correction(source: Float64[np.ndarray, "N 3"], target: PointGrid, far: float) -> Correction:
    """Find the horizontal motion that brings the source's upright structure onto the target's.

    Args:
        source: x, y, height of points above the ground, after the ego motion, metres.
        target: the same of the target sweep.
        far: metres within which partners are looked for.
    """
    rows = np.linspace(0, len(source) - 1, min(len(source), _MOST_POINTS)).astype(np.int64)
    lines = line_normals(target, 0.4)
    turn, x, y, before, after, support = _fit(source[rows], target, lines, far, _ITERATIONS)
    return Correction(turn, x, y, before, after, int(support))


@compiled
def _fit(points, target, normals, far, iterations):  # pragma: no cover - compiled
    """Gauss-Newton on distances from points to lines, weighted by Tukey's biweight; the gate falls to 0.2 m."""
    turn = x = y = 0.0
    before = after = support = 0.0
    for iteration in range(iterations + 1):
        gate = far + (min(far, 0.2) - far) * min(1.0, iteration / (0.5 * iterations))
        cos, sin = np.cos(turn), np.sin(turn)
        hessian, gradient = np.zeros((3, 3)), np.zeros(3)
        total = count = 0.0
        for n in range(len(points)):
            px = cos * points[n, 0] - sin * points[n, 1] + x
            py = sin * points[n, 0] + cos * points[n, 1] + y
            row = closest(px, py, points[n, 2], far, target)[0]
            if row < 0 or (normals[row, 0] == 0.0 and normals[row, 1] == 0.0):
                continue
            nx, ny = normals[row, 0], normals[row, 1]
            r = nx * (px - target.points[row, 0]) + ny * (py - target.points[row, 1])
            total += min(abs(r), 0.2)
            count += 1.0
            if abs(r) >= gate:
                continue
            w = (1.0 - (r / gate) ** 2) ** 2
            j = np.array([nx * (y - py) + ny * (px - x), nx, ny])
            for a in range(3):
                gradient[a] += w * j[a] * r
                for b in range(3):
                    hessian[a, b] += w * j[a] * j[b]
        if iteration == 0:
            before, support = total / max(1.0, count), count
        after = total / max(1.0, count)
        if iteration == iterations or count < 20.0:
            break
        # What the lines do not tell stays as it is.
        for a in range(3):
            hessian[a, a] += 1e-3 * count
        step = np.linalg.solve(hessian, gradient)
        turn, x, y = turn - step[0], x - step[1], y - step[2]
    return turn, x, y, before, after, support
