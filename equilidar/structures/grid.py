"""The voxel grid: which part of space is seen and how finely."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from equilidar.structures.host_sync import constants

Triple = tuple[float, float, float]
IntTriple = tuple[int, int, int]


@dataclass(frozen=True)
class GridSpec:
    """Range and voxel size, frozen and hashable.

    Ranges and sizes are (x, y, z) in metres; shapes and strides are (z, y, x) as the field has it.
    A cell is closed below and open above: [low + i * size, low + (i + 1) * size).

    Attributes:
        low: (x, y, z) of the range's lower corner.
        high: (x, y, z) of its upper corner.
        voxel_size: (x, y, z) edge lengths.

    Raises:
        ValueError: the range is empty or is no whole number of voxels along an axis.
    """

    low: Triple
    high: Triple
    voxel_size: Triple

    def __post_init__(self) -> None:
        for name in ("low", "high", "voxel_size"):
            value = tuple(float(v) for v in getattr(self, name))
            if len(value) != 3:
                raise ValueError(f"grid.{name} must have 3 entries (x, y, z), got {len(value)}")
            object.__setattr__(self, name, value)
        for axis, low, high, size in zip("xyz", self.low, self.high, self.voxel_size, strict=True):
            if size <= 0 or high <= low:
                raise ValueError(f"grid: along {axis} the range [{low}, {high}] or voxel size {size} is empty")
            cells = (high - low) / size
            if abs(cells - round(cells)) > 1e-3:
                raise ValueError(
                    f"grid: along {axis} the range [{low}, {high}] holds {cells:.3f} voxels of {size} m; "
                    "choose a range that is a whole number of voxels"
                )

    @property
    def reach(self) -> float:
        """Return how far the range reaches from the origin along x or y, metres."""
        return max(abs(value) for value in (*self.low[:2], *self.high[:2]))

    @classmethod
    def from_range(cls, point_range: Sequence[float | int], voxel_size: Sequence[float | int]) -> "GridSpec":
        """Build from the field's [x0, y0, z0, x1, y1, z1] notation."""
        if len(point_range) != 6:
            raise ValueError(f"grid.point_range must be [x0, y0, z0, x1, y1, z1], got {list(point_range)}")
        x0, y0, z0, x1, y1, z1 = (float(v) for v in point_range)
        sx, sy, sz = (float(v) for v in voxel_size)
        return cls((x0, y0, z0), (x1, y1, z1), (sx, sy, sz))

    @property
    def shape(self) -> IntTriple:
        """Number of voxels (z, y, x)."""
        x, y, z = (
            round((high - low) / size) for low, high, size in zip(self.low, self.high, self.voxel_size, strict=True)
        )
        return z, y, x

    def cell_size(self, stride: IntTriple = (1, 1, 1)) -> Triple:
        """Return the (x, y, z) edge lengths of a cell at `stride` (z, y, x)."""
        sx, sy, sz = self.voxel_size
        return sx * stride[2], sy * stride[1], sz * stride[0]

    def contains(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Tell which points fall into a voxel."""
        index = self.index_xyz(xyz)
        limit = constants(self.shape[::-1], device=xyz.device)
        return ((index >= 0) & (index < limit)).all(-1)

    def index_xyz(self, xyz: Float[Tensor, "N 3"]) -> Int[Tensor, "N 3"]:
        """Return floor((xyz - low) / size) as int64 in (x, y, z) order; points outside give indices outside."""
        low = constants(self.low, device=xyz.device, dtype=xyz.dtype)
        # Not by scalars: a GPU divides by one through its reciprocal, which puts points on a border into other cells.
        size = constants(self.voxel_size, device=xyz.device, dtype=xyz.dtype)
        return ((xyz - low) / size).floor().long()

    def index_zyx(self, xyz: Float[Tensor, "N 3"], stride: IntTriple) -> Int[Tensor, "N 3"]:
        """Return each point's cell at `stride` as int64 (z, y, x); points outside the range give cells outside."""
        steps = constants(stride, device=xyz.device)
        return self.index_xyz(xyz).flip(1).div(steps, rounding_mode="floor")

    def centers(self, coords_zyx: Int[Tensor, "V 3"], stride: IntTriple = (1, 1, 1)) -> Float[Tensor, "V 3"]:
        """Return metric cell centers (x, y, z): low + (i + 0.5) * stride * voxel_size."""
        low = constants(self.low, device=coords_zyx.device, dtype=torch.float32)
        size = constants(self.cell_size(stride), device=coords_zyx.device, dtype=torch.float32)
        return low + (coords_zyx.flip(-1).float() + 0.5) * size
