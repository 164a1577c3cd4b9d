"""A street of boxes on a plane, seen twice from a moving sensor, with the motion of every point known."""

import torch
from torch import Tensor

from equilidar.structures import SweepPair

from .pairs import moved, rigid_matrix, sweep_pair

STATIC = [(6.0, 5.0, 0.2, 4.2, 1.8, 1.5), (-9.0, 6.0, -0.3, 4.5, 1.8, 1.6), (14.0, -6.0, 1.2, 0.6, 0.6, 1.7),
          (-4.0, -7.0, 0.0, 6.0, 2.0, 2.2), (3.0, 11.0, 0.4, 3.0, 0.4, 2.0)]  # fmt: skip
MOVERS = [(9.0, -2.5, 0.0, 4.2, 1.8, 1.5), (-12.0, -3.0, 0.1, 1.8, 0.6, 1.7)]
SHIFTS = [(1.0, 0.0, 0.02), (-0.5, 0.1, 0.0)]  # metres along x and y, and the turn


def box_surface(box: tuple[float, ...], spacing: float, generator: torch.Generator) -> Tensor:
    """Points on the four sides and the top, on a random grid of its own."""
    x, y, yaw, length, width, height = box
    points = []
    for along, across, fixed in ((length, height, width), (width, height, length), (length, width, 2 * height)):
        grid = torch.cartesian_prod(torch.arange(0.0, along, spacing), torch.arange(0.0, across, spacing))
        for side in (-0.5, 0.5):
            u, v = (grid + torch.rand(2, generator=generator) * spacing).unbind(1)
            if fixed == width:
                points.append(torch.stack([u - along / 2, torch.full_like(u, side * fixed), v + 0.25], 1))
            elif fixed == length:
                points.append(torch.stack([torch.full_like(u, side * fixed), u - along / 2, v + 0.25], 1))
            elif side > 0:
                points.append(torch.stack([u - along / 2, v - across / 2, torch.full_like(u, height + 0.25)], 1))
    local = torch.cat(points)
    return moved(local, rigid_matrix(yaw, (x, y, 0.0)))


def street(
    ego: Tensor | None = None,
    movers: list[tuple[float, ...]] = MOVERS,
    shifts: list[tuple[float, float, float]] = SHIFTS,
    static: list[tuple[float, ...]] = STATIC,
    yaw: float = 0.0,
    seed: int = 0,
    gap: float = 0.1,
    name: str = "s",
) -> tuple[SweepPair, Tensor, Tensor]:
    """Return a pair, its true flow, and which points are on movers.

    Both sweeps sample the surfaces anew. `yaw` turns the whole world about the vertical.
    """
    generator = torch.Generator().manual_seed(seed)
    ego = rigid_matrix(0.01, (-0.8, 0.05, 0.0)) if ego is None else ego

    def sample(boxes: list[tuple[float, ...]]) -> Tensor:
        boxed = [box_surface(box, 0.12, generator) for box in boxes]
        return torch.cat([*boxed, torch.zeros(0, 3)])

    def ground() -> Tensor:
        xy = torch.rand(12000, 2, generator=generator) * 60 - 30
        return torch.cat([xy, torch.zeros(len(xy), 1)], 1)

    rests, moves, flat = sample(static), [sample([box]) for box in movers], ground()
    motions = [rigid_matrix(turn, (0.0, 0.0, 0.0)) for _, _, turn in shifts]
    for motion, box, (x, y, _) in zip(motions, movers, shifts, strict=True):
        middle = torch.tensor([box[0], box[1], 0.0], dtype=torch.float64)
        motion[:3, 3] = middle - motion[:3, :3] @ middle + torch.tensor([x, y, 0.0], dtype=torch.float64)
    after = [moved(sample([box]), motion) for motion, box in zip(motions, movers, strict=True)]
    target = torch.cat([sample(static), *after, ground()])
    source = torch.cat([rests, *moves, flat])
    goal = torch.cat([rests, *(moved(part, motion) for part, motion in zip(moves, motions, strict=True)), flat])
    moving = torch.zeros(len(source), dtype=torch.bool)
    moving[len(rests) : len(source) - len(flat)] = True
    # The world hangs below a sensor at 1.7 m, turned as a whole.
    stand = rigid_matrix(yaw, (0.0, 0.0, -1.7))
    motion = ego @ stand @ torch.eye(4, dtype=torch.float64)
    first, second = moved(source, stand), moved(target, motion)
    pair = sweep_pair(first, second, ego, name, gap)
    return pair, moved(goal, motion) - first, moving


def turned(pair: SweepPair, yaw: float) -> SweepPair:
    """Return the pair with both sweeps turned about the vertical through their own sensor."""
    turn = rigid_matrix(yaw, (0.0, 0.0, 0.0))
    return sweep_pair(
        moved(pair.source.xyz, turn), moved(pair.target.xyz, turn), turn @ pair.target_T_source @ turn.inverse()
    )


def backward(pair: SweepPair) -> SweepPair:
    """Return the pair with the sweeps' parts exchanged."""
    return sweep_pair(pair.target.xyz, pair.source.xyz, pair.target_T_source.inverse(), "back")
