"""Rulebooks of sparse voxels, built once per geometry and shared by every layer that meets the same coords."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int32
from torch import Tensor

from equilidar.ops.rulebook import IntTriple, Rulebook, output_shape, strided_rulebook, submanifold_rulebook
from equilidar.structures import SparseVoxels


@dataclass(frozen=True, slots=True)
class Downsampling:
    """A strided convolution's geometry on given coords.

    Attributes:
        rulebook: fine rows to coarse rows.
        coords: the coarse coords, sorted.
        shape: coarse cells (z, y, x).
        rulebooks: cache of the coarse coords, so that a second pass over the same sweep finds it filled.
    """

    rulebook: Rulebook
    coords: Int32[Tensor, "W 4"]
    shape: IntTriple
    rulebooks: dict[Any, Any] = field(default_factory=dict)


def submanifold(voxels: SparseVoxels, kernel: IntTriple) -> Rulebook:
    """Return the rulebook of a submanifold convolution on `voxels`."""
    key = ("submanifold", kernel)
    if key not in voxels.rulebooks:
        voxels.rulebooks[key] = submanifold_rulebook(voxels.coords, voxels.shape, kernel)
    return voxels.rulebooks[key]


def downsampling(voxels: SparseVoxels, kernel: IntTriple, stride: IntTriple, padding: IntTriple) -> Downsampling:
    """Return the geometry of a strided convolution on `voxels`."""
    # The shape is part of the key: a backbone that pads z shares the cache with the unpadded voxels.
    key = ("strided", voxels.shape, kernel, stride, padding)
    if key not in voxels.rulebooks:
        rulebook, coords = strided_rulebook(voxels.coords, voxels.shape, kernel, stride, padding)
        voxels.rulebooks[key] = Downsampling(rulebook, coords, output_shape(voxels.shape, kernel, stride, padding))
    return voxels.rulebooks[key]
