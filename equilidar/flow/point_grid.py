"""Nearest points in compiled loops: points sorted by the cells of a horizontal grid."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.compiled import compiled

CELL = 0.25
"""Metres; about half the distances that are asked for."""


class PointGrid(NamedTuple):
    """Points in the order of their cells, so that those of neighbouring cells of a row lie together.

    Attributes:
        points: (N, 3) metres, sorted.
        labels: (N,) cluster of each, -1 for none.
        starts: (rows * columns + 1,) first point of each cell.
        x, y: corner of the grid, metres.
        rows, columns: cells along x and along y.
    """

    points: Float64[np.ndarray, "N 3"]
    labels: Int64[np.ndarray, " N"]
    starts: Int64[np.ndarray, " S"]
    x: float
    y: float
    rows: int
    columns: int


def build_grid(points: Float64[np.ndarray, "N 3"], labels: Int64[np.ndarray, " N"] | None = None) -> PointGrid:
    """Sort points, with their labels if there are any, into a grid."""
    labels = np.full(len(points), -1) if labels is None else labels
    low = points[:, :2].min(0) if len(points) else np.zeros(2)
    cell = ((points[:, :2] - low) / CELL).astype(np.int64)
    rows, columns = (cell.max(0) + 1).tolist() if len(points) else (1, 1)
    flat = cell[:, 0] * columns + cell[:, 1]
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=rows * columns))])
    return PointGrid(
        np.ascontiguousarray(points[order]), labels[order], starts, float(low[0]), float(low[1]), rows, columns
    )


@compiled
def closest(x, y, z, far, grid):  # pragma: no cover - compiled
    """Return the row of the nearest point and its distance; -1 and `far` where none is nearer than that."""
    best, row = far * far, -1
    j0 = max(int(np.floor((y - far - grid.y) / CELL)), 0)
    j1 = min(int(np.floor((y + far - grid.y) / CELL)), grid.columns - 1)
    i0 = max(int(np.floor((x - far - grid.x) / CELL)), 0)
    i1 = min(int(np.floor((x + far - grid.x) / CELL)), grid.rows - 1)
    if j0 <= j1:
        for i in range(i0, i1 + 1):
            for n in range(grid.starts[i * grid.columns + j0], grid.starts[i * grid.columns + j1 + 1]):
                dx, dy, dz = grid.points[n, 0] - x, grid.points[n, 1] - y, grid.points[n, 2] - z
                d = dx * dx + dy * dy + dz * dz
                if d < best:
                    best, row = d, n
    return row, np.sqrt(best)


@compiled
def distances(points, far, grid):  # pragma: no cover - compiled
    """Return each point's distance to the grid's nearest point, `far` at most."""
    found = np.empty(len(points))
    for n in range(len(points)):
        found[n] = closest(points[n, 0], points[n, 1], points[n, 2], far, grid)[1]
    return found


@compiled
def closest_of(x, y, z, far, label, grid):  # pragma: no cover - compiled
    """As `closest`, among the points of one cluster."""
    best, row = far * far, -1
    j0 = max(int(np.floor((y - far - grid.y) / CELL)), 0)
    j1 = min(int(np.floor((y + far - grid.y) / CELL)), grid.columns - 1)
    i0 = max(int(np.floor((x - far - grid.x) / CELL)), 0)
    i1 = min(int(np.floor((x + far - grid.x) / CELL)), grid.rows - 1)
    if j0 <= j1:
        for i in range(i0, i1 + 1):
            for n in range(grid.starts[i * grid.columns + j0], grid.starts[i * grid.columns + j1 + 1]):
                if grid.labels[n] != label:
                    continue
                dx, dy, dz = grid.points[n, 0] - x, grid.points[n, 1] - y, grid.points[n, 2] - z
                d = dx * dx + dy * dy + dz * dz
                if d < best:
                    best, row = d, n
    return row, np.sqrt(best)


@compiled
def closest_two(points, far, grid):  # pragma: no cover - compiled
    """Return for each point the distance to the grid's nearest point, its label, and the distance to other labels.

    Distances are `far` at most; the label is -2 where nothing is nearer than that.
    """
    first, second = np.full(len(points), far), np.full(len(points), far)
    owner = np.full(len(points), -2)
    for m in range(len(points)):
        x, y, z = points[m]
        j0 = max(int(np.floor((y - far - grid.y) / CELL)), 0)
        j1 = min(int(np.floor((y + far - grid.y) / CELL)), grid.columns - 1)
        i0 = max(int(np.floor((x - far - grid.x) / CELL)), 0)
        i1 = min(int(np.floor((x + far - grid.x) / CELL)), grid.rows - 1)
        if j0 > j1:
            continue
        nearest, other, label = far * far, far * far, -2
        for i in range(i0, i1 + 1):
            for n in range(grid.starts[i * grid.columns + j0], grid.starts[i * grid.columns + j1 + 1]):
                dx, dy, dz = grid.points[n, 0] - x, grid.points[n, 1] - y, grid.points[n, 2] - z
                d = dx * dx + dy * dy + dz * dz
                if d >= other:
                    continue
                if grid.labels[n] == label:
                    nearest = min(nearest, d)
                elif d < nearest:
                    other, nearest, label = nearest, d, grid.labels[n]
                else:
                    other = d
        first[m], owner[m], second[m] = np.sqrt(nearest), label, np.sqrt(other)
    return first, owner, second


@compiled
def rows_within(x0, y0, x1, y1, grid, rows):  # pragma: no cover - compiled
    """Write the rows of the points in a rectangle to `rows` and return how many there are."""
    j0 = max(int(np.floor((y0 - grid.y) / CELL)), 0)
    j1 = min(int(np.floor((y1 - grid.y) / CELL)), grid.columns - 1)
    i0 = max(int(np.floor((x0 - grid.x) / CELL)), 0)
    i1 = min(int(np.floor((x1 - grid.x) / CELL)), grid.rows - 1)
    number = 0
    if j0 <= j1:
        for i in range(i0, i1 + 1):
            for n in range(grid.starts[i * grid.columns + j0], grid.starts[i * grid.columns + j1 + 1]):
                x, y = grid.points[n, 0], grid.points[n, 1]
                if x0 <= x <= x1 and y0 <= y <= y1:
                    rows[number] = n
                    number += 1
    return number
