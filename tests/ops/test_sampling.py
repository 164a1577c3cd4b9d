"""Farthest point sampling against a loop, and against reference selections."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops._registration import reference_of
from equilidar.ops.sampling import farthest_points
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_op


def cloud(num, seed=0):
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) * 10


def squared(delta):
    x, y, z = delta.unbind()
    return (x * x + y * y + z * z).item()


def loop(xyz, offsets, num):
    """One item, one sample, one point at a time."""
    result = torch.full((len(offsets) - 1, num), -1)
    for item, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        chosen = []
        for sample in range(num if stop > start else 0):
            rows = [j for j in range(start, stop) if xyz[j].isfinite().all()]
            if not rows:
                break
            away = [min((squared(xyz[j] - xyz[c]) for c in chosen), default=0) for j in rows]
            chosen.append(rows[away.index(max(away))])
            result[item, sample] = chosen[-1]
    return result.to(xyz.device)


BROKEN = cloud(20)
BROKEN[:5, 1], BROKEN[9, 0] = torch.nan, torch.inf  # the whole first item, and the second's first point

CASES = {
    "empty": (cloud(0), [0]),
    "no items": (cloud(0), []),
    "one point": (cloud(1), [1]),
    "empty items": (cloud(20), [0, 8, 0, 12]),
    "duplicates": (cloud(4).repeat(3, 1), [12]),
    "ties": ((cloud(30) / 3).round(), [15, 15]),
    "not finite": (BROKEN, [4, 16]),
    "huge extent": (torch.cat([cloud(10) * 0.01, cloud(10, 1) * 1e7, cloud(2) * 1e30]), [22]),
    "non-contiguous": (cloud(40)[::2], [10, 10]),
}


@pytest.mark.parametrize("case", CASES)
def test_op(case, device):
    xyz, lengths = CASES[case]
    assert_op(
        torch.ops.equilidar.farthest_points.default,
        [xyz.to(device), from_lengths(lengths).to(device), 6],
        reference=loop,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 1500), st.sampled_from([None, 0.5, 3.0]))
def test_kernel_equals_specification(seed, num, step):
    """On a lattice nearly every choice is a tie."""
    xyz = cloud(num, seed) if step is None else (cloud(num, seed) / step).round() * step
    args = xyz, from_lengths([num // 3, num - num // 3]), 40
    assert torch.equal(farthest_points(*args), reference_of(torch.ops.equilidar.farthest_points.default)(*args))


def test_samples_cover_the_cloud():
    """Distances of samples to those before never grow, and no point is farther from them than the last was."""
    xyz = cloud(2000)
    rows = farthest_points(xyz, from_lengths([2000]), 64)[0]
    table = torch.cdist(xyz[rows].double(), xyz[rows].double())
    lead = torch.stack([table[i, :i].amin() for i in range(1, 64)])
    assert (lead.diff() <= 1e-6).all()
    assert torch.cdist(xyz.double(), xyz[rows].double()).amin(1).max() <= lead[-1] + 1e-6


def test_threads_do_not_change_a_row():
    xyz, offsets = cloud(40000), from_lengths([20000, 1, 19999])
    try:
        chosen = [torch.set_num_threads(n) or farthest_points(xyz, offsets, 50) for n in (1, 2, 4)]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(chosen[0], chosen[1]) and torch.equal(chosen[0], chosen[2])


def test_items_do_not_see_each_other():
    a, b = cloud(30), cloud(50, 1)
    together = farthest_points(torch.cat([a, b]), from_lengths([30, 50]), 8)
    assert torch.equal(together[0], farthest_points(a, from_lengths([30]), 8)[0])
    assert torch.equal(together[1], farthest_points(b, from_lengths([50]), 8)[0] + 30)


def test_error_names_the_argument():
    with pytest.raises(ValueError, match="num must be"):
        farthest_points(cloud(3), from_lengths([3]), 0)


def test_farthest_points_reproduce_oracle(oracles):
    paths = sorted((oracles / "point_ops").glob("furthest_point_sampling_*.npz"))
    if not paths:
        pytest.skip("no furthest_point_sampling_*.npz")
    for path in paths:
        data = np.load(path)
        cases = sorted(name.removeprefix("points_") for name in data.files if name.startswith("points_"))
        assert cases
        for case in cases:
            points, expected = torch.from_numpy(data[f"points_{case}"]), data[f"selected_{case}"]
            chosen = farthest_points(points, from_lengths([len(points)]), len(expected))[0]
            np.testing.assert_array_equal(chosen, expected, err_msg=f"{path.name} case {case}")
