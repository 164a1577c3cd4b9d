"""Sparse voxels and dense bird's-eye-view maps."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int32, Int64
from torch import Tensor

from equilidar.structures.grid import GridSpec, IntTriple
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class SparseVoxels(Movable):
    """Features at the occupied cells of B grids.

    Attributes:
        coords: (V, 4) int32, columns [batch, z, y, x]: the field's axis order, stated here once.
        features: (V, C).
        grid: the input grid (at stride 1).
        shape: number of cells (z, y, x) at this stride; a backbone may pad z by a cell.
        stride: (z, y, x) relative to the input grid.
        batch_size: B; items may have no voxel.
        rulebooks: cached tables of these coords (neighbours by kernel, columns); filled by who needs them and shared by
            all tensors with the same coords. Not moved between devices: moving makes a new, empty cache.
    """

    coords: Int32[Tensor, "V 4"]
    features: Float[Tensor, "V C"]
    grid: GridSpec
    shape: IntTriple
    stride: IntTriple
    batch_size: int
    rulebooks: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_features(self, features: Float[Tensor, "V D"]) -> "SparseVoxels":
        """Return other features at the same coords, sharing the rulebook cache."""
        voxels = SparseVoxels(self.coords, features, self.grid, self.shape, self.stride, self.batch_size)
        voxels.rulebooks = self.rulebooks
        return voxels

    @property
    def batch_index(self) -> Int64[Tensor, " V"]:
        return self.coords[:, 0].long()

    def centers(self) -> Float[Tensor, "V 3"]:
        """Return metric cell centers (x, y, z)."""
        return self.grid.centers(self.coords[:, 1:], self.stride)

    def dense(self) -> Float[Tensor, "B C Z Y X"]:
        """Scatter into a dense grid; empty cells are zero."""
        dense = self.features.new_zeros(self.batch_size, *self.shape, self.features.shape[1])
        batch, z, y, x = self.coords.long().unbind(1)
        dense[batch, z, y, x] = self.features
        return dense.permute(0, 4, 1, 2, 3)


@dataclass(slots=True)
class BEVMap(Movable):
    """A dense map seen from above.

    Attributes:
        features: (B, C, H, W), H along y, W along x.
        grid: the input grid.
        stride: (y, x) relative to the input grid.
    """

    features: Float[Tensor, "B C H W"]
    grid: GridSpec
    stride: tuple[int, int]
