"""Regions to which a view is cropped; the grid always crops besides."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class Crop(Protocol):
    """Tells which points of a cloud are kept."""

    def __call__(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Return a mask over points given in metres about the sensor."""
        ...


@dataclass(frozen=True)
class GridCrop:
    """Keep everything: the grid's range alone decides."""

    def __call__(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Return True for each point."""
        return torch.ones(len(xyz), dtype=torch.bool, device=xyz.device)


@dataclass(frozen=True)
class FrontWedge:
    """Keep the points ahead: azimuth within `half_angle` radians of +x (45 degrees is about KITTI's camera)."""

    half_angle: float = math.pi / 4

    def __post_init__(self) -> None:
        if not 0 < self.half_angle <= math.pi:
            raise ValueError(f"crop.half_angle must be within 0..pi radians, got {self.half_angle}")

    def __call__(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Return True inside the wedge."""
        return torch.atan2(xyz[:, 1], xyz[:, 0]).abs() <= self.half_angle


@dataclass(frozen=True)
class Disc:
    """Keep the points within `radius` metres of the z axis: its outline does not tell how far a sweep was turned."""

    radius: float

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"crop.radius must be positive, got {self.radius}")

    def __call__(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Return True inside the disc."""
        return xyz[:, :2].square().sum(1) <= self.radius**2
