"""The group of spatial transforms, and drawing from it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from equilidar.structures import TransformDraw
from equilidar.structures.seeding import uniform

PARTS = ("yaw", "scale", "flip", "translation")

Range = Sequence[float | int]


@dataclass(frozen=True)
class SpatialGroup:
    """Rotation about z, uniform scale, mirror y -> -y, translation; ranges of E-SSL3D (Hegde et al., ECCV 2024).

    Each parameter is drawn uniformly and independently; the transform is `R * S * F`, then the shift.

    Attributes:
        yaw: range of the rotation about +z, radians.
        scale: range of the factor.
        flip_probability: how often y is mirrored.
        translation: range of the shift along each of x, y and z, metres.
    """

    yaw: Range = (-math.pi / 2, math.pi / 2)
    scale: Range = (0.95, 1.05)
    flip_probability: float = 0.5
    translation: Range = (0.0, 0.2)

    def __post_init__(self) -> None:
        for name in ("yaw", "scale", "translation"):
            low, high = (float(bound) for bound in getattr(self, name))
            if not low <= high:
                raise ValueError(f"group.{name} must be [low, high] with low <= high, got [{low}, {high}]")
            object.__setattr__(self, name, (low, high))
        if self.scale[0] <= 0:
            raise ValueError(f"group.scale must be positive, got {self.scale}; mirrors are flip_probability's part")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"group.flip_probability must be within 0..1, got {self.flip_probability}")

    def sample(self, seeds: Int64[Tensor, " B"], stream: int) -> TransformDraw:
        """Draw one transform for each seed, on the seeds' device.

        Args:
            seeds: each sample's own seed; a sample draws the same in whatever batch, worker or rank.
            stream: tells several draws of one sample apart.
        """
        draws = uniform(seeds, stream, 6)
        return TransformDraw(
            _within(self.yaw, draws[:, 0]),
            _within(self.scale, draws[:, 1]),
            draws[:, 2] < self.flip_probability,
            _within(self.translation, draws[:, 3:]),
        )


def with_parts(draw: TransformDraw, parts: Collection[str], other: TransformDraw | None = None) -> TransformDraw:
    """Keep the named parts of a draw; the rest comes from `other`, or is the identity.

    Args:
        draw: the transforms.
        parts: names out of `PARTS`.
        other: transforms of as many items.
    """
    rest = other or identity_draw(draw.yaw)
    return TransformDraw(
        draw.yaw if "yaw" in parts else rest.yaw,
        draw.scale if "scale" in parts else rest.scale,
        draw.flip_y if "flip" in parts else rest.flip_y,
        draw.translation if "translation" in parts else rest.translation,
    )


def identity_draw(like: Tensor) -> TransformDraw:
    """Return the draws that change nothing, as many as `like` (B,) has rows and on its device."""
    zero = torch.zeros_like(like)
    return TransformDraw(zero, zero + 1, torch.zeros_like(like, dtype=torch.bool), zero[:, None].repeat(1, 3))


def check_parts(name: str, parts: Collection[str]) -> frozenset[str]:
    """Return `parts` as a set; ValueError where one is unknown."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"{name} holds {unknown}; known parts of a spatial transform are {list(PARTS)}")
    return frozenset(parts)


def _within(bounds: Range, draws: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draws
