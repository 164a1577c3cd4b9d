"""Casts the rays of a spinning sensor.

Each solid's bounding box gives a sector of azimuth and elevation; only the rays inside are intersected with it, and
the nearest return of each ray is kept (a z-buffer over columns and beams). The ground is followed outwards once per
column, for all beams: the higher the beam, the further out it lands.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64

from equilidar.compiled import compiled
from equilidar.data.simulator import ground as terrain
from equilidar.data.simulator.capture import Capture
from equilidar.data.simulator.ground import Ground
from equilidar.data.simulator.primitives import DEPTH, DIMS, KIND, half_extent, intersect
from equilidar.data.simulator.sensor import Sensor

NOTHING, GROUND = -2, -1


@dataclass(slots=True)
class Returns:
    """What the rays of one turn met; arrays are (columns, beams).

    Attributes:
        distance: metres, infinite where nothing was met.
        cosine: of the incidence.
        part: row of the part that was met, or GROUND or NOTHING.
        alone: (M,) number of rays that would meet each object if it were alone in the world.
        seen: (M,) number of rays that meet it.
    """

    distance: Float64[np.ndarray, "C B"]
    cosine: Float64[np.ndarray, "C B"]
    part: Int32[np.ndarray, "C B"]
    alone: Int64[np.ndarray, " M"]
    seen: Int64[np.ndarray, " M"]


@compiled
def _uniform(seed, ray, part):  # pragma: no cover - compiled
    """Hash to (0, 1): what a ray meets in foliage depends on no other ray and on no order."""
    x = seed ^ (np.uint64(ray) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(part) * np.uint64(0xC2B2AE3D27D4EB4F))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (float(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@compiled
def _cast_ground(
    first, last, azimuth, elevation, pose, origin, grid, kerb, low, high, distance, cosine, part
):  # pragma: no cover - compiled
    beams = len(elevation)
    tangent, cos_e, sin_e = np.tan(elevation), np.cos(elevation), np.sin(elevation)
    for c in range(first, last):
        ca, sa = math.cos(azimuth[c] + pose[3]), math.sin(azimuth[c] + pose[3])
        # Outermost sample reached so far and the one before: radius and height above the sensor.
        r0 = 0.3
        h0 = terrain.height(origin, grid, kerb, pose[0] + r0 * ca, pose[1] + r0 * sa) - pose[2]
        r1, h1 = r0, h0
        for b in range(beams):
            limit = high * cos_e[b]
            while h1 < r1 * tangent[b] and r1 < limit:
                r0, h0 = r1, h1
                r1 = r0 + max(0.12, 0.018 * r0)
                h1 = terrain.height(origin, grid, kerb, pose[0] + r1 * ca, pose[1] + r1 * sa) - pose[2]
            if h1 < r1 * tangent[b]:
                break  # higher beams are still further above the ground
            # The beam dips under the ground between r0 and r1: refine (regula falsi, Illinois).
            ra, rb, fa, fb = r0, r1, r0 * tangent[b] - h0, r1 * tangent[b] - h1
            r, side = rb, 0
            if fa > 0:
                for _ in range(30):
                    r = (ra * fb - rb * fa) / (fb - fa)
                    h = terrain.height(origin, grid, kerb, pose[0] + r * ca, pose[1] + r * sa) - pose[2]
                    f = r * tangent[b] - h
                    if abs(f) < 1e-6:
                        break
                    if f > 0:
                        ra, fa = r, f
                        fb = 0.5 * fb if side > 0 else fb
                        side = 1
                    else:
                        rb, fb = r, f
                        fa = 0.5 * fa if side < 0 else fa
                        side = -1
            t = r / cos_e[b]
            if low <= t <= high:
                slope = (h1 - h0) / max(r1 - r0, 1e-9)
                distance[c, b] = t
                cosine[c, b] = abs(slope * cos_e[b] - sin_e[b]) / math.sqrt(1 + slope * slope)
                part[c, b] = GROUND


@compiled
def _sector(kind, half, rotation, center, columns, out):  # pragma: no cover - compiled
    """Write the solid's first and last column (fractional, unwrapped) and its lowest and highest elevation."""
    az = math.atan2(center[1], center[0])
    left, right, z_low, z_high, far = -1e9, 1e9, 1e9, -1e9, 0.0
    for corner in range(8):
        sx = half[0] if corner & 1 else -half[0]
        sy = half[1] if corner & 2 else -half[1]
        sz = half[2] if corner & 4 else -half[2]
        x = center[0] + rotation[0, 0] * sx + rotation[0, 1] * sy + rotation[0, 2] * sz
        y = center[1] + rotation[1, 0] * sx + rotation[1, 1] * sy + rotation[1, 2] * sz
        z = center[2] + rotation[2, 0] * sx + rotation[2, 1] * sy + rotation[2, 2] * sz
        delta = math.atan2(y, x) - az
        delta -= 2 * math.pi * math.floor(delta / (2 * math.pi) + 0.5)
        left, right = max(left, delta), min(right, delta)
        z_low, z_high, far = min(z_low, z), max(z_high, z), max(far, math.hypot(x, y))
    near = math.hypot(center[0], center[1])
    if rotation[2, 2] > 0.9999:
        # Upright: the nearest point of a rectangle is known exactly.
        x = -(rotation[0, 0] * center[0] + rotation[1, 0] * center[1])
        y = -(rotation[0, 1] * center[0] + rotation[1, 1] * center[1])
        near = math.hypot(max(abs(x) - half[0], 0.0), max(abs(y) - half[1], 0.0))
    else:
        near = max(0.0, near - math.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2))
    per_radian = columns / (2 * math.pi)
    if left - right >= math.pi or near <= 0.0:
        # The sensor stands inside the outline.
        out[0], out[1] = 0.0, columns - 1.0
    else:
        out[0] = math.ceil((math.pi - az - left) * per_radian - 0.5 - 1e-6)
        out[1] = math.floor((math.pi - az - right) * per_radian - 0.5 + 1e-6)
    out[2] = math.atan2(z_low, max(near if z_low < 0 else far, 1e-9)) - 1e-9
    out[3] = math.atan2(z_high, max(near if z_high > 0 else far, 1e-9)) + 1e-9
    out[4] = near


@compiled
def _cast_parts(
    first,
    last,
    azimuth,
    elevation,
    parts,
    owner,
    rows,
    rotation,
    center,
    low,
    high,
    seed,
    distance,
    cosine,
    part,
    alone,
    last_owner,
):  # pragma: no cover - compiled
    columns, beams = len(azimuth), len(elevation)
    cos_a, sin_a = np.cos(azimuth), np.sin(azimuth)
    cos_e, sin_e = np.cos(elevation), np.sin(elevation)
    half, sector = np.empty(3), np.empty(5)
    for k in range(len(rows)):
        p = rows[k]
        kind, dims, depth = int(parts[p, KIND]), parts[p, DIMS : DIMS + 6], parts[p, DEPTH]
        r, o = rotation[k], center[k]
        half_extent(kind, dims, half)
        _sector(kind, half, r, o, columns, sector)
        if sector[4] > high:
            continue
        b0 = np.searchsorted(elevation, sector[2])
        b1 = np.searchsorted(elevation, sector[3], side="right")
        if b0 >= b1:
            continue
        lx = -(r[0, 0] * o[0] + r[1, 0] * o[1] + r[2, 0] * o[2])
        ly = -(r[0, 1] * o[0] + r[1, 1] * o[1] + r[2, 1] * o[2])
        lz = -(r[0, 2] * o[0] + r[1, 2] * o[1] + r[2, 2] * o[2])
        for unwrapped in range(int(sector[0]), int(sector[1]) + 1):
            c = unwrapped % columns
            if c < first or c >= last:
                continue
            # The beam's direction is cos(e) * (horizontal part) + sin(e) * (0, 0, 1).
            hx = r[0, 0] * cos_a[c] + r[1, 0] * sin_a[c]
            hy = r[0, 1] * cos_a[c] + r[1, 1] * sin_a[c]
            hz = r[0, 2] * cos_a[c] + r[1, 2] * sin_a[c]
            for b in range(b0, b1):
                dx = cos_e[b] * hx + sin_e[b] * r[2, 0]
                dy = cos_e[b] * hy + sin_e[b] * r[2, 1]
                dz = cos_e[b] * hz + sin_e[b] * r[2, 2]
                t, t_out, cos = intersect(kind, dims, lx, ly, lz, dx, dy, dz)
                if t > t_out or t_out < low:
                    continue
                if depth > 0.0:
                    t = max(t, 0.0) - depth * math.log(_uniform(seed, c * beams + b, p))
                    if t > t_out:
                        continue
                if t < low or t > high:
                    continue
                if last_owner[c, b] != owner[p]:
                    last_owner[c, b] = owner[p]
                    alone[owner[p]] += 1
                if t < distance[c, b]:
                    distance[c, b], cosine[c, b], part[c, b] = t, cos, p


class Caster:
    """Casts one turn of a sensor, column group by column group, into one set of returns.

    Args:
        sensor: which rays; noise and losses are not looked at.
        ground: what lies under everything.
        parts: (P, K) rows of `primitives`, parts of one object next to each other.
        owner: (P,) object of each part, in 0..M - 1.
        num_objects: M.
        seed: decides how deep rays enter foliage and glass.
    """

    def __init__(
        self,
        sensor: Sensor,
        ground: Ground,
        parts: Float64[np.ndarray, "P K"],
        owner: Int64[np.ndarray, " P"],
        num_objects: int,
        seed: int,
    ) -> None:
        shape = (sensor.azimuth_steps, sensor.beams)
        self._ground, self._parts, self._owner, self._seed = ground, parts, owner, np.uint64(seed)
        self._rays = (sensor.azimuth(), np.radians(np.array(sensor.elevation)))
        self._bounds = (float(sensor.min_range), float(sensor.max_range))
        self._last_owner = np.full(shape, -1, dtype=np.int64)
        self._alone = np.zeros(num_objects, dtype=np.int64)
        self._buffers = (np.full(shape, np.inf), np.ones(shape), np.full(shape, NOTHING, dtype=np.int32))

    def cast(self, capture: Capture, first: int, last: int) -> None:
        """Cast the columns from `first` up to but not including `last`, as things are in `capture`."""
        ground = self._ground
        grids = (ground.origin, ground.grid, ground.kerb)
        _cast_ground(first, last, *self._rays, capture.sensor, *grids, *self._bounds, *self._buffers)
        solids = (self._parts, self._owner, capture.rows, capture.rotation, capture.center)
        bounds = (*self._bounds, self._seed)
        _cast_parts(first, last, *self._rays, *solids, *bounds, *self._buffers, self._alone, self._last_owner)

    def finish(self) -> Returns:
        """Return what was met."""
        distance, cosine, part = self._buffers
        seen = np.bincount(self._owner[part[part >= 0]], minlength=len(self._alone)).astype(np.int64)
        return Returns(distance, cosine, part, self._alone, seen)
