"""Voxel pooling against neighbours found by looking at every voxel, and layers as they are written down."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from equilidar.detection.voxel_pooling import VoxelNeighbors, VoxelPooling
from equilidar.structures import GridSpec, SparseVoxels

GRID = GridSpec.from_range([0, -3.2, -3, 6.4, 3.2, 1], [0.1, 0.1, 0.1])
STRIDE = (4, 4, 4)
SHAPE = (10, 16, 16)
SCALES = (VoxelNeighbors((1, 2, 2), 0.9, 5, (6, 7)), VoxelNeighbors((2, 1, 1), 0.5, 3, (4, 3)))


def voxels(seed: int, num: int = 300, channels: int = 8) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(2 * 10 * 16 * 16, generator=generator)[:num].sort().values
    coords = torch.stack([cells // 2560, cells // 256 % 10, cells // 16 % 16, cells % 16], 1).int()
    return SparseVoxels(coords, torch.randn(num, channels, generator=generator), GRID, SHAPE, STRIDE, 2)


def places(seed: int, num: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of both sweeps, some of them beyond the grid."""
    generator = torch.Generator().manual_seed(seed + 1)
    xyz = torch.rand(num, 3, generator=generator) * torch.tensor([7.0, 7, 4.6]) - torch.tensor([0.3, 3.5, 3.3])
    return xyz, torch.randint(0, 2, (num,), generator=generator)


def neighbours(cells: SparseVoxels, points: torch.Tensor, item: torch.Tensor, scale: VoxelNeighbors) -> list[list[int]]:
    """Rows of the voxels that each point pools, in the order of cells; those found first where there are too many."""
    low, size = np.array(GRID.low), np.array(GRID.voxel_size) * np.array(STRIDE[::-1])
    by_cell = {tuple(cell): row for row, cell in enumerate(cells.coords.tolist())}
    found = []
    for point, sweep in zip(points.double().numpy(), item.tolist(), strict=True):
        x, y, z = (int(v) for v in np.floor((point - low) / size))
        rows = []
        for dz in range(-scale.max_range[0], scale.max_range[0] + 1):
            for dy in range(-scale.max_range[1], scale.max_range[1] + 1):
                for dx in range(-scale.max_range[2], scale.max_range[2] + 1):
                    row = by_cell.get((sweep, z + dz, y + dy, x + dx))
                    center = low + (np.array([x + dx, y + dy, z + dz]) + 0.5) * size
                    if row is not None and np.linalg.norm(center - point) <= scale.radius:
                        rows.append(row)
        found.append(rows[: scale.num])
    return found


class Written(nn.Module):
    """The layers as their definition has them, on (points, neighbours, channels)."""

    def __init__(self, inside: int, scale: VoxelNeighbors) -> None:
        super().__init__()
        middle, outside = scale.channels
        self.scale = scale
        self.before = nn.Sequential(nn.Linear(inside, middle, bias=False), nn.BatchNorm1d(middle))
        self.position = nn.Sequential(nn.Linear(3, middle, bias=False), nn.BatchNorm1d(middle))
        self.after = nn.Sequential(nn.Linear(middle, outside, bias=False), nn.BatchNorm1d(outside), nn.ReLU())

    def load(self, pooling: VoxelPooling, index: int) -> "Written":
        parts = ((self.before, pooling.mlps_in), (self.position, pooling.mlps_pos), (self.after, pooling.mlps_out))
        for ours, theirs in parts:
            state = {name: value.squeeze() for name, value in theirs[index].state_dict().items()}
            ours.load_state_dict(state)
        return self

    def forward(self, cells: SparseVoxels, points: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        hidden = self.before(cells.features)
        centers = cells.centers()
        values, offsets = [], []
        for point, rows in zip(points, neighbours(cells, points, item, self.scale), strict=True):
            rows = rows + rows[:1] * (self.scale.num - len(rows)) if rows else None
            values.append(hidden.new_zeros(self.scale.num, hidden.shape[1]) if rows is None else hidden[rows])
            offsets.append(points.new_zeros(self.scale.num, 3) if rows is None else centers[rows] - point)
        position = self.position(torch.cat(offsets)).view(len(points), self.scale.num, -1)
        return self.after((torch.stack(values) + position).relu().amax(1))


def both(seed: int) -> tuple[VoxelPooling, list[Written]]:
    torch.manual_seed(seed)
    pooling = VoxelPooling(8, SCALES)
    for module in pooling.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return pooling, [Written(8, scale).load(pooling, index) for index, scale in enumerate(SCALES)]


@pytest.mark.parametrize("training", [True, False])
def test_features_gradients_and_statistics_are_those_of_the_definition(training: bool) -> None:
    cells, (points, item) = voxels(0), places(0)
    counts = [len(rows) for rows in neighbours(cells, points, item, SCALES[0])]
    assert 0 in counts and 5 in counts and any(0 < count < 5 for count in counts)
    pooling, written = both(0)
    pooling.train(training)
    ours, theirs = cells.features.clone().requires_grad_(), cells.features.clone().requires_grad_()
    got = pooling(cells.with_features(ours), points, item)
    expected = torch.cat([part.train(training)(cells.with_features(theirs), points, item) for part in written], 1)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)

    weights = torch.randn_like(got)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    for index, part in enumerate(written):
        pairs = ((pooling.mlps_in, part.before), (pooling.mlps_pos, part.position), (pooling.mlps_out, part.after))
        for layers, named in pairs:
            for (name, mine), (_, other) in zip(
                layers[index].named_parameters(), named.named_parameters(), strict=True
            ):
                torch.testing.assert_close(mine.grad.squeeze(), other.grad, atol=2e-4, rtol=1e-4, msg=name)
            for (name, mine), (_, other) in zip(layers[index].named_buffers(), named.named_buffers(), strict=True):
                torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5, msg=name)


def test_offsets_survive_far_from_the_origin() -> None:
    """The position's part is split in two; near 1 km from the origin the parts must not drown their difference."""
    near, (points, item) = voxels(1), places(1)
    shift = torch.tensor([1024.0, -512.0, 0.0])
    moved = GridSpec(
        tuple(float(a + b) for a, b in zip(GRID.low, shift, strict=True)),  # type: ignore[arg-type]
        tuple(float(a + b) for a, b in zip(GRID.high, shift, strict=True)),  # type: ignore[arg-type]
        GRID.voxel_size,
    )
    far = SparseVoxels(near.coords, near.features, moved, SHAPE, STRIDE, 2)
    pooling, _ = both(1)
    other = copy.deepcopy(pooling)
    torch.testing.assert_close(other(far, points + shift, item), pooling(near, points, item), atol=2e-3, rtol=1e-3)


def test_scene_and_points_moved_by_whole_cells_pool_the_same() -> None:
    cells, (points, item) = voxels(2), places(2)
    inner = (cells.coords[:, 2:] < 12).all(1)
    cells = SparseVoxels(cells.coords[inner], cells.features[inner], GRID, SHAPE, STRIDE, 2)
    points = points.clamp(torch.tensor([0.0, -3.2, -3]), torch.tensor([4.0, 0.8, 0.9]))
    shifted = SparseVoxels(cells.coords + torch.tensor([0, 0, 2, 1]).int(), cells.features, GRID, SHAPE, STRIDE, 2)
    pooling, _ = both(2)
    pooling.eval()
    moved = points + torch.tensor([0.4, 0.8, 0.0])
    torch.testing.assert_close(pooling(shifted, moved, item), pooling(cells, points, item), atol=1e-4, rtol=1e-4)


def test_no_voxels_at_all() -> None:
    points, item = places(0)
    none = voxels(0, num=0)
    pooling, _ = both(0)
    for mode in (True, False):
        got = pooling.train(mode)(none, points, item)
        got.sum().backward()
        assert torch.isfinite(got).all() and got.shape == (60, 10)
        assert all(torch.isfinite(parameter.grad).all() for parameter in pooling.parameters())


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_range must be 3 numbers .* got \[4\]"):
        VoxelNeighbors([4], 0.4, 16, [32, 32])
    with pytest.raises(ValueError, match="channels 2 widths"):
        VoxelNeighbors([4, 4, 4], 0.4, 16, [32])
