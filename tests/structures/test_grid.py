import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures import GridSpec

from .strategies import seeds

KITTI = GridSpec.from_range([0, -40, -3, 70.4, 40, 1], [0.05, 0.05, 0.1])


@st.composite
def grids(draw):
    cells = [draw(st.integers(1, 200)) for _ in range(3)]
    size = [draw(st.sampled_from([0.05, 0.1, 0.125, 0.2, 0.32, 1.0])) for _ in range(3)]
    low = [float(draw(st.integers(-60, 20))) for _ in range(3)]
    return GridSpec(tuple(low), tuple(lo + n * s for lo, n, s in zip(low, cells, size, strict=True)), tuple(size))


def random_cells(grid, seed, num=50):
    u = torch.rand(num, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (u * torch.tensor(grid.shape)).long()


@given(grids(), seeds)
def test_the_center_of_a_cell_lies_in_it(grid, seed):
    zyx = random_cells(grid, seed)
    centers = grid.centers(zyx)
    assert torch.equal(grid.index_xyz(centers).flip(1), zyx)
    assert grid.contains(centers).all()


@given(grids(), seeds)
def test_points_lie_within_half_a_cell_of_their_center(grid, seed):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.tensor(grid.low) + torch.rand(50, 3, generator=generator) * (
        torch.tensor(grid.high) - torch.tensor(grid.low)
    )
    away = (xyz - grid.centers(grid.index_xyz(xyz).flip(1))).abs()
    assert (away <= torch.tensor(grid.voxel_size) / 2 + 1e-4).all()


@given(grids(), seeds, st.tuples(*[st.sampled_from([1, 2, 4, 8, 16])] * 3))
def test_a_strided_cell_is_centered_on_its_voxels(grid, seed, stride):
    """center(i, stride) is the mean of the centers of the voxels that the cell spans."""
    zyx = random_cells(grid, seed, 10)
    steps = torch.tensor(stride)
    first, last = zyx * steps, zyx * steps + steps - 1
    expected = (grid.centers(first) + grid.centers(last)) / 2
    torch.testing.assert_close(grid.centers(zyx, stride), expected, rtol=1e-5, atol=1e-3)


def test_kitti_grid_of_second():
    assert KITTI.shape == (40, 1600, 1408)
    assert KITTI.cell_size((16, 8, 8)) == pytest.approx((0.4, 0.4, 1.6))
    torch.testing.assert_close(KITTI.centers(torch.tensor([[0, 0, 0]])), torch.tensor([[0.025, -39.975, -2.95]]))


def test_cells_are_closed_below_and_open_above():
    grid = GridSpec((0.0, 0.0, 0.0), (4.0, 4.0, 4.0), (1.0, 1.0, 1.0))
    xyz = torch.tensor([[0.0, 0, 0], [1, 1, 1], [4, 0, 0], [0, 0, -1e-6], [3.9999, 3.9999, 3.9999]])
    assert grid.contains(xyz).tolist() == [True, True, False, False, True]
    assert grid.index_xyz(xyz[1:2]).tolist() == [[1, 1, 1]]


def test_reach_is_the_farthest_border():
    assert GridSpec((-1.0, -6.0, -9.0), (3.0, 2.0, 9.0), (1.0, 1.0, 1.0)).reach == 6.0


def test_grids_are_values():
    same = GridSpec((0.0, -40.0, -3.0), (70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
    assert same == KITTI and hash(same) == hash(KITTI) and len({same, KITTI}) == 1
    with pytest.raises(AttributeError):
        same.low = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "size", "message"),
    [
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.5, 0.5), "along x .* holds 3.333 voxels"),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.0, 0.5), "along y"),
        ((0.0, 0.0, 2.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), "along z .* empty"),
    ],
)
def test_errors_name_the_axis(low, high, size, message):
    with pytest.raises(ValueError, match=message):
        GridSpec(low, high, size)


def test_a_range_has_six_numbers():
    with pytest.raises(ValueError, match="point_range"):
        GridSpec.from_range([0, 0, 0, 1, 1], [0.5, 0.5, 0.5])
