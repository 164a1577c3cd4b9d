"""Small sweep pairs with known motion."""

import math

import torch
from torch import Tensor

from equilidar.structures import Affine3, SensorContract, Sweep, SweepPair

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


def rigid_matrix(yaw: float, shift: tuple[float, float, float]) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[:3, 3] = torch.tensor(shift)
    return matrix


def moved(xyz: Tensor, matrix: Tensor) -> Tensor:
    return Affine3.from_matrix(matrix[None].float()).apply(xyz, torch.tensor([0, len(xyz)]))


def grid_points(side: int, spacing: float, noise: float = 0.0, seed: int = 0) -> Tensor:
    """Points so far apart that a shorter motion leaves no doubt which is which."""
    steps = torch.arange(side).float() * spacing
    xyz = torch.cartesian_prod(steps - steps.mean(), steps - steps.mean(), torch.tensor([-1.0, 1.0]) * spacing)
    return xyz + noise * torch.rand(xyz.shape, generator=torch.Generator().manual_seed(seed))


def sweep_pair(
    source: Tensor,
    target: Tensor,
    target_T_source: Tensor,
    name: str = "s",
    gap: float = 0.1,
    flow: Tensor | None = None,
) -> SweepPair:
    return SweepPair(
        Sweep(source, torch.zeros(len(source), 1), CONTRACT, f"{name}/0", 0.0),
        Sweep(target, torch.zeros(len(target), 1), CONTRACT, f"{name}/1", gap),
        target_T_source,
        flow,
        None if flow is None else torch.ones(len(flow), dtype=torch.bool),
    )
