import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops.voxelize import mean_by_row, occupied_voxels, voxel_rows, voxelize_hard, voxelize_mean
from equilidar.structures import GridSpec, PointCloudBatch
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_close, assert_op

from .implementations import assert_kernel_equals_reference, assert_same_bits_with_any_threads

GRID = GridSpec((-2.0, -1.0, -1.0), (2.0, 2.0, 1.0), (0.5, 0.25, 1.0))


def cloud(lengths: list[int], seed: int, spread: float = 3.0) -> PointCloudBatch:
    generator = torch.Generator().manual_seed(seed)
    num = sum(lengths)
    xyz = (torch.rand(num, 3, generator=generator) * 2 - 1) * spread
    return PointCloudBatch(xyz, torch.rand(num, 2, generator=generator), from_lengths(lengths), ("intensity", "time"))


def cells_by_loop(points: PointCloudBatch, grid: GridSpec) -> dict[tuple[int, ...], list[int]]:
    """Points of each cell [batch, z, y, x], in the order of the cloud; float32 arithmetic as in the grid."""
    low, size = np.float32(grid.low), np.float32(grid.voxel_size)
    cells: dict[tuple[int, ...], list[int]] = {}
    for row, (item, point) in enumerate(zip(points.batch_index.tolist(), points.xyz.numpy(), strict=True)):
        x, y, z = np.floor((point - low) / size).astype(int).tolist()
        if all(0 <= i < n for i, n in zip((z, y, x), grid.shape, strict=True)):
            cells.setdefault((item, z, y, x), []).append(row)
    return cells


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_mean_is_the_mean_of_each_cell_sorted(lengths, seed):
    points = cloud(lengths, seed)
    voxels = voxelize_mean(points, GRID)
    expected = cells_by_loop(points, GRID)
    assert [tuple(row) for row in voxels.coords.tolist()] == sorted(expected)
    values = torch.cat([points.xyz, points.features], 1)
    for row, members in zip(voxels.features, (expected[key] for key in sorted(expected)), strict=True):
        torch.testing.assert_close(row, values[members].mean(0))
    assert voxels.batch_size == len(lengths) and voxels.shape == GRID.shape


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_rows_point_at_the_voxel_that_holds_the_point(seed):
    points = cloud([30, 0, 25], seed)
    rows = voxel_rows(points.xyz, points.offsets, GRID)
    coords = voxelize_mean(points, GRID).coords
    inside = GRID.contains(points.xyz)
    assert torch.equal(rows >= 0, inside)
    found = coords[rows[inside]]
    assert torch.equal(found[:, 0].long(), points.batch_index[inside])
    assert torch.equal(found[:, 1:].flip(1).long(), GRID.index_xyz(points.xyz)[inside])


def test_faces_belong_to_the_upper_voxel_and_the_range_is_half_open():
    xyz = torch.tensor([[-2.0, -1.0, -1.0], [-1.5, -0.75, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    rows, coords = occupied_voxels(xyz, torch.tensor([0, 5]), GRID)
    assert coords.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert rows.tolist() == [0, 1, -1, -1, -1]


def test_not_a_number_is_in_no_voxel():
    xyz = torch.tensor([[float("nan"), 0.0, 0.0], [0.0, float("inf"), 0.0], [0.0, 0.0, -float("inf")], [0.1, 0.1, 0.1]])
    assert voxel_rows(xyz, torch.tensor([0, 4]), GRID).tolist() == [-1, -1, -1, 0]


def test_no_points_give_no_voxels():
    points = cloud([0, 0], 0)
    voxels = voxelize_mean(points, GRID)
    assert voxels.coords.shape == (0, 4) and voxels.features.shape == (0, 5) and voxels.batch_size == 2
    hard = voxelize_hard(points, GRID, 3, 3)
    assert hard.points.shape == (0, 3, 5) and hard.mean().features.shape == (0, 5)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_hard_keeps_first_points_of_first_voxels(lengths, max_points, max_voxels, seed):
    points = cloud(lengths, seed, spread=1.2)
    hard = voxelize_hard(points, GRID, max_points, max_voxels)
    values = torch.cat([points.xyz, points.features], 1)
    # A dict keeps the order of first points; items follow one another.
    kept = []
    for item in range(len(lengths)):
        cells = [(key, rows) for key, rows in cells_by_loop(points, GRID).items() if key[0] == item]
        kept += cells[:max_voxels]
    assert [tuple(row) for row in hard.coords.tolist()] == [key for key, _ in kept]
    for voxel, count, (_, rows) in zip(hard.points, hard.num_points.tolist(), kept, strict=True):
        assert count == min(len(rows), max_points)
        assert torch.equal(voxel[:count], values[rows[:max_points]])
        assert voxel[count:].abs().sum() == 0


def test_hard_without_truncation_has_the_dynamic_mean():
    points = cloud([50, 30], 3)
    hard, dynamic = voxelize_hard(points, GRID, 100, 1000).mean(), voxelize_mean(points, GRID)
    assert torch.equal(hard.coords, dynamic.coords)
    torch.testing.assert_close(hard.features, dynamic.features)


def test_hard_sorted_holds_the_same_voxels_in_order():
    hard = voxelize_hard(cloud([50, 0, 30], 3), GRID, 3, 9)
    ordered = hard.sorted()
    keys = [tuple(row) for row in hard.coords.tolist()]
    assert [tuple(row) for row in ordered.coords.tolist()] == sorted(keys) != keys
    for row, key in enumerate(sorted(keys)):
        assert torch.equal(ordered.points[row], hard.points[keys.index(key)])
        assert ordered.num_points[row] == hard.num_points[keys.index(key)]
    assert torch.equal(ordered.mean().features, hard.mean().features)


def test_hard_refuses_empty_caps():
    with pytest.raises(ValueError, match="max_points and max_voxels"):
        voxelize_hard(cloud([3], 0), GRID, 0, 5)


def case(name: str) -> tuple[PointCloudBatch, GridSpec]:
    points, grid = cloud([20, 0, 7], 1), GRID
    xyz, features, offsets = points.xyz, points.features, points.offsets
    match name:
        case "no item":
            points = cloud([], 0)
        case "empty":
            points = cloud([0, 0], 0)
        case "one point":
            points = cloud([1], 0, spread=0.5)
        case "duplicates":
            points = PointCloudBatch(xyz[[0, 1, 0, 0, 1]], features[:5], torch.tensor([0, 2, 5]), points.channels)
        case "out of range":
            points = PointCloudBatch(xyz + 100, features, offsets, points.channels)
        case "no number":
            xyz[3], xyz[5, 1], xyz[7, 2] = torch.nan, torch.inf, -torch.inf
        case "non-contiguous":
            table, bounds = torch.cat([features, xyz.flip(1), features], 1), offsets.repeat_interleave(2)
            points = PointCloudBatch(table[:, 2:5].flip(1), table[:, ::5][:, :2], bounds[::2], points.channels)
        case "double":
            points = PointCloudBatch(xyz.double(), features.double(), offsets, points.channels)
        case "more cells than 2^31":
            grid = GridSpec((-5000.0, -5000.0, -2.0), (5000.0, 5000.0, 2.0), (0.05, 0.05, 0.1))
            points = PointCloudBatch(xyz * 1600, features, offsets, points.channels)
        case "key and row in more than 64 bits":
            grid = GridSpec((-16384.0, -8192.0, -8192.0), (16384.0, 8192.0, 8192.0), (0.5, 0.5, 0.5))
            bounds = torch.full((1 << 16,), 27).index_fill_(0, torch.arange(40000), 11)
            bounds[0] = 0
            points = PointCloudBatch(xyz * 2000, features, bounds, points.channels)
    return points, grid


CASES = [
    "no item", "empty", "one point", "one empty item", "duplicates", "out of range", "no number", "non-contiguous",
    "double", "more cells than 2^31", "key and row in more than 64 bits",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ops_agree_with_their_references(name, device):
    points, grid = case(name)
    points = points.to(device)
    ops, ranges = torch.ops.equilidar, (grid.low, grid.high, grid.voxel_size)
    assert_op(ops.voxel_rows.default, (points.xyz, points.offsets, *ranges))
    assert_op(ops.voxel_means.default, (points.xyz, points.features, points.offsets, *ranges))
    assert_op(ops.voxel_slots.default, (points.xyz, points.offsets, *ranges, 2, 5))
    _, num_points, slots = ops.voxel_slots(points.xyz, points.offsets, *ranges, 2, 5)
    values = [tensor.detach().clone().requires_grad_() for tensor in (points.xyz.nan_to_num(), points.features)]
    assert_op(ops.fill_voxel_slots.default, (*values, slots, num_points, 2))


def test_any_number_of_threads_gives_the_same_bits():
    points = cloud([60_000, 0, 50_000], 4)
    fine = GridSpec((-2.0, -2.0, -1.0), (2.0, 2.0, 1.0), (0.05, 0.05, 0.1))

    def run() -> tuple[torch.Tensor, ...]:
        mean, hard = voxelize_mean(points, fine), voxelize_hard(points, fine, 2, 9000)
        rows, _ = occupied_voxels(points.xyz, points.offsets, fine)
        return rows, mean.coords, mean.features, hard.coords, hard.points, hard.num_points

    assert_same_bits_with_any_threads(run)
    # Many at once take other ways than few: they agree with the reference, too.
    args = (points.xyz, points.features, points.offsets, fine.low, fine.high, fine.voxel_size)
    assert_kernel_equals_reference(torch.ops.equilidar.voxel_means.default, *args)
    slots = (points.xyz, points.offsets, fine.low, fine.high, fine.voxel_size, 2, 9000)
    assert_kernel_equals_reference(torch.ops.equilidar.voxel_slots.default, *slots)


def test_cells_that_no_key_tells_apart_are_refused():
    points = cloud([5], 0)
    for low, size in ((-1e6, 1e-3), (-2e4, 1e-5)):
        grid = GridSpec((low,) * 3, (-low,) * 3, (size,) * 3)
        for run in (voxelize_mean, lambda *args: voxelize_hard(*args, 3, 3)):
            with pytest.raises(ValueError, match="told apart"):
                run(points, grid)
    # The batch takes part of the key.
    fits = GridSpec((-16384.0, -8192.0, -8192.0), (16384.0, 8192.0, 8192.0), (0.5, 0.5, 0.5))
    voxel_rows(points.xyz, points.offsets, fits)
    with pytest.raises(ValueError, match="batch of 131072"):
        voxel_rows(points.xyz, torch.full((131_073,), 5).index_fill_(0, torch.tensor([0]), 0), fits)


@pytest.mark.parametrize("lengths", [[0, 0], [1], [20, 0, 7]], ids=str)
def test_means_agree_with_the_differentiable_way(lengths, device):
    points = cloud(lengths, 1).to(device)
    plain = voxelize_mean(points, GRID)
    points.features.requires_grad_()
    differentiable = voxelize_mean(points, GRID)
    assert torch.equal(plain.coords, differentiable.coords)
    assert_close(differentiable.features, plain.features)
    if device == "cpu":
        assert torch.equal(plain.features, differentiable.features)
    (gradient,) = torch.autograd.grad(differentiable.features.sum(), points.features)
    # Each voxel hands out a total of one to its points.
    torch.testing.assert_close(gradient.sum(), gradient.new_tensor(2.0 * len(plain.coords)))


def test_mean_is_differentiable():
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 2, 0, 2, -1, 2])
    assert torch.autograd.gradcheck(lambda v: mean_by_row(v, rows, 4), values)
    assert mean_by_row(values, rows, 4)[[1, 3]].abs().sum() == 0
