"""Farthest point sampling against a loop, and against reference selections."""

import numpy as np
import pytest
import torch

from equilidar.ops.sampling import farthest_points
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_op


def cloud(num, seed=0):
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) * 10


def loop(xyz, offsets, num):
    """One item, one sample, one point at a time."""
    result = torch.full((len(offsets) - 1, num), -1)
    for item, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        chosen = []
        for sample in range(num if stop > start else 0):
            away = [min((((xyz[j] - xyz[c]) ** 2).sum().item() for c in chosen), default=0) for j in range(start, stop)]
            chosen.append(start + away.index(max(away)))
            result[item, sample] = chosen[-1]
    return result.to(xyz.device)


CASES = {
    "empty": (cloud(0), [0]),
    "no items": (cloud(0), []),
    "one point": (cloud(1), [1]),
    "empty items": (cloud(20), [0, 8, 0, 12]),
    "duplicates": (cloud(4).repeat(3, 1), [12]),
    "ties": ((cloud(30) / 3).round(), [15, 15]),
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
