"""Moving and cropping against `Affine3` and `GridSpec`, bit for bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops._registration import reference_of
from equilidar.ops.move_points import move_points
from equilidar.structures import Affine3, GridSpec
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_op, similarities

GRID = GridSpec((-4.0, -3.0, -1.0), (4.0, 3.0, 1.0), (0.5, 0.25, 0.4))
CASES = {
    "empty": [0],
    "no items": [],
    "one point": [1],
    "empty items": [0, 30, 0, 20],
    "long": [20000, 15000],
}


def cloud(num, seed=0):
    points = (torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * 10
    if num > 3:
        points[1, 0], points[2, 2], points[3, 1] = math.nan, math.inf, 1e30
    return points


def by_structures(xyz, offsets, linear, translation, low, size, cells):
    moved = Affine3(linear, translation).apply(xyz, offsets)
    return moved, moved.isfinite().all(1) & GRID.contains(torch.where(moved.isfinite(), moved, 1e6))


@pytest.mark.parametrize("case", CASES)
def test_op(case, device):
    lengths = CASES[case]
    maps = similarities(1, batch_size=max(1, len(lengths)))
    transform = next(iter(maps.values()))[: len(lengths)]
    xyz = cloud(2 * sum(lengths))[::2]
    tensors = xyz, from_lengths(lengths), transform.linear, transform.translation
    args = [*(t.to(device) for t in tensors), list(GRID.low), list(GRID.voxel_size), list(GRID.shape[::-1])]
    op = torch.ops.equilidar.move_points.default
    # Its comparison takes NaN for a difference, so the op is checked on finite points first.
    assert_op(op, [args[0].nan_to_num(0.0, 50.0), *args[1:]], reference=by_structures)
    for one, other in zip(op(*args), by_structures(*args), strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    for one, other in zip(op(*args), reference_of(op)(*args), strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 200))
def test_bits_are_those_of_the_map(seed, num):
    transform = next(iter(similarities(1, seed, batch_size=2).values()))
    xyz, offsets = cloud(num, seed), from_lengths([num // 2, num - num // 2])
    moved, inside = move_points(xyz, offsets, transform, GRID)
    assert torch.equal(moved.nan_to_num(7.0), transform.apply(xyz, offsets).nan_to_num(7.0))
    assert torch.equal(inside[4:], GRID.contains(moved[4:]))
    assert not inside[1:4].any() or num < 4


def test_items_must_agree():
    with pytest.raises(ValueError, match="1 transforms cannot move a batch of 2 items"):
        move_points(cloud(4), from_lengths([2, 2]), Affine3.identity(1), GRID)
