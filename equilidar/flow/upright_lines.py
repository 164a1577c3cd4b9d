"""Lines that points form seen from above: what stands upright tells where it is across them, and nothing along them."""

import numpy as np

from equilidar.compiled import compiled
from equilidar.flow.point_grid import rows_within


@compiled
def line_normals(target, radius):  # pragma: no cover - compiled
    """Return (M, 2): the horizontal normal at each target point, zero where those within `radius` form no line."""
    normals = np.zeros((len(target.points), 2))
    near = np.empty(len(target.points), np.int64)
    for m in range(len(target.points)):
        x, y = target.points[m, 0], target.points[m, 1]
        number = rows_within(x - radius, y - radius, x + radius, y + radius, target, near)
        count = sx = sy = sxx = sxy = syy = 0.0
        for k in range(number):
            # A roof beside it is no part of a wall.
            dx, dy = target.points[near[k], 0] - x, target.points[near[k], 1] - y
            if abs(target.points[near[k], 2] - target.points[m, 2]) > 0.3 or dx * dx + dy * dy > radius * radius:
                continue
            count += 1.0
            sx, sy, sxx, sxy, syy = sx + dx, sy + dy, sxx + dx * dx, sxy + dx * dy, syy + dy * dy
        if count < 5:
            continue
        sx, sy = sx / count, sy / count
        a, b, c = sxx / count - sx * sx, sxy / count - sx * sy, syy / count - sy * sy
        root = np.sqrt(0.25 * (a - c) ** 2 + b * b)
        small, large = 0.5 * (a + c) - root, 0.5 * (a + c) + root
        if large <= 0.0 or small > 0.05 * large:
            continue
        angle = 0.5 * np.arctan2(2.0 * b, a - c)
        normals[m, 0], normals[m, 1] = -np.sin(angle), np.cos(angle)
    return normals
