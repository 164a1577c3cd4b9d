"""The distance transform against scipy and by its definition; the lookup against `grid_sample` and autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from equilidar.ops._registration import reference_of
from equilidar.ops.distance_transform import distance_field, distance_transform, sample_field
from equilidar.structures import GridSpec
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_close, assert_op

SIZE = (0.5, 0.25, 0.4)
GRID = GridSpec((-2.0, -1.0, 0.0), (2.0, 2.0, 1.6), SIZE)


def grids(shape, share, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def by_scipy(occupied, cell_size, max_distance):
    """scipy measures the distance to the nearest zero, and knows no grid without one."""
    spacing = cell_size[::-1]
    fields = [
        torch.from_numpy(distance_transform_edt(~grid.cpu().numpy(), spacing)).float()
        if grid.any()
        else torch.full(grid.shape, math.inf)
        for grid in occupied
    ]
    return torch.stack(fields).clamp_max(max_distance).to(occupied.device) if fields else occupied.float()


CASES = {
    "empty batch": grids((0, 3, 4, 5), 0.5),
    "no cells": grids((2, 0, 4, 5), 0.5),
    "one cell": grids((1, 1, 1, 1), 1.1),
    "one occupied": grids((1, 5, 6, 7), 0.0).index_put([torch.tensor([0])] * 4, torch.tensor(True)),
    "one empty item": torch.cat([grids((1, 4, 9, 20), 0.1), grids((1, 4, 9, 20), 0.0), grids((1, 4, 9, 20), 0.3, 1)]),
    "all occupied": grids((1, 3, 4, 5), 1.1),
    "sparse": grids((2, 7, 33, 40), 0.002),
    "dense": grids((2, 7, 33, 40), 0.2),
    "flat": grids((1, 1, 60, 50), 0.01),
    "long": grids((1, 2, 3, 300), 0.01),
    "non-contiguous": grids((1, 40, 12, 6), 0.05).transpose(1, 3),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("max_distance", [math.inf, 3.0, 0.7])
def test_transform(case, max_distance, device):
    """A small cap takes another way than a large one."""
    op, args = torch.ops.equilidar.distance_transform.default, [CASES[case].to(device), list(SIZE), max_distance]
    expected = by_scipy(*args)
    if max_distance == 3:
        assert_op(op, args, reference=by_scipy)
    assert_close(op(*args), expected)
    assert_close(reference_of(op)(*args), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 12)),
    st.tuples(*[st.floats(0.05, 3.0)] * 3),
)
def test_transform_is_the_smallest_distance(seed, shape, size):
    """All pairs of cells, anisotropic: nothing separable about it."""
    occupied = grids((1, *shape), 0.15, seed)
    distance = distance_transform(occupied, size)[0].flatten()
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape)).view(-1, 3)
    places = places.flip(1) * torch.tensor(size, dtype=torch.float64)
    held = places[occupied.flatten()]
    expected = torch.cdist(places, held).amin(1) if len(held) else torch.full((len(places),), math.inf)
    torch.testing.assert_close(distance.double(), expected.double(), rtol=1e-5, atol=1e-6)


def test_transform_is_equivariant_under_mirrors_and_rolls():
    occupied = torch.zeros(1, 8, 20, 20, dtype=torch.bool)
    occupied[:, 3:5, 8:12, 8:12] = grids((1, 2, 4, 4), 0.4)
    expected = distance_transform(occupied, (0.2, 0.2, 0.4))
    assert torch.equal(distance_transform(occupied.flip(2), (0.2, 0.2, 0.4)), expected.flip(2))
    torch.testing.assert_close(distance_transform(occupied.transpose(2, 3), (0.2, 0.2, 0.4)), expected.transpose(2, 3))


def test_threads_do_not_change_a_bit():
    occupied = grids((2, 9, 70, 81), 0.003)
    try:
        fields = [torch.set_num_threads(n) or distance_transform(occupied, SIZE) for n in (1, 2, 4)]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(fields[0], fields[1]) and torch.equal(fields[0], fields[2])


def test_field_of_points_counts_those_in_the_grid():
    xyz = torch.tensor([[0.1, 0.1, 0.1], [9.0, 0, 0], [math.nan, 0, 0], [1.9, 1.9, 1.5], [math.inf, 0, 0]])
    field = distance_field(xyz, from_lengths([3, 2, 0]), GRID, 5.0)
    assert field.shape == (3, *GRID.shape)
    assert (field == 0).sum((1, 2, 3)).tolist() == [1, 1, 0]
    assert (field[2] == 5).all()
    z, y, x = GRID.index_xyz(xyz[:1])[0].flip(0).tolist()
    assert field[0, z, y, x] == 0


def points_of(lengths, seed=1, beyond=0.5):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(GRID.low), torch.tensor(GRID.high)
    num = sum(lengths)
    return low - beyond + torch.rand(num, 3, generator=generator) * (high - low + 2 * beyond), from_lengths(lengths)


def by_autograd(field, xyz, offsets, low, size):
    """`grid_sample` with align_corners maps -1 and 1 to the outermost centers and continues beyond them as we do."""
    values = []
    for item, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        cells = torch.tensor(field.shape[:0:-1], device=xyz.device, dtype=xyz.dtype)
        position = (xyz[start:stop] - xyz.new_tensor(low)) / xyz.new_tensor(size) - 0.5
        scaled = 2 * position / (cells - 1).clamp_min(1) - 1
        read = torch.nn.functional.grid_sample(
            field[item][None, None], scaled[None, None, None], padding_mode="border", align_corners=True
        )
        values.append(read.flatten())
    return torch.cat(values) if values else xyz.sum(1) * 0 + field.sum() * 0


SAMPLES = {
    "empty": [0],
    "one point": [1],
    "empty items": [0, 20, 0, 13],
    "many": [300, 200],
}


@pytest.mark.parametrize("case", SAMPLES)
def test_sample(case, device):
    xyz, offsets = points_of(SAMPLES[case])
    generator = torch.Generator().manual_seed(0)
    field = torch.rand(len(SAMPLES[case]), *GRID.shape, generator=generator).to(device).requires_grad_()
    xyz = xyz.to(device).requires_grad_()
    args = [field, xyz, offsets.to(device), list(GRID.low), list(GRID.voxel_size)]
    assert_op(torch.ops.equilidar.sample_field.default, args, reference=by_autograd, gradcheck=len(xyz) < 50)
    assert_close(reference_of(torch.ops.equilidar.sample_field.default)(*args), by_autograd(*args))
    grad = torch.rand(len(xyz), generator=generator).to(device)
    detached = [arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in args]
    assert_op(torch.ops.equilidar.sample_field_backward.default, [grad, *detached])


def test_one_layer_has_no_slope_across_it():
    field = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    grid = GridSpec((0.0, 0.0, 0.0), (6.0, 5.0, 1.0), (1.0, 1.0, 1.0))
    xyz = torch.tensor([[2.2, 3.1, 0.2], [2.2, 3.1, 0.9]], requires_grad=True)
    values = sample_field(field, grid, xyz, from_lengths([2]))
    assert values[0] == values[1]
    (slope,) = torch.autograd.grad(values.sum(), xyz)
    assert (slope[:, 2] == 0).all() and (slope[:, :2] != 0).all()


def test_not_a_number_reads_as_such_and_has_no_gradient():
    field = torch.rand(1, *GRID.shape)
    xyz, offsets = points_of([4])
    xyz[1, 1], xyz[2, 0] = math.nan, math.inf
    xyz.requires_grad_()
    values = sample_field(field, GRID, xyz, offsets)
    assert values.isnan().tolist() == [False, True, False, False]
    (slope,) = torch.autograd.grad(values[[0, 1, 3]].sum(), xyz)
    assert slope.isfinite().all() and (slope[1] == 0).all()


def test_infinite_cells_spoil_only_what_reads_them():
    field = torch.ones(1, 2, 2, 3)
    field[..., 2] = math.inf
    grid = GridSpec((0.0, 0.0, 0.0), (3.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    xyz = torch.tensor([[1.5, 1.0, 1.0], [1.6, 1.0, 1.0]])
    assert sample_field(field, grid, xyz, from_lengths([2])).tolist() == [1.0, math.inf]


def test_descent_on_the_field_finds_the_points():
    """What optimisation-based flow does: points move down the slope until they lie on the target."""
    target = torch.tensor([[0.75, 0.6, 0.6], [-1.2, 1.1, 1.0]])
    grid = GridSpec((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0), (0.1, 0.1, 0.1))
    field = distance_field(target, from_lengths([2]), grid)
    moved = (target + torch.tensor([0.4, -0.3, 0.2])).requires_grad_()
    optimizer = torch.optim.SGD([moved], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        sample_field(field, grid, moved, from_lengths([2])).sum().backward()
        optimizer.step()
    assert ((moved.detach() - target).norm(dim=1) < 0.15).all()


@pytest.mark.usefixtures("unchecked")
def test_errors_name_the_argument():
    occupied = grids((1, 2, 2, 2), 0.5)
    with pytest.raises(ValueError, match="cell_size must be three positive"):
        distance_transform(occupied, (0.1, 0.0, 0.1))
    with pytest.raises(ValueError, match="max_distance must be positive, got 0"):
        distance_transform(occupied, SIZE, 0.0)
    with pytest.raises(ValueError, match=r"field must be \(2, 4, 12, 8\)"):
        sample_field(torch.zeros(1, *GRID.shape), GRID, torch.zeros(2, 3), from_lengths([1, 1]))
