"""What networks and objectives return."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures.grid import GridSpec
from equilidar.structures.host_sync import allowed_sync
from equilidar.structures.moving import Movable
from equilidar.structures.views import ViewPair
from equilidar.structures.voxels import BEVMap, SparseVoxels


@dataclass(slots=True)
class BEVCells(Movable):
    """Features of the occupied cells of a bird's-eye-view map.

    Attributes:
        coords: (K, 3) int64 columns [batch, y, x], sorted, unique.
        features: (K, C).
        grid: the input grid.
        shape: (y, x) cells.
        stride: (y, x) relative to the input grid.
        batch_size: B.
    """

    coords: Int64[Tensor, "K 3"]
    features: Float[Tensor, "K C"]
    grid: GridSpec
    shape: tuple[int, int]
    stride: tuple[int, int]
    batch_size: int

    def dense(self) -> BEVMap:
        """Return the dense map, empty cells zero."""
        dense = self.features.new_zeros(self.batch_size, *self.shape, self.features.shape[1])
        batch, y, x = self.coords.unbind(1)
        dense[batch, y, x] = self.features
        return BEVMap(dense.permute(0, 3, 1, 2), self.grid, self.stride)


@dataclass(slots=True)
class BackboneFeatures(Movable):
    """A backbone's output, the same for pretraining and detection.

    Attributes:
        stages: sparse features by stage name, in order; the last one is what the detector reads.
    """

    stages: dict[str, SparseVoxels]

    @property
    def last(self) -> SparseVoxels:
        return next(reversed(self.stages.values()))

    def bev_cells(self) -> BEVCells:
        """Stack the last stage's z levels into channels (index c * Z + z, as OpenPCDet's HeightCompression)."""
        voxels = self.last
        levels, height, width = voxels.shape
        # Several objectives ask for the cells of one view.
        key = ("columns", height, width)
        if key not in voxels.rulebooks:
            voxels.rulebooks[key] = _columns(voxels)
        coords, row = voxels.rulebooks[key]
        stacked = voxels.features.new_zeros(len(coords), voxels.features.shape[1], levels)
        stacked[row, :, voxels.coords[:, 1].long()] = voxels.features
        features = stacked.flatten(1)
        return BEVCells(coords, features, voxels.grid, (height, width), voxels.stride[1:], voxels.batch_size)

    def bev_map(self) -> BEVMap:
        """Return the dense map of the last stage, channels as in `bev_cells`; asks not which cells are occupied."""
        voxels = self.last
        levels, height, width = voxels.shape
        dense = voxels.features.new_zeros(voxels.batch_size, height, width, voxels.features.shape[1], levels)
        batch, z, y, x = voxels.coords.long().unbind(1)
        dense[batch, y, x, :, z] = voxels.features
        return BEVMap(dense.flatten(3).permute(0, 3, 1, 2), voxels.grid, voxels.stride[1:])


def _columns(voxels: SparseVoxels) -> tuple[Int64[Tensor, "K 3"], Int64[Tensor, " V"]]:
    """Return the occupied [batch, y, x] cells, sorted, and the one that each voxel is in."""
    _, height, width = voxels.shape
    batch, _, y, x = voxels.coords.long().unbind(1)
    with allowed_sync("number of occupied cells of the bird's-eye view"):
        cell, row = ((batch * height + y) * width + x).unique(return_inverse=True)
    return torch.stack([cell // (height * width), cell // width % height, cell % width], 1), row


@dataclass(slots=True)
class PairFeatures(Movable):
    """Encoded views.

    Attributes:
        views: the views and what relates them.
        a, b: features of the two views from the online network.
        source: features of the source sweep from the EMA target network, without gradient; None if not read.
        temporal: features of `views.temporal` from the online network, where there is that view.
    """

    views: ViewPair
    a: BackboneFeatures
    b: BackboneFeatures
    source: BackboneFeatures | None
    temporal: BackboneFeatures | None = None


@dataclass(slots=True)
class LossTerms:
    """What an objective returns.

    Attributes:
        terms: scalar losses by name, unweighted.
        weights: the factor of each term in the total.
        metrics: detached scalars to be logged.
    """

    terms: dict[str, Tensor]
    weights: dict[str, float]
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.terms.keys() != self.weights.keys():
            raise ValueError(f"loss terms {sorted(self.terms)} and weights {sorted(self.weights)} differ")

    def total(self) -> Float[Tensor, ""]:
        """Return the weighted sum."""
        weighted = [term * self.weights[name] for name, term in self.terms.items()]
        return torch.stack(weighted).sum()
