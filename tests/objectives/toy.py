"""A toy world: small clouds whose points carry marks, an encoder of two sparse stages, and features made by hand."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones.feature_info import FeatureInfo
from equilidar.flow import ExactFlow
from equilidar.objectives.cells import cells_along, cells_of_points
from equilidar.structures import (
    Affine3,
    BackboneFeatures,
    GridSpec,
    PairFeatures,
    PointCloudBatch,
    SensorContract,
    SparseVoxels,
    Sweep,
    SweepPair,
    SweepPairBatch,
    View,
    ViewPair,
)

GRID = GridSpec((-8.0, -8.0, -2.0), (8.0, 8.0, 2.0), (0.5, 0.5, 0.5))
STRIDES = {"conv4": (4, 4, 4), "out": (8, 4, 4)}
MARKS = 4
# From points, the row of each point's cell, and the cells' centers to the cells' features.
Encoding = Callable[[PointCloudBatch, Tensor, Tensor], Tensor]
CONTRACT = SensorContract(tuple(f"mark{i}" for i in range(MARKS)), (1.0,) * MARKS, "sensor")


def info(channels: int) -> FeatureInfo:
    """Two stages of cells of 2 m; the last is one level high, so that its map has as many channels."""
    return FeatureInfo(dict.fromkeys(STRIDES, channels), STRIDES, channels, (8, 8), (4, 4))


def scene_pair(seed: int, num: int = 300) -> SweepPair:
    """Two sweeps of a scene: the sensor drives and turns, a few clumps move besides; marks vary from place to place."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    places, clump = (rand(12, 3) - 0.5) * torch.tensor([14.0, 14.0, 3.0]), torch.arange(num) % 12
    xyz = places[clump] + 0.4 * torch.randn(num, 3, generator=generator)
    marks = torch.randn(12, MARKS, generator=generator)[clump] + 0.1 * torch.randn(num, MARKS, generator=generator)
    motion = torch.eye(4, dtype=torch.float64)
    angle = float(rand(1) - 0.5) * 0.2
    motion[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    motion[0, 3] = -float(rand(1)) * 3
    own = (rand(12, 3) - 0.5) * torch.tensor([3.0, 3.0, 0.0]) * (rand(12, 1) < 0.4)
    target = Affine3.from_matrix(motion[None].float()).apply(xyz + own[clump], torch.tensor([0, num]))
    return SweepPair(
        Sweep(xyz, marks, CONTRACT, f"toy/{seed}/0", 0.0),
        Sweep(target, marks, CONTRACT, f"toy/{seed}/1", 0.1),
        motion,
        target - xyz,
        torch.ones(num, dtype=torch.bool),
    )


def views(*seeds: int, group: SpatialGroup | None = None, num: int = 300, **switches) -> ViewPair:
    batch = SweepPairBatch.collate([scene_pair(seed, num) for seed in seeds], list(seeds))
    return ViewPipeline(GRID, group or SpatialGroup(), **switches)(batch, ExactFlow()(batch))


def sparse_stage(name: str, points: PointCloudBatch, function: Encoding) -> SparseVoxels:
    """Return the occupied cells of a stage, encoded by `function`."""
    stride = STRIDES[name]
    cells = cells_of_points(GRID, stride, points.xyz, points.batch_index)
    coords, row = cells.unique(dim=0, return_inverse=True)
    centers = GRID.centers(coords[:, 1:], stride)
    features = function(points, row, centers)
    return SparseVoxels(coords.int(), features, GRID, cells_along(GRID, stride), stride, points.batch_size)


def encode_by(function: Encoding, points: PointCloudBatch) -> BackboneFeatures:
    return BackboneFeatures({name: sparse_stage(name, points, function) for name in STRIDES})


def mean_by(row: Tensor, values: Tensor, num: int) -> Tensor:
    total = values.new_zeros(num, values.shape[1]).index_add(0, row, values)
    return total / torch.bincount(row, minlength=num).clamp(min=1)[:, None]


class ToyEncoder(nn.Module):
    """A cell's feature: an MLP of its points' mean marks, height and place in the cell."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(MARKS + 3, 32), nn.ReLU(), nn.Linear(32, channels))
        self.feature_info = info(channels)

    def forward(self, points: PointCloudBatch) -> BackboneFeatures:
        def function(points: PointCloudBatch, row: Tensor, centers: Tensor) -> Tensor:
            local = torch.cat([points.features, points.xyz - centers[row]], 1)
            return self.layers(mean_by(row, local, len(centers)))

        return encode_by(function, points)


class ConstantEncoder(nn.Module):
    """The same feature everywhere."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.linspace(-1, 1, channels))
        self.feature_info = info(channels)

    def forward(self, points: PointCloudBatch) -> BackboneFeatures:
        return encode_by(lambda _, row, centers: self.value.expand(len(centers), -1), points)


def encode_pair(pair: ViewPair, encoder: nn.Module, target: nn.Module | None = None) -> PairFeatures:
    source = None
    if pair.source is not None and target is not None:
        with torch.no_grad():
            source = target(pair.source.view.points)
    elif pair.source is not None:
        source = encoder(pair.source.view.points)
    temporal = None if pair.temporal is None else encoder(pair.temporal.points)
    return PairFeatures(pair, encoder(pair.a.points), encoder(pair.b.points), source, temporal)


def place_code(xyz: Tensor, channels: int = 16) -> Tensor:
    """Return smooth functions of the place: what an encoder that knows each place would give."""
    generator = torch.Generator().manual_seed(0)
    waves = 0.6 * torch.randn(3, channels, generator=generator)
    return torch.cos(xyz @ waves + torch.rand(channels, generator=generator) * 2 * math.pi)


def knowing(view: View, to_scene: Callable[[Tensor, PointCloudBatch], Tensor]) -> BackboneFeatures:
    """Encode a view by the places, in a common frame, of the points of each cell."""

    def function(points: PointCloudBatch, row: Tensor, centers: Tensor) -> Tensor:
        return mean_by(row, place_code(to_scene(points.xyz, points)), len(centers))

    return encode_by(function, view.points)


def shuffled(encoded: BackboneFeatures, seed: int = 0) -> BackboneFeatures:
    """Deal each stage's features anew among its cells."""
    generator = torch.Generator().manual_seed(seed)
    return BackboneFeatures(
        {
            name: voxels.with_features(voxels.features[torch.randperm(len(voxels.features), generator=generator)])
            for name, voxels in encoded.stages.items()
        }
    )


def follow(online: nn.Module, target: nn.Module, momentum: float) -> None:
    """Move a target network towards the online one; buffers, too."""
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)
        for mine, theirs in zip(target.buffers(), online.buffers(), strict=True):
            mine.copy_(theirs)


def target_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)
