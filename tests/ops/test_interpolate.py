"""Interpolation against dense `grid_sample`, against scipy, and by its formula."""

import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from equilidar.ops._registration import reference_of
from equilidar.ops.interpolate import find_cells, interpolate_voxels
from equilidar.structures import GridSpec, SparseVoxels
from equilidar.testing import assert_close, assert_op

GRID = GridSpec((-2.0, -1.0, 0.0), (2.0, 2.0, 1.6), (0.5, 0.25, 0.4))


def voxels_of(num, batch_size=2, channels=3, seed=0, stride=(1, 1, 1)):
    """Distinct random cells in random order."""
    shape = tuple(-(-cells // step) for cells, step in zip(GRID.shape, stride, strict=True))
    total = batch_size * shape[0] * shape[1] * shape[2]
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(total, generator=generator)[: total if num is None else num]
    z, y, x = shape
    coords = torch.stack([keys // (z * y * x), keys // (y * x) % z, keys // x % y, keys % x], 1).int()
    features = torch.randn(len(keys), channels, generator=generator)
    return SparseVoxels(coords, features, GRID, shape, stride, batch_size)


def points_of(num, seed=1, batch_size=2):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(GRID.low), torch.tensor(GRID.high)
    # Half a metre beyond the grid, too.
    xyz = low - 0.5 + torch.rand(num, 3, generator=generator) * (high - low + 1)
    return xyz, torch.randint(0, batch_size, (num,), generator=generator)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 4, 2)])
def test_nearest_reads_the_cell_of_the_point(stride):
    voxels = voxels_of(20, stride=stride)
    xyz, batch = points_of(400)
    features, found = interpolate_voxels(voxels, xyz, batch, "nearest")
    cells = (GRID.index_xyz(xyz).flip(1) // torch.tensor(stride)).tolist()
    rows = {tuple(cell): row for row, cell in enumerate(voxels.coords.tolist())}
    assert found.any() and not found.all()
    for i, (item, cell) in enumerate(zip(batch.tolist(), cells, strict=True)):
        row = rows.get((item, *cell))
        assert bool(found[i]) == (row is not None)
        assert torch.equal(features[i], torch.zeros(3) if row is None else voxels.features[row])


def by_formula(voxels, xyz, batch):
    """Sum over all voxels of w f / w, w the product of 1 - distance in cells: the definition, densely."""
    size = torch.tensor(voxels.grid.cell_size(voxels.stride))
    distance = (xyz[:, None] - voxels.centers()).abs() / size
    weights = (1 - distance).clamp_min(0).prod(2) * (batch[:, None] == voxels.coords[:, 0])
    total = weights.sum(1, keepdim=True)
    found = total > 0
    return weights @ voxels.features / torch.where(found, total, 1.0), found[:, 0]


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 4)])
@pytest.mark.parametrize("num", [1, 20, 60, None])
def test_trilinear_is_the_formula(stride, num):
    voxels = voxels_of(num, stride=stride)
    xyz, batch = points_of(300)
    features, found = interpolate_voxels(voxels, xyz, batch)
    expected, expected_found = by_formula(voxels, xyz, batch)
    # At a corner of weight zero up to rounding the two may disagree on whether anything is there.
    assert (found != expected_found).sum() <= 1
    torch.testing.assert_close(features[found & expected_found], expected[found & expected_found], rtol=1e-4, atol=1e-4)


def test_trilinear_on_a_full_grid_agrees_with_scipy():
    voxels = voxels_of(None, batch_size=1)
    z, y, x = (
        voxels.grid.low[axis] + (torch.arange(cells) + 0.5) * voxels.grid.voxel_size[axis]
        for axis, cells in zip((2, 1, 0), GRID.shape, strict=True)
    )
    dense = voxels.dense()[0].permute(1, 2, 3, 0)
    interpolator = RegularGridInterpolator((z.numpy(), y.numpy(), x.numpy()), dense.numpy())
    # Between the outermost centers all eight cells exist.
    low, high = torch.stack([x[0], y[0], z[0]]), torch.stack([x[-1], y[-1], z[-1]])
    xyz = low + torch.rand(200, 3, generator=torch.Generator().manual_seed(3)) * (high - low)
    features, found = interpolate_voxels(voxels, xyz, torch.zeros(200, dtype=torch.int64))
    assert found.all()
    torch.testing.assert_close(
        features.double(), torch.from_numpy(interpolator(xyz.flip(1).numpy())), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_centers_return_their_own_feature(mode):
    voxels = voxels_of(40)
    features, found = interpolate_voxels(voxels, voxels.centers(), voxels.batch_index, mode)
    assert found.all()
    torch.testing.assert_close(features, voxels.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_a_constant_field_stays_constant(mode):
    """Weights are renormalised, also where most corners are empty."""
    voxels = voxels_of(30)
    voxels = voxels.with_features(torch.full_like(voxels.features, 2.5))
    features, found = interpolate_voxels(voxels, *points_of(300), mode)
    torch.testing.assert_close(features, torch.where(found[:, None], 2.5, 0.0).expand(-1, 3))


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
@pytest.mark.parametrize(("num_voxels", "num_points"), [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_few_voxels_or_points(mode, num_voxels, num_points):
    features, found = interpolate_voxels(voxels_of(num_voxels), *points_of(num_points), mode)
    assert features.shape == (num_points, 3) and found.shape == (num_points,)
    if num_voxels == 0:
        assert not found.any() and not features.any()


def test_items_and_points_outside_are_not_mixed():
    voxels = voxels_of(None, batch_size=2)
    empty_item = SparseVoxels(
        voxels.coords[voxels.coords[:, 0] == 0],
        voxels.features[voxels.coords[:, 0] == 0],
        GRID,
        GRID.shape,
        (1, 1, 1),
        2,
    )
    xyz, _ = points_of(50)
    for mode in ("nearest", "trilinear"):
        assert not interpolate_voxels(empty_item, xyz, torch.ones(50, dtype=torch.int64), mode)[1].any()
        assert not interpolate_voxels(voxels, xyz + 100, torch.zeros(50, dtype=torch.int64), mode)[1].any()


def test_cells_outside_are_not_wrapped_to_the_next_line():
    voxels = voxels_of(None, batch_size=1)
    z, y, x = GRID.shape
    outside = torch.tensor([[0, 0, 0, x], [0, 0, 0, -1], [0, 0, y, 0], [0, z, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0]])
    assert (find_cells(voxels, outside) == -1).all()
    assert torch.equal(find_cells(voxels, voxels.coords), torch.arange(len(voxels.coords)))


def test_gradient_reaches_the_features_only_where_read():
    voxels = voxels_of(30)
    leaf = voxels.features.clone().requires_grad_()
    xyz, batch = points_of(100)
    features, _ = interpolate_voxels(voxels.with_features(leaf), xyz, batch)
    (actual,) = torch.autograd.grad(features.square().sum(), leaf)
    expected_features, _ = by_formula(voxels.with_features(leaf), xyz, batch)
    (expected,) = torch.autograd.grad(expected_features.square().sum(), leaf)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("num_features", "num_points"), [(0, 3), (4, 0), (1, 1), (6, 9)])
def test_gathering_op(num_features, num_points, device):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_features, 4, generator=generator).to(device).requires_grad_()
    rows = torch.randint(0, max(1, num_features), (num_points, 8), generator=generator).to(device)
    weights = torch.rand(num_points, 8, generator=generator).to(device)

    def reference(features, rows, weights):
        if len(features) == 0:
            return features.sum() + features.new_zeros(len(rows), features.shape[1])
        return (features[rows] * weights[:, :, None]).sum(1)

    assert_op(torch.ops.equilidar.gather_weighted.default, [features, rows, weights], reference=reference)
    grad = torch.randn(num_points, 4, generator=generator).to(device)
    assert_op(torch.ops.equilidar.spread_weighted.default, [grad, rows, weights, num_features])


HUGE = [4, 1 << 20, 1 << 20, 1 << 20]  # 2^62 cells: 32 bits hold none of their numbers


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("num_coords", "num_cells", "limits"), [(0, 3, [2, 4, 5, 6]), (5, 0, [2, 4, 5, 6]),
    (1, 1, [1, 1, 1, 1]), (60, 300, [2, 4, 5, 6]), (500, 900, HUGE)])  # fmt: skip
def test_lookup_op(num_coords, num_cells, limits, dtype, device):
    """Coords repeat, cells lie outside."""
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor(limits)
    coords = (torch.rand(num_coords, 4, generator=generator) * limit).int()
    cells = (torch.rand(num_cells, 4, generator=generator) * (limit + 2)).to(dtype) - 1
    shared = min(num_coords, num_cells) // 2
    cells[:shared] = coords[:shared].to(dtype)
    op, args = torch.ops.equilidar.find_cells.default, [coords.to(device), cells.to(device), limits]
    rows = {}
    for row, cell in reversed(list(enumerate(coords.tolist()))):
        rows[tuple(cell)] = row
    expected = torch.tensor([rows.get(tuple(cell), -1) for cell in cells.tolist()], dtype=torch.int64).to(device)
    assert_op(op, args, reference=lambda *_: expected.clone())
    assert torch.equal(reference_of(op)(*args), expected)


def test_rows_of_nothing_are_skipped(device):
    """A row below zero reads nothing, whatever stands in the first row."""
    features = torch.tensor([[torch.nan, 1.0], [2.0, 3.0]], device=device)
    rows = torch.tensor([[-1, 1], [-1, -1]], device=device)
    weights = torch.full((2, 2), 0.5, device=device)
    for gather in (torch.ops.equilidar.gather_weighted, reference_of(torch.ops.equilidar.gather_weighted.default)):
        assert gather(features, rows, weights).tolist() == [[1.0, 1.5], [0.0, 0.0]]
    assert_op(torch.ops.equilidar.spread_weighted.default, [torch.ones(2, 3, device=device), rows, weights, 2])


def test_threads_do_not_change_a_bit():
    voxels, (xyz, batch) = voxels_of(200, channels=24), points_of(5000)

    def run(threads):
        torch.set_num_threads(threads)
        leaf = voxels.features.clone().requires_grad_()
        features, _ = interpolate_voxels(voxels.with_features(leaf), xyz, batch)
        features.pow(3).sum().backward()
        return features.detach(), leaf.grad

    try:
        results = [run(threads) for threads in (1, 2, 4)]
    finally:
        torch.set_num_threads(1)
    for features, grad in results[1:]:
        assert torch.equal(features, results[0][0]) and torch.equal(grad, results[0][1])


@pytest.mark.usefixtures("unchecked")
def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match=r"mode must be .* 'cubic'"):
        interpolate_voxels(voxels_of(3), *points_of(3), mode="cubic")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype, device):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 4, generator=generator).to(device, dtype)
    rows = torch.randint(-1, 9, (30, 8), generator=generator).to(device)
    weights = torch.rand(30, 8, generator=generator).to(device)
    read = torch.ops.equilidar.gather_weighted(features, rows, weights.to(dtype))
    expected = torch.where((rows >= 0)[..., None], features.float()[rows.clamp_min(0)], 0.0) * weights[..., None]
    assert read.dtype == dtype
    assert_close(read, expected.sum(1))
    spread = torch.ops.equilidar.spread_weighted(read, rows, weights.to(dtype), 9)
    assert spread.dtype == dtype
