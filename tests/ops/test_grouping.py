"""Queries of groups against loops in OpenPCDet's order; features read there and their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from equilidar.ops._registration import reference_of
from equilidar.ops.grouping import ball_query, group, three_interpolate, three_nn, voxel_query
from equilidar.structures import GridSpec, SparseVoxels
from equilidar.structures.offsets import from_lengths, to_batch_index
from equilidar.testing import assert_close, assert_equivariant, assert_op, similarities


def cloud(num, seed=0, step=None):
    points = torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) * 4
    return points if step is None else (points / step).round() * step


def ball_loop(xyz, offsets, centers, center_offsets, radius, k):
    rows = torch.full((len(centers), k), -1)
    items = to_batch_index(center_offsets.cpu(), len(centers)).tolist()
    bound = torch.tensor(radius, dtype=xyz.dtype) ** 2
    for i, item in enumerate(items):
        count = 0
        for row in range(int(offsets[item]), int(offsets[item + 1])):
            dx, dy, dz = (centers[i] - xyz[row]).unbind()
            if dx * dx + dy * dy + dz * dz < bound:
                if count == 0:
                    rows[i] = row
                rows[i, count] = row
                count += 1
                if count == k:
                    break
    return rows.to(xyz.device)


FAR = torch.tensor([[0.0, 0, 0], [1e7, 0, 0], [0.004, 0, 0], [-1e7, 1e7, -1e7], [1e7, 0, 0]])
BALLS = {
    "empty": (cloud(0), [0], cloud(0), [0]),
    "no items": (cloud(0), [], cloud(0), []),
    "no points": (cloud(0), [0], cloud(3), [3]),
    "no centers": (cloud(5), [5], cloud(0), [0]),
    "one point": (cloud(1), [1], cloud(1), [1]),
    "empty items": (cloud(60), [0, 25, 0, 35], cloud(20, 1), [5, 5, 5, 5]),
    "duplicates": (cloud(6).repeat(5, 1), [30], cloud(6), [6]),
    "on the radius": (cloud(70, step=0.5), [70], cloud(12, 1, step=0.5), [12]),
    "far away": (cloud(30) + 100, [30], cloud(6), [6]),
    "huge extent": (FAR, [5], FAR, [5]),
    "not finite": (cloud(12).index_fill(0, torch.tensor([2]), math.nan), [12], cloud(3) * math.inf, [3]),
    "non-contiguous": (cloud(80)[::2], [20, 20], cloud(24, 1).T.contiguous().T[::2], [6, 6]),
}


@pytest.mark.parametrize("case", BALLS)
@pytest.mark.parametrize(("radius", "k"), [(1.0, 4), (0.01, 3), (30.0, 50)])
def test_ball_query(case, radius, k, device):
    xyz, lengths, centers, center_lengths = BALLS[case]
    args = [xyz, from_lengths(lengths), centers, from_lengths(center_lengths)]
    op, args = torch.ops.equilidar.ball_query.default, [*(arg.to(device) for arg in args), radius, k]
    if radius == 1:
        assert_op(op, args, reference=ball_loop)
    assert_close(op(*args), ball_loop(*args))
    assert_close(reference_of(op)(*args), ball_loop(*args))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 400), st.floats(0.05, 3.0))
def test_balls_hold_what_scipy_finds(seed, num, radius):
    xyz, centers = cloud(num, seed), cloud(20, seed + 1)
    rows = ball_query(xyz, from_lengths([num]), centers, from_lengths([20]), radius, num)
    distance = torch.cdist(centers.double(), xyz.double())
    for i, expected in enumerate(KDTree(xyz.double()).query_ball_point(centers.double(), radius)):
        clear = {row for row in range(num) if abs(float(distance[i, row]) - radius) > 1e-5}
        assert (set(rows[i].tolist()) - {-1}) & clear == set(expected) & clear
        assert rows[i].unique().numel() <= max(1, len(expected) + 3)


def test_groups_move_with_points():
    xyz, centers = cloud(300), cloud(40, 1)
    offsets = from_lengths([300]), from_lengths([40])
    assert_equivariant(
        lambda pair: ball_query(pair[0], offsets[0], pair[1], offsets[1], 0.8, 8).double(),
        similarities(10, scale=(1.0, 1.0)),
        inputs=(xyz, centers),
        act=lambda t, pair: (t.apply(pair[0], offsets[0]), t.apply(pair[1], offsets[1])),
        tolerance=0.0,
    )


GRID = GridSpec((0.0, 0.0, 0.0), (4.0, 4.0, 4.0), (0.5, 0.25, 0.5))


def voxels_of(num, batch_size=2, stride=(1, 1, 1), seed=0):
    shape = tuple(-(-cells // step) for cells, step in zip(GRID.shape, stride, strict=True))
    z, y, x = shape
    keys = torch.randperm(batch_size * z * y * x, generator=torch.Generator().manual_seed(seed))[:num]
    coords = torch.stack([keys // (z * y * x), keys // (y * x) % z, keys // x % y, keys % x], 1).int()
    return SparseVoxels(coords, torch.zeros(len(keys), 1), GRID, shape, stride, batch_size)


def voxel_loop(coords, xyz, limits, centers, cells, max_range, radius, k):
    table = {tuple(cell): row for row, cell in enumerate(coords.tolist())}
    rows = torch.full((len(centers), k), -1)
    bound = torch.tensor(radius, dtype=xyz.dtype) ** 2
    for i, (item, z, y, x) in enumerate(cells.tolist()):
        found = []
        for dz in range(-max_range[0], max_range[0] + 1):
            for dy in range(-max_range[1], max_range[1] + 1):
                for dx in range(-max_range[2], max_range[2] + 1):
                    row = table.get((item, z + dz, y + dy, x + dx))
                    if row is not None:
                        a, b, c = (xyz[row] - centers[i]).unbind()
                        if a * a + b * b + c * c <= bound:
                            found.append(row)
        if found:
            rows[i] = torch.tensor((found + [found[0]] * k)[:k])
    return rows.to(xyz.device)


@pytest.mark.parametrize(("num", "num_centers", "stride"), [(0, 4, (1, 1, 1)), (5, 0, (1, 1, 1)), (1, 1, (1, 1, 1)),
                                                            (300, 40, (1, 1, 1)), (60, 30, (2, 4, 2))])  # fmt: skip
@pytest.mark.parametrize(("radius", "k"), [(0.8, 4), (5.0, 90)])
def test_voxel_query(num, num_centers, stride, radius, k, device):
    voxels = voxels_of(num, stride=stride)
    generator = torch.Generator().manual_seed(3)
    centers = torch.rand(num_centers, 3, generator=generator) * 5 - 0.5
    item = torch.randint(0, 2, (num_centers,), generator=generator)
    cells = GRID.index_xyz(centers).flip(1) // torch.tensor(stride)
    cells = torch.cat([item[:, None], cells], 1)
    tensors = voxels.coords.to(device), voxels.centers().to(device), centers.to(device), cells.to(device)
    args = [*tensors[:2], [2, *voxels.shape], *tensors[2:], [1, 2, 1], radius, k]
    assert_op(torch.ops.equilidar.voxel_query.default, args, reference=voxel_loop)
    assert_close(reference_of(torch.ops.equilidar.voxel_query.default)(*args), voxel_loop(*args))
    found = voxel_query(voxels, centers, item, (1, 2, 1), radius, k)
    assert torch.equal(found, voxel_loop(*[a.cpu() if isinstance(a, torch.Tensor) else a for a in args]))


@pytest.mark.parametrize("width", [200, 2**27], ids=["bits of the grid", "too many cells for bits"])
def test_wide_windows_find_the_voxels_of_the_window(width, device):
    # Wider than the 64 cells that are asked for at once, at both borders, and in the last of all cells.
    columns = [0, 1, 63, 64, 65, 127, 128, 130, width - 65, width - 1]
    coords = torch.tensor([[item, 1, 1, x] for item in (0, 1) for x in columns], dtype=torch.int32)
    xyz = torch.zeros(len(coords), 3)
    cells = torch.tensor([[0, 0, 1, 0], [0, 1, 0, 100], [1, 1, 1, width - 1], [1, 0, 0, width + 50]])
    args = [coords, xyz, [2, 2, 2, width], torch.zeros(4, 3), cells, [1, 1, 90], 1.0, 12]
    args = [arg.to(device) if isinstance(arg, torch.Tensor) else arg for arg in args]
    assert_close(torch.ops.equilidar.voxel_query.default(*args), voxel_loop(*args))


def test_centers_that_are_not_finite_find_no_voxel():
    centers = torch.tensor([[math.nan, 1.0, 1.0], [1.0, math.inf, 1.0]])
    assert (voxel_query(voxels_of(500), centers, torch.zeros(2, dtype=torch.int64), (2, 2, 2), 9.0, 3) == -1).all()


def test_three_neighbours_and_weights_by_hand():
    reference = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, -4], [9, 9, 9]])
    index, weights = three_nn(torch.zeros(1, 3), from_lengths([1]), reference, from_lengths([4]))
    assert index.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(weights, torch.tensor([[4.0, 2.0, 1.0]]) / 7)
    features = torch.tensor([[7.0], [14.0], [28.0], [1e9]])
    torch.testing.assert_close(three_interpolate(features, index, weights), torch.tensor([[(28.0 + 28 + 28) / 7]]))


@pytest.mark.parametrize("num", [0, 1, 2])
def test_fewer_than_three_neighbours(num):
    index, weights = three_nn(cloud(4), from_lengths([4]), cloud(num, 1), from_lengths([num]))
    assert ((index >= 0).sum(1) == num).all()
    torch.testing.assert_close(weights.sum(1), torch.full((4,), float(num > 0)))
    assert (weights[index < 0] == 0).all()
    read = three_interpolate(torch.full((num, 2), 3.0), index, weights)
    torch.testing.assert_close(read, torch.full((4, 2), 3.0 if num else 0.0))


def test_a_point_on_a_reference_point_takes_its_feature():
    reference = cloud(30)
    index, weights = three_nn(reference, from_lengths([30]), reference, from_lengths([30]))
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(three_interpolate(features, index, weights), features, rtol=1e-4, atol=1e-4)


def test_interpolation_of_neighbours_has_the_gradient_of_the_formula():
    reference, query = cloud(20), cloud(15, 1)
    index, weights = three_nn(query, from_lengths([7, 8]), reference, from_lengths([10, 10]))
    features = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: three_interpolate(f, index, weights.double()), [features])


@pytest.mark.parametrize("shape", [(0,), (7,), (5, 4), (0, 3)])
def test_group_reads_rows_and_spreads_gradients(shape):
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(-1, 6, shape, generator=generator)
    features = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    expected = torch.where((index >= 0)[..., None], features[index.clamp_min(0)], 0.0)
    torch.testing.assert_close(group(features, index), expected)
    assert torch.autograd.gradcheck(lambda f: group(f, index), [features])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = features.detach().float().requires_grad_()
        group(single, index).sum().backward()
    counts = torch.bincount(index[index >= 0], minlength=6).float()
    torch.testing.assert_close(single.grad, counts[:, None].expand(-1, 3))


def test_threads_do_not_change_a_bit():
    xyz, centers = cloud(3000), cloud(500, 1)
    features = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))

    def run(threads):
        torch.set_num_threads(threads)
        rows = ball_query(xyz, from_lengths([3000]), centers, from_lengths([500]), 0.5, 16)
        leaf = features.clone().requires_grad_()
        group(leaf, rows).square().sum().backward()
        return rows, leaf.grad

    try:
        results = [run(threads) for threads in (1, 2, 4)]
    finally:
        torch.set_num_threads(1)
    for rows, grad in results[1:]:
        assert torch.equal(rows, results[0][0]) and torch.equal(grad, results[0][1])


def test_errors_name_the_argument():
    points, offsets = cloud(3), from_lengths([3])
    with pytest.raises(ValueError, match="offsets is for 1 items and center_offsets for 2"):
        ball_query(points, offsets, points, from_lengths([1, 2]), 1.0, 3)
    with pytest.raises(ValueError, match="radius and k must be positive"):
        ball_query(points, offsets, points, offsets, 0.0, 3)
    with pytest.raises(ValueError, match="max_range must be three"):
        voxel_query(voxels_of(3), points, torch.zeros(3, dtype=torch.int64), (1, -1, 1), 1.0, 3)
