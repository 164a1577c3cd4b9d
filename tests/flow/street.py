"""A small street for flow estimators: ground, walls and boxes that move, sampled anew in each sweep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equilidar.structures import SweepPair

from .pairs import moved, rigid_matrix, sweep_pair

HEIGHT = 1.8  # metres of the sensor above ground


@dataclass(frozen=True)
class Thing:
    """A box on the ground.

    Attributes:
        place: (x, y) of its middle, metres.
        size: length, width, height.
        yaw: radians.
        shift: (x, y) metres to the next sweep.
        turn: radians to the next sweep.
    """

    place: tuple[float, float]
    size: tuple[float, float, float] = (4.2, 1.8, 1.5)
    yaw: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0


WALLS = (Thing((0.0, 14.0), (60.0, 0.4, 4.0)), Thing((0.0, -14.0), (60.0, 0.4, 4.0)))
PARKED = (Thing((6.0, 10.0)), Thing((-8.0, 10.3)), Thing((15.0, -10.0)), Thing((-4.0, -10.4)))


def box_surface(size: tuple[float, float, float], density: float, rng: np.random.Generator) -> np.ndarray:
    """Return points on the four sides and the top of a box that stands on z = 0."""
    length, width, height = size
    areas = np.array([length * height, length * height, width * height, width * height, length * width])
    side = np.repeat(np.arange(5), rng.poisson(areas * density))
    a, b = rng.uniform(-0.5, 0.5, len(side)), rng.uniform(0, 1, len(side))
    end = np.where(side % 2 == 0, 0.5, -0.5)
    x = np.where(side < 2, a, np.where(side < 4, end, a)) * length
    y = np.where(side < 2, end, np.where(side < 4, a, b - 0.5)) * width
    return np.stack([x, y, np.where(side < 4, b, 1.0) * height], 1)


def street_pair(
    things: Sequence[Thing],
    motion: Tensor | None = None,
    *,
    seed: int = 0,
    gap: float = 0.1,
    density: float = 20.0,
    resampled: bool = True,
    name: str = "street",
) -> tuple[SweepPair, Tensor]:
    """Return a pair with its true flow, and the row in `things` of each source point, -1 for ground.

    Args:
        things: what stands there.
        motion: ego motion, source to target.
        seed: of all points.
        gap: seconds.
        density: points per square metre of a box; the ground has a tenth of it.
        resampled: draw the target's points anew; else they are the source's, moved, in another order.
        name: of the sequence.
    """
    motion = rigid_matrix(0.0, (0.0, 0.0, 0.0)) if motion is None else motion
    source, end, owner = street_points(things, 0, np.random.default_rng(seed), density)
    again = np.random.default_rng(seed if not resampled else seed + 1000)
    target = moved(street_points(things, 1, again, density)[0], motion)
    order = torch.from_numpy(np.random.default_rng(seed + 1).permutation(len(target)))
    return sweep_pair(source, target[order], motion, name, gap, moved(end, motion) - source), owner


def street_points(
    things: Sequence[Thing], time: int, rng: np.random.Generator, density: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return points at a time, where they are at the next, and the row in `things` of each, -1 for ground."""
    xy = rng.uniform(-30, 30, (int(3600 * density / 10), 2))
    ground = np.column_stack([xy, np.zeros(len(xy))])
    now, then, owner = [ground], [ground], [np.full(len(xy), -1)]
    for row, thing in enumerate(things):
        points = box_surface(thing.size, density, rng)
        now.append(_placed(points, thing, time))
        then.append(_placed(points, thing, time + 1))
        owner.append(np.full(len(points), row))
    first, second = (torch.from_numpy(np.concatenate(parts) - [0, 0, HEIGHT]).float() for parts in (now, then))
    return first, second, torch.from_numpy(np.concatenate(owner))


def _placed(points: np.ndarray, thing: Thing, time: int) -> np.ndarray:
    yaw = thing.yaw + thing.turn * time
    cos, sin = np.cos(yaw), np.sin(yaw)
    x = cos * points[:, 0] - sin * points[:, 1] + thing.place[0] + thing.shift[0] * time
    y = sin * points[:, 0] + cos * points[:, 1] + thing.place[1] + thing.shift[1] * time
    return np.stack([x, y, points[:, 2]], 1)
