"""Iterative closest points in both directions, over the lines that the target's points form seen from above."""

import numpy as np

from equilidar.compiled import compiled
from equilidar.flow.point_grid import closest, closest_of


@compiled
def refine(
    own, mx, my, start, c, source, target, near, others, number, lines, iterations, wide, narrow, turn
):  # pragma: no cover - compiled
    """Improve a motion by closest points in both directions, weighted by Tukey's biweight; the gate falls.

    `lines`: normals of the target points, zero where there is no line; how much differences along a line count, across
    it being 1; and how much those to a point without one.
    """
    turned, sx, sy = start[0], start[1], start[2]
    hessian, gradient = np.zeros((3, 3)), np.zeros(3)
    for iteration in range(iterations):
        limit = wide + (narrow - wide) * min(1.0, iteration / max(1.0, 0.7 * iterations))
        cos, sin = np.cos(turned), np.sin(turned)
        hessian[:], gradient[:] = 0.0, 0.0
        w = 0.0
        x0 = y0 = np.inf
        x1 = y1 = -np.inf
        for n in range(len(own)):
            x, y = cos * own[n, 0] - sin * own[n, 1] + sx, sin * own[n, 0] + cos * own[n, 1] + sy
            x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
            row, d = closest(x + mx, y + my, own[n, 2], limit, target)
            if row >= 0:
                w += _add(x - sx, y - sy, x + mx, y + my, target, lines, row, d / limit, hessian, gradient)
        for k in range(number):
            q = target.points[near[k]]
            if q[0] < x0 + mx - limit or q[0] > x1 + mx + limit or q[1] < y0 + my - limit or q[1] > y1 + my + limit:
                continue
            # Back to where the cluster rests.
            bx, by = q[0] - mx - sx, q[1] - my - sy
            x, y = cos * bx + sin * by, -sin * bx + cos * by
            row, d = closest_of(x + mx, y + my, q[2], min(limit, others[k]), c, source)
            if row >= 0:
                x, y = source.points[row, 0] - mx, source.points[row, 1] - my
                x, y = cos * x - sin * y, sin * x + cos * y
                w += _add(x, y, x + sx + mx, y + sy + my, target, lines, near[k], d / limit, hessian, gradient)
        if w < 2.0:
            break
        # Few points close together tell no turn: a prior of the turn, against a noise of a tenth of a metre.
        hessian[0, 0] += 0.01 / (turn * turn)
        gradient[0] += 0.01 / (turn * turn) * turned
        step = np.linalg.solve(hessian, gradient)
        turned, sx, sy = turned - step[0], sx - step[1], sy - step[2]
    return turned, sx, sy


@compiled
def _add(jx, jy, x, y, target, lines, row, ratio, hessian, gradient):  # pragma: no cover - compiled
    """Add a point's difference to a target point to the normal equations of (turn, x, y); return its weight.

    `jx`, `jy`: the point about the cluster's middle, turned; `x`, `y`: its place; `ratio`: its distance over the gate.
    """
    u = (1.0 - ratio * ratio) ** 2
    rx, ry = x - target.points[row, 0], y - target.points[row, 1]
    normals, along, unlined = lines
    nx, ny = normals[row, 0], normals[row, 1]
    if nx == 0.0 and ny == 0.0:
        along = unlined
    a, b, d = u * (along + (1 - along) * nx * nx), u * (1 - along) * nx * ny, u * (along + (1 - along) * ny * ny)
    tx, ty = -jy, jx
    gx, gy = a * rx + b * ry, b * rx + d * ry
    gradient[0] += tx * gx + ty * gy
    gradient[1] += gx
    gradient[2] += gy
    hessian[0, 0] += tx * (a * tx + b * ty) + ty * (b * tx + d * ty)
    hessian[0, 1] += a * tx + b * ty
    hessian[0, 2] += b * tx + d * ty
    hessian[1, 0], hessian[2, 0] = hessian[0, 1], hessian[0, 2]
    hessian[1, 1] += a
    hessian[1, 2] += b
    hessian[2, 1] = hessian[1, 2]
    hessian[2, 2] += d
    return u
