import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops.rulebook import (
    Rulebook,
    cell_keys,
    cells_of_keys,
    check_cells,
    output_shape,
    strided_rulebook,
    submanifold_rulebook,
)
from equilidar.testing import assert_op

from .dense_oracle import random_coords, reached
from .implementations import assert_kernel_equals_reference, assert_same_bits_with_any_threads

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
counts = st.lists(st.integers(0, 30), min_size=1, max_size=3)
odd = st.sampled_from([1, 3, 5])


def pairs_of(rulebook: Rulebook) -> list[tuple[int, int, int]]:
    """(offset, input row, output row), the center's included."""
    offsets = torch.arange(len(rulebook.counts)).repeat_interleave(torch.tensor(rulebook.counts))
    pairs = list(zip(offsets.tolist(), rulebook.in_rows.tolist(), rulebook.out_rows.tolist(), strict=True))
    if rulebook.center >= 0:
        pairs += [(rulebook.center, row, row) for row in range(rulebook.num_in)]
    return pairs


def pairs_by_loop(coords, out_coords, kernel, stride, padding) -> set[tuple[int, int, int]]:
    where = {tuple(row): i for i, row in enumerate(coords.tolist())}
    pairs = set()
    for out_row, (batch, *cell) in enumerate(out_coords.tolist()):
        for offset, tap in enumerate(itertools.product(*map(range, kernel))):
            read = (c * s - p + t for c, s, p, t in zip(cell, stride, padding, tap, strict=True))
            source = where.get((batch, *read))
            if source is not None:
                pairs.add((offset, source, out_row))
    return pairs


@given(shapes, counts, st.tuples(odd, odd, odd), st.integers(0, 999), st.booleans())
@settings(max_examples=60, deadline=None)
def test_submanifold_pairs(shape, counts, kernel, seed, shuffled):
    coords = random_coords(shape, counts, seed, shuffled=shuffled)
    rulebook = submanifold_rulebook(coords, shape, kernel)
    found = pairs_of(rulebook)
    padding = [size // 2 for size in kernel]
    assert len(found) == len(set(found))
    assert set(found) == pairs_by_loop(coords, coords, kernel, (1, 1, 1), padding)
    assert rulebook.num_in == rulebook.num_out == len(coords)


@given(
    shapes,
    counts,
    st.tuples(*[st.integers(1, 4)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(0, 2)] * 3),
    st.integers(0, 999),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_strided_pairs(shape, counts, kernel, stride, padding, seed, shuffled):
    coords = random_coords(shape, counts, seed, shuffled=shuffled)
    try:
        output_shape(shape, kernel, stride, padding)
    except ValueError:
        return
    rulebook, out_coords = strided_rulebook(coords, shape, kernel, stride, padding)
    assert torch.equal(out_coords, reached(coords, shape, len(counts), kernel, stride, padding))
    found = pairs_of(rulebook)
    assert len(found) == len(set(found))
    assert set(found) == pairs_by_loop(coords, out_coords, kernel, stride, padding)


@given(counts, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_pairs_are_sorted_and_collide_nowhere(counts, seed):
    coords = random_coords((4, 6, 6), counts, seed)
    strided = strided_rulebook(coords, (4, 6, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1))[0]
    for rulebook in (submanifold_rulebook(coords, (4, 6, 6), (3, 3, 3)), strided, strided.inverted()):
        splits = list(rulebook.counts)
        for sources, targets in zip(rulebook.in_rows.split(splits), rulebook.out_rows.split(splits), strict=True):
            assert len(sources.unique()) == len(sources) and len(targets.unique()) == len(targets)
    starts = torch.tensor([0, *strided.counts]).cumsum(0).tolist()
    assert all((strided.out_rows[a:b].diff() > 0).all() for a, b in itertools.pairwise(starts))


def test_inverse_exchanges_input_and_output():
    coords = random_coords((4, 6, 6), [20], 0)
    forward, out_coords = strided_rulebook(coords, (4, 6, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1))
    backward = forward.inverted()
    assert sorted(pairs_of(backward)) == sorted((k, out, source) for k, source, out in pairs_of(forward))
    assert (backward.num_in, backward.num_out) == (len(out_coords), len(coords))


@given(shapes, counts, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_keys_sort_as_cells_and_come_back(shape, counts, seed):
    coords = random_coords(shape, counts, seed)
    keys = cell_keys(coords, shape)
    assert torch.equal(cells_of_keys(keys, shape), coords)
    assert torch.equal(keys.argsort(), torch.arange(len(coords)))


def test_keys_do_not_overflow_on_wide_grids():
    coords = torch.tensor([[63, 40, 15_999, 15_999]], dtype=torch.int32)
    assert torch.equal(cells_of_keys(cell_keys(coords, (41, 16_000, 16_000)), (41, 16_000, 16_000)), coords)


def test_even_submanifold_kernels_are_refused():
    with pytest.raises(ValueError, match="odd"):
        submanifold_rulebook(random_coords((2, 2, 2), [3], 0), (2, 2, 2), (3, 2, 3))


def test_kernels_larger_than_the_grid_are_refused():
    with pytest.raises(ValueError, match="leaves nothing"):
        output_shape((2, 8, 8), (3, 1, 1), (2, 1, 1), (0, 0, 0))
    with pytest.raises(ValueError, match="must be >= 1"):
        output_shape((2, 8, 8), (3, 1, 1), (0, 1, 1), (0, 0, 0))


def case(name: str) -> tuple[torch.Tensor, tuple[int, int, int]]:
    shape = (3, 4, 5)
    coords = random_coords(shape, [12, 0, 9], 0)
    match name:
        case "no item":
            coords = random_coords(shape, [0], 0)
        case "empty":
            coords = random_coords(shape, [0, 0], 0)
        case "one cell":
            coords = random_coords(shape, [1], 0)
        case "full":
            coords = random_coords(shape, [60, 60], 0)
        case "shuffled":
            coords = random_coords(shape, [12, 0, 9], 0, shuffled=True)
        case "non-contiguous":
            coords = coords.repeat_interleave(2, 0).repeat(1, 2)[::2, 4:]
        case "more cells than 2^31":
            shape = (40, 1 << 15, 1 << 15)
            coords = coords + torch.tensor([0, 37, (1 << 15) - 4, (1 << 15) - 5], dtype=torch.int32)
        case "as many cells as keys hold":
            shape = (62, (1 << 20) - 2, (1 << 21) - 2)
            coords = coords * torch.tensor([32_000, 30, 349_524, 524_287], dtype=torch.int32)
    return coords, shape


CASES = [
    "no item", "empty", "one cell", "one empty item", "full", "shuffled", "non-contiguous", "more cells than 2^31",
    "as many cells as keys hold",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ops_agree_with_their_references(name, device):
    coords, shape = case(name)
    check_cells([size + 1 for size in shape])
    coords = coords.to(device)
    ops = torch.ops.equilidar
    assert_op(ops.submanifold_pairs.default, (coords, shape, [3, 3, 3]))
    assert_op(ops.strided_pairs.default, (coords, shape, [3, 3, 3], [2, 2, 2], [1, 1, 1]))


@pytest.mark.parametrize("shuffled", [False, True], ids=["sorted", "shuffled"])
def test_any_number_of_threads_gives_the_same_pairs(shuffled):
    shape = (20, 70, 80)
    coords = random_coords(shape, [40_000, 0, 9_000], 3, shuffled=shuffled)
    ops, stride = torch.ops.equilidar, ([3, 3, 3], [2, 2, 2], [1, 1, 1])
    assert_same_bits_with_any_threads(
        lambda: (*ops.submanifold_pairs(coords, shape, [3, 3, 3]), *ops.strided_pairs(coords, shape, *stride))
    )
    assert_kernel_equals_reference(ops.submanifold_pairs.default, coords, shape, [3, 3, 3])
    assert_kernel_equals_reference(ops.strided_pairs.default, coords, shape, *stride)


def test_grids_whose_keys_overflow_are_refused_margins_and_output_included():
    coords = torch.zeros(1, 4, dtype=torch.int32)
    for shape in ((1 << 17, 1 << 15, 1 << 16), (1, 1, (1 << 31) + 1)):
        with pytest.raises(ValueError, match="told apart"):
            submanifold_rulebook(coords, shape, (3, 3, 3))
        with pytest.raises(ValueError, match="told apart"):
            strided_rulebook(coords, shape, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    # Each fits without its margin or padding.
    fits = (1 << 15, 1 << 16, 1 << 16)
    check_cells(fits)
    with pytest.raises(ValueError, match="told apart"):
        submanifold_rulebook(coords, fits, (3, 3, 3))
    with pytest.raises(ValueError, match="told apart"):
        strided_rulebook(coords, fits, (1, 1, 1), (1, 1, 1), (1, 1, 1))
