"""The solids that objects are made of, and their intersection with rays.

A part is a row of `NUM_COLUMNS` numbers (see the column constants). Its own frame has its centre as origin; the frame
of its object has x forward and z up from the ground. Hinges turn a part about the object's y axis: by
mean + amplitude * sin(phase + offset) about a pivot, the second hinge inside the first (shin inside thigh).
"""

import math

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.compiled import compiled

PRISM, CYLINDER, ELLIPSOID = 0, 1, 2

KIND = 0
# Prism: half length, half width, half height at the bottom; how far the top's front, rear and both sides are drawn in.
# Cylinder (axis z): radius at the bottom, radius at the top, half height. Ellipsoid: half axes.
DIMS = 1
CENTER = 7
ROTATION = 10
REFLECTANCE = 19
# Mean depth in metres that a ray travels inside before it is returned: 0 solid, foliage ~0.5, glass ~2.
DEPTH = 20
HINGE1 = 21  # pivot x, y, z, mean, amplitude, offset
HINGE2 = 27
NUM_COLUMNS = 33


@compiled
def _slab(origin, direction, low, high, t_in, t_out, cos):  # pragma: no cover - compiled
    if abs(direction) < 1e-12:
        if origin < low or origin > high:
            return 1.0, 0.0, cos
        return t_in, t_out, cos
    a, b = (low - origin) / direction, (high - origin) / direction
    if a > b:
        a, b = b, a
    if a > t_in:
        t_in, cos = a, abs(direction)
    return t_in, min(t_out, b), cos


@compiled
def _half_space(n_dot_o, n_dot_d, offset, norm, t_in, t_out, cos):  # pragma: no cover - compiled
    distance = offset - n_dot_o
    if abs(n_dot_d) < 1e-12 * norm:
        if distance < 0:
            return 1.0, 0.0, cos
        return t_in, t_out, cos
    t = distance / n_dot_d
    if n_dot_d > 0:
        return t_in, min(t_out, t), cos
    if t > t_in:
        return t, t_out, -n_dot_d / norm
    return t_in, t_out, cos


@compiled
def _prism(ox, oy, oz, dx, dy, dz, dims):  # pragma: no cover - compiled
    hl, hw, hh, front, rear, side = dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]
    t_in, t_out, cos = _slab(oz, dz, -hh, hh, -1e30, 1e30, 1.0)
    if front == 0.0 and rear == 0.0:
        t_in, t_out, cos = _slab(ox, dx, -hl, hl, t_in, t_out, cos)
    else:
        # Front face through (hl, -hh) and (hl - front, hh): normal (2 hh, front).
        height = 2 * hh
        norm = math.sqrt(height * height + front * front)
        offset = height * hl - front * hh
        t_in, t_out, cos = _half_space(
            height * ox + front * oz, height * dx + front * dz, offset, norm, t_in, t_out, cos
        )
        norm = math.sqrt(height * height + rear * rear)
        offset = height * hl - rear * hh
        t_in, t_out, cos = _half_space(
            -height * ox + rear * oz, -height * dx + rear * dz, offset, norm, t_in, t_out, cos
        )
    if side == 0.0:
        return _slab(oy, dy, -hw, hw, t_in, t_out, cos)
    height = 2 * hh
    norm = math.sqrt(height * height + side * side)
    offset = height * hw - side * hh
    t_in, t_out, cos = _half_space(height * oy + side * oz, height * dy + side * dz, offset, norm, t_in, t_out, cos)
    return _half_space(-height * oy + side * oz, -height * dy + side * dz, offset, norm, t_in, t_out, cos)


@compiled
def _cylinder(ox, oy, oz, dx, dy, dz, dims):  # pragma: no cover - compiled
    bottom, top, hh = dims[0], dims[1], dims[2]
    t_in, t_out, cos = _slab(oz, dz, -hh, hh, -1e30, 1e30, 1.0)
    if t_in > t_out:
        return t_in, t_out, cos
    slope = (top - bottom) / (2 * hh)
    radius = 0.5 * (top + bottom) + slope * oz
    a = dx * dx + dy * dy - slope * slope * dz * dz
    b = ox * dx + oy * dy - radius * slope * dz
    c = ox * ox + oy * oy - radius * radius
    if abs(a) < 1e-12:
        if abs(b) < 1e-12:
            return (t_in, t_out, cos) if c <= 0 else (1.0, 0.0, cos)
        root = -c / (2 * b)
        low, high = (-1e30, root) if b > 0 else (root, 1e30)
    else:
        disc = b * b - a * c
        if disc < 0:
            return (t_in, t_out, cos) if a < 0 else (1.0, 0.0, cos)
        root = math.sqrt(disc)
        first, second = (-b - root) / a, (-b + root) / a
        if a > 0:
            low, high = first, second
        elif second >= t_in:
            # Inside the double cone outside of the roots (here second <= first); the caps cut off one half.
            low, high = -1e30, second
        else:
            low, high = first, 1e30
    if low > t_in:
        t_in = low
        x, y, r = ox + low * dx, oy + low * dy, radius + slope * low * dz
        norm = math.sqrt(x * x + y * y + slope * slope * r * r)
        cos = abs(x * dx + y * dy - slope * r * dz) / max(norm, 1e-12)
    return t_in, min(t_out, high), cos


@compiled
def _ellipsoid(ox, oy, oz, dx, dy, dz, dims):  # pragma: no cover - compiled
    ia, ib, ic = 1.0 / dims[0], 1.0 / dims[1], 1.0 / dims[2]
    px, py, pz, qx, qy, qz = ox * ia, oy * ib, oz * ic, dx * ia, dy * ib, dz * ic
    a = qx * qx + qy * qy + qz * qz
    b = px * qx + py * qy + pz * qz
    disc = b * b - a * (px * px + py * py + pz * pz - 1.0)
    if disc < 0:
        return 1.0, 0.0, 1.0
    root = math.sqrt(disc)
    t = (-b - root) / a
    nx, ny, nz = (px + t * qx) * ia, (py + t * qy) * ib, (pz + t * qz) * ic
    norm = math.sqrt(nx * nx + ny * ny + nz * nz)
    return t, (-b + root) / a, abs(nx * dx + ny * dy + nz * dz) / max(norm, 1e-12)


@compiled
def intersect(kind, dims, ox, oy, oz, dx, dy, dz):  # pragma: no cover - compiled
    """Return (t_in, t_out, cos of incidence) of a line through a solid in its own frame; t_in > t_out where it misses.

    The direction must have length 1; negative values lie behind the origin.
    """
    if kind == PRISM:
        return _prism(ox, oy, oz, dx, dy, dz, dims)
    if kind == CYLINDER:
        return _cylinder(ox, oy, oz, dx, dy, dz, dims)
    return _ellipsoid(ox, oy, oz, dx, dy, dz, dims)


@compiled
def half_extent(kind, dims, out):  # pragma: no cover - compiled
    """Write the half lengths of a solid's bounding box in its own frame."""
    if kind == PRISM:
        out[0] = dims[0] + max(0.0, -dims[3], -dims[4])
        out[1] = dims[1] + max(0.0, -dims[5])
        out[2] = dims[2]
    elif kind == CYLINDER:
        out[0] = max(dims[0], dims[1])
        out[1] = out[0]
        out[2] = dims[2]
    else:
        out[0], out[1], out[2] = dims[0], dims[1], dims[2]


@compiled
def _place(parts, part_object, poses, rotation, translation):  # pragma: no cover - compiled
    for p in range(len(parts)):
        row = parts[p]
        pose = poses[part_object[p]]
        first = row[HINGE1 + 3] + row[HINGE1 + 4] * math.sin(pose[4] + row[HINGE1 + 5])
        second = row[HINGE2 + 3] + row[HINGE2 + 4] * math.sin(pose[4] + row[HINGE2 + 5])
        c1, s1 = math.cos(first), math.sin(first)
        c12, s12 = math.cos(first + second), math.sin(first + second)
        c2, s2 = math.cos(second), math.sin(second)
        # Rotation about y: x' = c x + s z, z' = -s x + c z.
        vx, vy, vz = row[CENTER] - row[HINGE2], row[CENTER + 1] - row[HINGE2 + 1], row[CENTER + 2] - row[HINGE2 + 2]
        ux = row[HINGE2] - row[HINGE1] + c2 * vx + s2 * vz
        uy = row[HINGE2 + 1] - row[HINGE1 + 1] + vy
        uz = row[HINGE2 + 2] - row[HINGE1 + 2] - s2 * vx + c2 * vz
        x = row[HINGE1] + c1 * ux + s1 * uz
        y = row[HINGE1 + 1] + uy
        z = row[HINGE1 + 2] - s1 * ux + c1 * uz
        cy, sy = math.cos(pose[3]), math.sin(pose[3])
        translation[p, 0] = pose[0] + cy * x - sy * y
        translation[p, 1] = pose[1] + sy * x + cy * y
        translation[p, 2] = pose[2] + z
        for j in range(3):
            a, b, c = row[ROTATION + j], row[ROTATION + 3 + j], row[ROTATION + 6 + j]
            rx, rz = c12 * a + s12 * c, -s12 * a + c12 * c
            rotation[p, 0, j] = cy * rx - sy * b
            rotation[p, 1, j] = sy * rx + cy * b
            rotation[p, 2, j] = rz


def place_parts(
    parts: Float64[np.ndarray, "P K"],
    part_object: Int64[np.ndarray, " P"],
    poses: Float64[np.ndarray, "M 5"],
) -> tuple[Float64[np.ndarray, "P 3 3"], Float64[np.ndarray, "P 3"]]:
    """Return where the parts are.

    Args:
        parts: rows as described in the module.
        part_object: which object each part belongs to.
        poses: x, y, z, yaw and limb phase of each object.

    Returns:
        Rotation and translation from each part's own frame to the frame of the poses.
    """
    rotation, translation = np.empty((len(parts), 3, 3)), np.empty((len(parts), 3))
    _place(parts, part_object, poses, rotation, translation)
    return rotation, translation


@compiled
def _bounds(parts, rotation, translation, low, high):  # pragma: no cover - compiled
    half = np.empty(3)
    for p in range(len(parts)):
        kind, dims = int(parts[p, KIND]), parts[p, DIMS : DIMS + 6]
        half_extent(kind, dims, half)
        for i in range(3):
            r = rotation[p, i]
            if kind == PRISM:
                reach = abs(r[0]) * half[0] + abs(r[1]) * half[1] + abs(r[2]) * half[2]
            elif kind == CYLINDER:
                reach = half[0] * math.sqrt(max(0.0, 1 - r[2] * r[2])) + abs(r[2]) * half[2]
            else:
                reach = math.sqrt((r[0] * half[0]) ** 2 + (r[1] * half[1]) ** 2 + (r[2] * half[2]) ** 2)
            low[i] = min(low[i], translation[p, i] - reach)
            high[i] = max(high[i], translation[p, i] + reach)


@compiled
def _sweep_bounds(parts, steps, corners):  # pragma: no cover - compiled
    rotation, translation = np.empty((len(parts), 3, 3)), np.empty((len(parts), 3))
    owner, pose = np.zeros(len(parts), dtype=np.int64), np.zeros((1, 5))
    corners[0], corners[1] = np.inf, -np.inf
    for step in range(steps):
        pose[0, 4] = 2 * np.pi * step / steps
        _place(parts, owner, pose, rotation, translation)
        _bounds(parts, rotation, translation, corners[0], corners[1])


def object_bounds(
    parts: Float64[np.ndarray, "P K"], phases: int = 32
) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
    """Return the lower and upper corner, in the object's frame, of all that its parts sweep over a stride."""
    moving = bool(parts[:, HINGE1 + 4].any() or parts[:, HINGE2 + 4].any())
    corners = np.empty((2, 3))
    _sweep_bounds(parts, phases if moving else 1, corners)
    return corners[0], corners[1]
