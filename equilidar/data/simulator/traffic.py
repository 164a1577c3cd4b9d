"""How things move: speeds that curves allow, and positions over time.

All vehicles of a lane are time-shifted copies of one motion along it: they brake for the same bend and cannot run
into each other. Movers that would touch another one, or anything that stands, are not let into the scene.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from equilidar.compiled import compiled
from equilidar.data.simulator.layout import Street

TICK = 0.1  # seconds between stored poses; in between they are interpolated linearly
BEGIN = -0.2  # seconds: a sweep with rolling shutter begins before its reference time
HORIZON = 20.0  # seconds that a scene lasts


def ticks() -> Float64[np.ndarray, " T"]:
    """Return the times of the stored poses."""
    return BEGIN + TICK * np.arange(round((HORIZON - BEGIN) / TICK) + 3)


@dataclass(frozen=True, slots=True)
class Profile:
    """Station over time along a path.

    Attributes:
        time: (K,) seconds, rising.
        station: (K,) metres.
    """

    time: Float64[np.ndarray, " K"]
    station: Float64[np.ndarray, " K"]

    def at(self, time: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
        """Return stations; before and after the profile the speed at its ends goes on."""
        first = (self.station[1] - self.station[0]) / (self.time[1] - self.time[0])
        last = (self.station[-1] - self.station[-2]) / (self.time[-1] - self.time[-2])
        inside = np.interp(time, self.time, self.station)
        return inside + first * np.minimum(time - self.time[0], 0) + last * np.maximum(time - self.time[-1], 0)

    def time_at(self, station: float) -> float:
        """Return when a station inside the profile is passed."""
        return float(np.interp(station, self.station, self.time))


@compiled
def _limit(speed, stretch, acceleration):  # pragma: no cover - compiled
    """Let the speed rise and fall no faster than the acceleration allows."""
    for i in range(1, len(speed)):
        speed[i] = min(speed[i], np.sqrt(speed[i - 1] ** 2 + 2 * acceleration * stretch[i]))
    for i in range(len(speed) - 2, -1, -1):
        speed[i] = min(speed[i], np.sqrt(speed[i + 1] ** 2 + 2 * acceleration * stretch[i]))


def drive_profile(
    street: Street, lateral: float, cruise: float, *, lateral_acceleration: float = 2.2, acceleration: float = 1.6
) -> Profile:
    """Return the motion of a lane's vehicles: cruising speed where straight, slower in bends, braking ahead of them.

    Args:
        street: whose lane it is; driven in rising station where `lateral` < 0, else in falling station.
        lateral: offset of the lane from the centre line, metres to the left.
        cruise: m/s.
        lateral_acceleration: m/s^2 that bends are driven with.
        acceleration: m/s^2 of speeding up and braking.
    """
    curvature = street.curvature if lateral <= 0 else street.curvature[::-1]
    # Metres that the lane advances per metre of the centre line.
    stretch = np.clip(1.0 - street.curvature * lateral, 0.3, 3.0)
    stretch = stretch if lateral <= 0 else stretch[::-1]
    speed = np.minimum(cruise, np.sqrt(lateral_acceleration * stretch / np.maximum(np.abs(curvature), 1e-6)))
    _limit(speed, stretch, acceleration)
    seconds = stretch / speed
    time = np.concatenate([[0.0], np.cumsum(0.5 * (seconds[1:] + seconds[:-1]))])
    return Profile(time, np.arange(len(speed), dtype=np.float64))


def along(
    street: Street, profile: Profile, shift: float, lateral: float | Float64[np.ndarray, " T"], reverse: bool
) -> Float64[np.ndarray, "T 3"]:
    """Return x, y and yaw at all ticks of a mover that follows a street.

    Args:
        street: which street.
        profile: station over time, counted from the street's end where `reverse`.
        shift: the mover is where the profile is `shift` seconds later.
        lateral: metres to the left of the centre line (in the street's own direction).
        reverse: it goes towards falling stations.
    """
    progress = profile.at(ticks() + shift)
    x, y, yaw = street.at(street.length - progress if reverse else progress, lateral)
    path = np.stack([x, y, yaw + np.pi if reverse else yaw], 1)
    if not np.isscalar(lateral):
        # Where it drifts sideways it points where it goes.
        moved = np.empty((len(path), 2))
        moved[1:-1] = (path[2:, :2] - path[:-2, :2]) / 2
        moved[0], moved[-1] = moved[1], moved[-2]
        going = np.hypot(moved[:, 0], moved[:, 1]) > 0.02
        drift = np.arctan2(moved[:, 1], moved[:, 0]) - path[:, 2]
        drift = (drift + np.pi) % (2 * np.pi) - np.pi
        path[:, 2] += np.where(going, np.clip(drift, -0.3, 0.3), 0.0)
    return path


def phases(path: Float64[np.ndarray, "T 3"], stride: float) -> Float64[np.ndarray, " T"]:
    """Return the limbs' phase along a path: one turn per `stride` metres."""
    moved = np.hypot(*np.diff(path[:, :2], axis=0).T)
    return np.concatenate([[0.0], np.cumsum(moved)]) * (2 * np.pi / stride)


@compiled
def _apart(ax, ay, ayaw, al, aw, bx, by, byaw, bl, bw):  # pragma: no cover - compiled
    """Tell whether two rectangles (half length, half width) do not touch: separating axes."""
    dx, dy = bx - ax, by - ay
    if dx * dx + dy * dy > (al + aw + bl + bw) ** 2:
        return True
    for which in range(2):
        yaw = ayaw if which == 0 else byaw
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = ayaw - byaw
        c, s = abs(np.cos(turn)), abs(np.sin(turn))
        l1, w1, l2, w2 = (al, aw, bl, bw) if which == 0 else (bl, bw, al, aw)
        if abs(dx * cos + dy * sin) > l1 + l2 * c + w2 * s:
            return True
        if abs(dy * cos - dx * sin) > w1 + l2 * s + w2 * c:
            return True
    return False


@compiled
def touches(rectangle, others, count, margin):  # pragma: no cover - compiled
    """Tell whether a rectangle (x, y, yaw, half length, half width) comes within `margin` of the first `count`."""
    for i in range(count):
        if not _apart(
            rectangle[0], rectangle[1], rectangle[2], rectangle[3] + margin, rectangle[4] + margin,
            others[i, 0], others[i, 1], others[i, 2], others[i, 3], others[i, 4],
        ):  # fmt: skip
            return True
    return False


@compiled
def collides(path, half, standing, count, paths, halves, margin, stride):  # pragma: no cover - compiled
    """Tell whether a path (T, 3) comes within `margin` of what stands or of other paths (N, T, 3) at the same time."""
    reach = half[0] + half[1] + margin
    x0, x1, y0, y1 = path[:, 0].min(), path[:, 0].max(), path[:, 1].min(), path[:, 1].max()
    near = np.empty((count, 5))
    num_near = 0
    for i in range(count):
        r = standing[i, 3] + standing[i, 4] + reach
        if x0 - r < standing[i, 0] < x1 + r and y0 - r < standing[i, 1] < y1 + r:
            near[num_near] = standing[i]
            num_near += 1
    rectangle = np.empty(5)
    rectangle[3], rectangle[4] = half[0], half[1]
    for t in range(0, len(path), stride):
        rectangle[:3] = path[t]
        if touches(rectangle, near, num_near, margin):
            return True
        for i in range(len(paths)):
            if not _apart(
                path[t, 0], path[t, 1], path[t, 2], half[0] + margin, half[1] + margin,
                paths[i, t, 0], paths[i, t, 1], paths[i, t, 2], halves[i, 0], halves[i, 1],
            ):  # fmt: skip
                return True
    return False
