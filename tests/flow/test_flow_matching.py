"""The cost volume against a loop over all pairs of cells, and its peak."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow.flow_matching import cells_at_shifts, peak_shift, shifts_of, similarities
from equilidar.structures import GridSpec, SparseVoxels

GRID = GridSpec((0.0, 0.0, 0.0), (6.0, 5.0, 1.0), (1.0, 1.0, 1.0))


def cells(seed: int, share: float) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.nonzero(torch.rand(2, 1, 5, 6, generator=generator) < share).int()
    return SparseVoxels(coords, torch.randn(len(coords), 3, generator=generator), GRID, GRID.shape, (1, 1, 1), 2)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0.0, 1.0))
def test_similarities_are_those_of_the_cells_at_each_shift(seed: int, steps: int, share: float):
    source, target = cells(seed, share), cells(seed + 1, share)
    found = similarities(source.features, target.features, cells_at_shifts(source, target, steps))
    shifts = shifts_of(steps)
    assert found.shape == (len(source.coords), (2 * steps + 1) ** 2)
    expected = torch.zeros_like(found)
    at = {tuple(place): row for row, place in enumerate(target.coords.tolist())}
    for row, (item, z, y, x) in enumerate(source.coords.tolist()):
        for column, (dx, dy) in enumerate(shifts.tolist()):
            other = at.get((item, z, y + dy, x + dx))
            if other is not None:
                expected[row, column] = source.features[row] @ target.features[other]
    torch.testing.assert_close(found, expected)


@settings(deadline=None)
@given(st.integers(-3, 3), st.integers(-3, 3))
def test_the_peak_is_the_likeliest_shift_between_cells_where_two_are_alike(x: int, y: int):
    shifts = shifts_of(4)
    logits = torch.where((shifts == torch.tensor([x, y])).all(1), 30.0, 0.0)
    torch.testing.assert_close(peak_shift(logits[None])[0], torch.tensor([x, y]).float())
    both = torch.where((shifts == torch.tensor([x + 1, y])).all(1), 30.0, logits)
    torch.testing.assert_close(peak_shift(both[None])[0], torch.tensor([x + 0.5, y]))
