"""Builds the parts of an object."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from equilidar.data.simulator import primitives

Number = float | int
Triple = tuple[Number, Number, Number]
# pivot x, y, z, mean angle, amplitude, phase offset (radians; positive angles lower the front)
Hinge = tuple[float, float, float, float, float, float]
NO_HINGE: Hinge = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
Hinges = tuple[Hinge, Hinge]
RIGID: Hinges = (NO_HINGE, NO_HINGE)


def _rotation(yaw: float, pitch: float, roll: float) -> list[float]:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    return [
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    ]  # fmt: skip


_UPRIGHT = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
_AXES = {"x": _rotation(0.0, np.pi / 2, 0.0), "y": _rotation(0.0, 0.0, -np.pi / 2), "z": _UPRIGHT}


class Shape:
    """A list of parts in an object's frame: x forward, y left, z up, ground at 0."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def _add(
        self,
        kind: int,
        dims: Sequence[float],
        center: Triple,
        rotation: list[float],
        reflectance: float,
        depth: float,
        hinges: Hinges,
    ) -> None:
        padded = [*dims, *([0.0] * (6 - len(dims)))]
        self._rows.append([kind, *padded, *center, *rotation, reflectance, depth, *hinges[0], *hinges[1]])

    def prism(
        self,
        center: Triple,
        size: Triple,
        reflectance: float,
        *,
        front: float = 0.0,
        rear: float = 0.0,
        side: float = 0.0,
        angles: Triple = (0.0, 0.0, 0.0),
        depth: float = 0.0,
        hinges: Hinges = RIGID,
    ) -> None:
        """Add a box (length, width, height) whose top may be drawn in at the front, the rear and both sides.

        `angles` are yaw, pitch and roll; `depth` as in `primitives`.
        """
        rotation = _rotation(*angles) if any(angles) else _UPRIGHT
        dims = (size[0] / 2, size[1] / 2, size[2] / 2, front, rear, side)
        self._add(primitives.PRISM, dims, center, rotation, reflectance, depth, hinges)

    def cylinder(
        self,
        center: Triple,
        radius: float,
        height: float,
        reflectance: float,
        *,
        top: float | None = None,
        axis: str = "z",
        angles: Triple | None = None,
        depth: float = 0.0,
        hinges: Hinges = RIGID,
    ) -> None:
        """Add a cylinder, or a cone with the radius `top` at the upper end, along an axis or turned by `angles`."""
        rotation = _AXES[axis] if angles is None else _rotation(*angles)
        dims = (radius, radius if top is None else top, height / 2)
        self._add(primitives.CYLINDER, dims, center, rotation, reflectance, depth, hinges)

    def rod(self, start: Triple, stop: Triple, radius: float, reflectance: float, *, hinges: Hinges = RIGID) -> None:
        """Add a cylinder between two points."""
        dx, dy, dz = (b - a for a, b in zip(start, stop, strict=True))
        length = float(np.sqrt(dx * dx + dy * dy + dz * dz))
        angles = (float(np.arctan2(dy, dx)), float(np.arccos(dz / length)), 0.0)
        middle = ((start[0] + stop[0]) / 2, (start[1] + stop[1]) / 2, (start[2] + stop[2]) / 2)
        self.cylinder(middle, radius, length, reflectance, angles=angles, hinges=hinges)

    def ellipsoid(
        self,
        center: Triple,
        radii: Triple,
        reflectance: float,
        *,
        angles: Triple = (0.0, 0.0, 0.0),
        depth: float = 0.0,
        hinges: Hinges = RIGID,
    ) -> None:
        """Add an ellipsoid."""
        rotation = _rotation(*angles) if any(angles) else _UPRIGHT
        self._add(primitives.ELLIPSOID, radii, center, rotation, reflectance, depth, hinges)

    def rows(self) -> Float64[np.ndarray, "P K"]:
        """Return the parts as `primitives` has them."""
        return np.array(self._rows, dtype=np.float64).reshape(-1, primitives.NUM_COLUMNS)
