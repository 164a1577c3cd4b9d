"""Two sweeps as pillars for the flow network, each sweep's apart from the other's."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from equilidar.flow.clustered_points import cluster_mean
from equilidar.ops.voxelize import occupied_voxels
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures.host_sync import rows_where

_GROUND_CELL = 8  # pillars along the side of a cell in which the lowest point is looked for
_BELOW, _ABOVE = -5.0, 5.0  # metres over the sensor's frame that pillars reach


@dataclass(frozen=True)
class FlowNetworkShape:
    """What a flow network sees and how large it is.

    Attributes:
        extent: metres from the sensor to the border of the square that it sees.
        cell: side of a pillar, metres; motions are told for squares of two by two of them.
        layers: of height, in which points are counted.
        layer: their thickness, metres.
        clearance: height over the lowest point nearby up to which points are ground, metres.
        reach: the longest motion over ground along x or y between the sweeps, metres.
        width: channels of the finest pillars; coarser ones have 2, 3 and 4 times as many.
        match: channels of the features by which squares of the two sweeps are compared.
    """

    extent: float = 51.2
    cell: float = 0.2
    layers: int = 8
    layer: float = 0.4
    clearance: float = 0.2
    reach: float = 3.2
    width: int = 16
    match: int = 16

    def __post_init__(self) -> None:
        side = 2 * self.extent / self.cell
        if side <= 0 or abs(side / 16 - round(side / 16)) > 1e-6:
            raise ValueError(
                f"network: 2 * extent / cell must be a whole multiple of 16 cells, got extent={self.extent}, "
                f"cell={self.cell}"
            )
        if self.layers < 1 or self.width < 1 or self.layer <= 0 or self.match < 2:
            raise ValueError(f"network: layers, layer, width and match - 1 must be positive, got {asdict(self)}")
        if not 2 * self.cell <= self.reach <= self.extent:
            raise ValueError(f"network: reach must lie between 2 * cell and extent, got {asdict(self)}")

    @property
    def grid(self) -> GridSpec:
        """Pillars as voxels as high as the grid."""
        low, high = (-self.extent, -self.extent, _BELOW), (self.extent, self.extent, _ABOVE)
        return GridSpec(low, high, (self.cell, self.cell, _ABOVE - _BELOW))

    @property
    def channels(self) -> int:
        """Input channels: a count for each layer, and mean x, y and height."""
        return self.layers + 3

    @property
    def steps(self) -> int:
        """Squares to each side that are compared."""
        return round(self.reach / (2 * self.cell))

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments, for a file."""
        return asdict(self)


@dataclass(slots=True)
class PillarPair:
    """Two sweeps in the target's frame, as pillars.

    Attributes:
        pillars: of both sweeps: items 0 .. B - 1 are the sources, B .. 2 B - 1 the targets.
        rows: (N,) pillar of each source point, -1 where it lies on the ground or outside.
        target_rows: (M,) the same of each target point.
        height: (N,) of each source point over the lowest one nearby, metres; -inf outside.
        num_items: B.
    """

    pillars: SparseVoxels
    rows: Int64[Tensor, " N"]
    target_rows: Int64[Tensor, " M"]
    height: Float[Tensor, " N"]
    num_items: int


def pillars_of(source: PointCloudBatch, target: PointCloudBatch, shape: FlowNetworkShape) -> PillarPair:
    """Deal two sweeps into pillars.

    Args:
        source: moved into the target's frame by the ego motion.
        target: of the same items.
        shape: of the network.
    """
    xyz = torch.cat([source.xyz, target.xyz])
    num = source.batch_size
    item = torch.cat([source.batch_index, target.batch_index])
    height = _height(xyz, item, num, shape)
    kept = rows_where(height > shape.clearance, "points above the ground")
    # Sources stand before targets, and items in order: the points of each are in a row.
    sweep = torch.cat([source.batch_index, num + target.batch_index])[kept]
    counts = torch.bincount(sweep, minlength=2 * num)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row, coords = occupied_voxels(xyz[kept], offsets, shape.grid)
    # On the border rounding may put a point into the square and into no pillar.
    kept, row = kept[row >= 0], row[row >= 0]
    features = _features(xyz[kept], height[kept], row, coords, shape)
    rows = torch.full((len(xyz),), -1, dtype=torch.int64, device=xyz.device)
    rows[kept] = row
    pillars = SparseVoxels(coords, features, shape.grid, shape.grid.shape, (1, 1, 1), 2 * num)
    first = len(source.xyz)
    return PillarPair(pillars, rows[:first], rows[first:], height[:first], num)


def _height(xyz: Tensor, item: Tensor, batch_size: int, shape: FlowNetworkShape) -> Float[Tensor, " N"]:
    """Return the height over the lowest point of the cells around; -inf outside of the square."""
    side = round(2 * shape.extent / shape.cell) // _GROUND_CELL
    cell = ((xyz[:, :2] + shape.extent) / (shape.cell * _GROUND_CELL)).floor().long()
    inside = ((cell >= 0) & (cell < side)).all(1) & (xyz[:, 2] > _BELOW) & (xyz[:, 2] < _ABOVE)
    place = torch.where(inside, (item * side + cell[:, 1]) * side + cell[:, 0], batch_size * side * side)
    lowest = xyz.new_full((batch_size * side * side + 1,), _ABOVE)
    lowest = lowest.scatter_reduce(0, place, xyz[:, 2], "amin")
    around = -F.max_pool2d(-lowest[:-1].view(batch_size, 1, side, side), 3, 1, 1)
    ground = torch.cat([around.flatten(), lowest.new_full((1,), math.inf)])
    return xyz[:, 2] - ground[place]


def _features(
    xyz: Tensor, height: Tensor, row: Tensor, coords: Int32[Tensor, "V 4"], shape: FlowNetworkShape
) -> Float[Tensor, "V C"]:
    """Return counts by layer and means of each pillar."""
    num, layers = len(coords), shape.layers
    center = shape.grid.centers(coords[:, 1:])
    layer = (height / shape.layer).floor().long().clamp(0, layers - 1)
    counts = torch.bincount(row * layers + layer, minlength=num * layers).view(num, layers).float()
    offset = torch.cat([(xyz[:, :2] - center[row, :2]) / shape.cell, height[:, None] / 4], 1)
    return torch.cat([counts.log1p() / 3, cluster_mean(offset, row, num)], 1)
