"""A small network on pillars of two sweeps that tells which move over ground, and how far."""

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from equilidar.nn import InverseConv3d, SparseBlock, SparseConv3d, SubmanifoldConv3d
from equilidar.ops.voxelize import occupied_voxels
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels

_FLAT = (1, 3, 3)
_GROUND_CELL = 8  # pillars along the side of a cell in which the lowest point is looked for
_BELOW, _ABOVE = -5.0, 5.0  # metres over the sensor's frame that pillars reach


@dataclass(frozen=True)
class FlowNetworkShape:
    """What a flow network sees and how large it is.

    Attributes:
        extent: metres from the sensor to the border of the square that it sees.
        cell: side of a pillar, metres.
        layers: of height, in which points are counted.
        layer: their thickness, metres.
        clearance: height over the lowest point nearby up to which points are ground, metres.
        width: channels of the finest pillars; the next ones have 2, 4 and 4 times as many.
    """

    extent: float = 51.2
    cell: float = 0.2
    layers: int = 8
    layer: float = 0.4
    clearance: float = 0.2
    width: int = 24

    def __post_init__(self) -> None:
        side = 2 * self.extent / self.cell
        if side <= 0 or abs(side / 16 - round(side / 16)) > 1e-6:
            raise ValueError(
                f"network: 2 * extent / cell must be a whole multiple of 16 cells, got extent={self.extent}, "
                f"cell={self.cell}"
            )
        if self.layers < 1 or self.width < 1 or self.layer <= 0:
            raise ValueError(f"network: layers, layer and width must be positive, got {asdict(self)}")

    @property
    def grid(self) -> GridSpec:
        """Pillars as voxels as high as the grid."""
        low, high = (-self.extent, -self.extent, _BELOW), (self.extent, self.extent, _ABOVE)
        return GridSpec(low, high, (self.cell, self.cell, _ABOVE - _BELOW))

    @property
    def channels(self) -> int:
        """Input channels: of each sweep a count for each layer, and mean x, y and height."""
        return 2 * (self.layers + 3)

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments, for a file."""
        return asdict(self)


@dataclass(slots=True)
class PillarPair:
    """Two sweeps in the target's frame, as pillars that either of them occupies.

    Attributes:
        pillars: features; both sweeps' columns side by side.
        rows: (N,) pillar of each source point, -1 where it lies on the ground or outside.
        num_source: (V,) source points in each pillar.
    """

    pillars: SparseVoxels
    rows: Int64[Tensor, " N"]
    num_source: Float[Tensor, " V"]


def pillars_of(source: PointCloudBatch, target: PointCloudBatch, shape: FlowNetworkShape) -> PillarPair:
    """Deal two sweeps into pillars.

    Args:
        source: moved into the target's frame by the ego motion.
        target: of the same items.
        shape: of the network.
    """
    xyz = torch.cat([source.xyz, target.xyz])
    item = torch.cat([source.batch_index, target.batch_index])
    height = _height(xyz, item, source.batch_size, shape)
    kept = torch.nonzero(height > shape.clearance)[:, 0]
    # Ops want the points of an item in a row.
    order = kept[item[kept].argsort(stable=True)]
    counts = torch.bincount(item[order], minlength=source.batch_size)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row, coords = occupied_voxels(xyz[order], offsets, shape.grid)
    # On the border rounding may put a point into the square and into no pillar.
    order, row = order[row >= 0], row[row >= 0]
    features, num_source = _features(xyz[order], height[order], row, order < len(source.xyz), coords, shape)
    rows = torch.full((len(xyz),), -1, dtype=torch.int64, device=xyz.device)
    rows[order] = row
    pillars = SparseVoxels(coords, features, shape.grid, shape.grid.shape, (1, 1, 1), source.batch_size)
    return PillarPair(pillars, rows[: len(source.xyz)], num_source)


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
    xyz: Tensor, height: Tensor, row: Tensor, is_source: Bool[Tensor, " N"], coords: Int32[Tensor, "V 4"],
    shape: FlowNetworkShape,
) -> tuple[Float[Tensor, "V C"], Float[Tensor, " V"]]:  # fmt: skip
    """Return counts by layer and means of each pillar, source columns first, and the number of source points."""
    num, layers = len(coords), shape.layers
    center = shape.grid.centers(coords[:, 1:])
    layer = (height / shape.layer).floor().long().clamp(0, layers - 1)
    sweep = (~is_source).long()
    counts = torch.bincount((row * 2 + sweep) * layers + layer, minlength=num * 2 * layers).view(num, 2, layers)
    offset = torch.cat([(xyz[:, :2] - center[row, :2]) / shape.cell, height[:, None] / 4], 1)
    sums = offset.new_zeros(num * 2, 3).index_add_(0, row * 2 + sweep, offset).view(num, 2, 3)
    total = counts.sum(2).float()
    means = sums / total.clamp(min=1)[:, :, None]
    return torch.cat([counts.float().log1p() / 3, means], 2).flatten(1), total[:, 0]


class FlowNetwork(nn.Module):
    """A U-shaped sparse network over pillars of 1, 2, 4 and 8 cells; its answer is one motion for each pillar.

    Attributes:
        shape: of the network.
    """

    def __init__(self, shape: FlowNetworkShape) -> None:
        """Build it for a shape."""
        super().__init__()
        self.shape = shape
        widths = [shape.width, 2 * shape.width, 4 * shape.width, 4 * shape.width]
        self.stem = nn.Sequential(_same(shape.channels, widths[0]), _same(widths[0], widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(
                SparseBlock(SparseConv3d(fine, coarse, _FLAT, (1, 2, 2), (0, 1, 1)), momentum=0.1),
                _same(coarse, coarse),
                _same(coarse, coarse),
            )
            for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            InverseConv3d(coarse, fine, _FLAT, (1, 2, 2), (0, 1, 1), bias=True)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.join = nn.ModuleList(_same(2 * fine, fine) for fine in widths[:-1])
        self.head = nn.Sequential(nn.Linear(widths[0], 2 * widths[0]), nn.ReLU(), nn.Linear(2 * widths[0], 4))

    def forward(self, pair: PillarPair) -> tuple[Float[Tensor, "V 3"], Float[Tensor, " V"]]:
        """Return motion over ground (metres over the gap) and the logit of moving, of each pillar."""
        stages = [self.stem(pair.pillars)]
        for down in self.down:
            stages.append(down(stages[-1]))
        found = stages.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            fine = stages.pop()
            risen = torch.relu(up(found, fine).features)
            found = join(fine.with_features(torch.cat([fine.features, risen], 1)))
        answer = self.head(found.features)
        return answer[:, :3], answer[:, 3]


def _same(channels: int, width: int) -> SparseBlock:
    return SparseBlock(SubmanifoldConv3d(channels, width, _FLAT), momentum=0.1)


def at_points(values: Float[Tensor, "V ..."], rows: Int64[Tensor, " N"]) -> Float[Tensor, "N ..."]:
    """Return the value of each point's pillar, zero for points of none."""
    known = rows >= 0
    if not len(values):
        return values.new_zeros(len(rows), *values.shape[1:])
    picked = values[rows.clamp(min=0)]
    return torch.where(known.view(-1, *[1] * (values.ndim - 1)), picked, 0.0)
