"""How high the ground is at a place of a sweep, from the sweep alone: no map, no file of road planes.

The lowest return of each cell of a grid is a candidate for ground. Around a place a plane is fitted to the candidates,
robustly: cells under which nothing but a hedge, a wall or a car's roof was seen lie above it and are left out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

# Standard deviations of the prior: ground is level within 5 %, cells scatter by 10 cm. Their ratio keeps the slope of a
# plane in check where candidates lie in a line (one beam of the sensor).
_RIDGE = (0.10 / 0.05) ** 2
_TOLERANCES = (0.6, 0.35, 0.2, 0.15)


@dataclass(frozen=True)
class LocalGround:
    """The candidates of one sweep.

    Attributes:
        xy: (K, 2) where they lie, metres.
        z: (K,) their heights, metres.
        radii: metres around a place that are looked at, the next one where the one before holds too little.
        min_cells: candidates that a plane must have within the tolerance.
        max_slope: a steeper plane is a wall or a bank, not ground to stand on.
    """

    xy: Float64[np.ndarray, "K 2"]
    z: Float64[np.ndarray, " K"]
    radii: tuple[float, ...] = (4.0, 7.0, 12.0)
    min_cells: int = 6
    max_slope: float = 0.2

    @classmethod
    def of_points(cls, xyz: Float[np.ndarray, "N 3"], cell: float = 0.5) -> "LocalGround":
        """Take the lowest point of each cell.

        Args:
            xyz: the sweep, metres; points on labelled objects should be left out.
            cell: edge length of a cell, metres.
        """
        index = np.floor(xyz[:, :2].astype(np.float64) / cell).astype(np.int64)
        # One number per cell; sweeps reach a few hundred metres.
        code = index[:, 0] * (1 << 32) + index[:, 1]
        order = np.argsort(code, kind="stable")
        code, z = code[order], xyz[order, 2]
        starts = np.flatnonzero(np.diff(code, prepend=code[:1] - 1))
        is_lowest = z == np.repeat(np.minimum.reduceat(z, starts), np.diff(starts, append=len(z)))
        rows = np.flatnonzero(is_lowest)
        _, first = np.unique(np.searchsorted(starts, rows, side="right"), return_index=True)  # of equals, the first
        lowest = xyz[order[rows[first]]].astype(np.float64)
        return cls(lowest[:, :2], lowest[:, 2])

    def heights(self, places: Float[np.ndarray, "M 2"]) -> Float64[np.ndarray, " M"]:
        """Return the height of the ground at each place, NaN where too little of it was seen."""
        return np.array([self._height(place) for place in places.astype(np.float64)], dtype=np.float64)

    def _height(self, place: np.ndarray) -> float:
        offset = self.xy - place
        distance = np.hypot(offset[:, 0], offset[:, 1])
        for radius in self.radii:
            near = distance <= radius
            if near.sum() < self.min_cells:
                continue
            height = self._fit(offset[near], self.z[near], distance[near] / radius)
            if np.isfinite(height):
                return height
        return np.nan

    def _fit(self, offset: np.ndarray, z: np.ndarray, closeness: np.ndarray) -> float:
        """Fit z = a + b . offset to the lower candidates and return a; NaN where they form no ground."""
        a, b, kept = float(np.quantile(z, 0.25)), np.zeros(2), z == z
        weight = np.exp(-2 * closeness**2)
        for tolerance in _TOLERANCES:
            # Doubt grows with distance while the slope is not yet known.
            kept = np.abs(z - a - offset @ b) <= tolerance
            if kept.sum() < self.min_cells:
                return np.nan
            design = np.column_stack([np.ones(kept.sum()), offset[kept]])
            normal = design.T @ (design * weight[kept, None]) + np.diag([0.0, _RIDGE, _RIDGE])
            solution = np.linalg.solve(normal, design.T @ (weight[kept] * z[kept]))
            a, b = float(solution[0]), solution[1:]
        lies_apart = closeness[kept].min() > 0.5  # the place itself is hidden: behind a wall, in a house
        is_minority = (weight * kept).sum() < 0.5 * weight.sum()
        lies_above = (weight * (z < a + offset @ b - _TOLERANCES[-1])).sum() > 0.1 * weight.sum()
        return np.nan if lies_apart or is_minority or lies_above or np.linalg.norm(b) > self.max_slope else a
