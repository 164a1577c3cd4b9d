"""Nearest neighbours against scipy, against all distances, and the tree against the specification."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from equilidar.ops import neighbors
from equilidar.ops._registration import reference_of
from equilidar.ops.neighbors import k_nearest, nearest, search_all, search_tree
from equilidar.structures.offsets import from_lengths
from equilidar.testing import assert_equivariant, assert_op, similarities


def cloud(num, seed=0, step=None, dtype=torch.float32):
    """Points in 10 m; on a lattice of `step` metres distances tie exactly."""
    points = torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)).to(dtype) * 10
    return points if step is None else (points / step).round() * step


# A grid of cells of a centimetre would have 1e27 of them.
FAR = torch.tensor([[0.0, 0, 0], [1e7, 0, 0], [0.004, 0, 0], [-1e7, 1e7, -1e7], [1e7, 0, 0], [3e38, -3e38, 0]])
BROKEN = cloud(12).index_put(
    (torch.tensor([1, 4, 7]), torch.tensor([0, 1, 2])), torch.tensor([math.nan, math.inf, -math.inf])
)


def whole(points):
    return torch.tensor([0, len(points)])


CASES = {
    "empty": (cloud(0), [0], cloud(0), [0]),
    "no reference": (cloud(4), [4], cloud(0), [0]),
    "no query": (cloud(0), [0], cloud(4), [4]),
    "one point": (cloud(1), [1], cloud(1, 1), [1]),
    "empty items": (cloud(20), [8, 0, 12], cloud(30, 1), [0, 10, 20]),
    "duplicates": (cloud(20, step=2.0), [10, 10], cloud(5, 1, step=2.0).repeat(6, 1), [15, 15]),
    "huge extent": (FAR, [6], FAR.flip(0), [6]),
    "not finite": (BROKEN, [12], BROKEN.flip(0), [12]),
    "far away": (cloud(9), [9], cloud(9) + 100, [9]),
    "non-contiguous": (cloud(40)[::2], [10, 10], cloud(40, 1).T.contiguous().T[::2], [10, 10]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 3])
def test_op(case, k, device):
    query, query_lengths, reference, reference_lengths = CASES[case]
    args = [query, from_lengths(query_lengths), reference, from_lengths(reference_lengths)]
    assert_op(torch.ops.equilidar.k_nearest.default, [*(arg.to(device) for arg in args), k, 2.0], reference=brute_force)


def brute_force(query, query_offsets, reference, reference_offsets, k, radius):
    """Loop over points: the sentence of the docstring, word by word."""
    index = torch.full((len(query), k), -1)
    distance = torch.full((len(query), k), math.inf)
    items = zip(itertools.pairwise(query_offsets.tolist()), itertools.pairwise(reference_offsets.tolist()), strict=True)
    for (start, stop), (first, last) in items:
        for row in range(start, stop):
            away = {j: math.dist(query[row].tolist(), reference[j].tolist()) for j in range(first, last)}
            ranked = sorted((d, j) for j, d in away.items() if d <= radius and math.isfinite(d))[:k]
            for slot, (d, j) in enumerate(ranked):
                index[row, slot], distance[row, slot] = j, d
    return index.to(query.device), distance.to(query.device)


@pytest.mark.parametrize("step", [None, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("radius", [0.0, 0.5, 2.0, math.inf])
def test_tree_equals_specification_bit_by_bit(step, dtype, k, radius):
    query, reference = cloud(300, 0, step, dtype), cloud(400, 1, step, dtype)
    query[5] = reference[7]
    query[6, 1], reference[0, 0] = math.nan, math.inf
    expected, actual = search_all(query, reference, k, radius), search_tree(query, reference, k, radius)
    assert torch.equal(actual.index, expected.index)
    assert torch.equal(actual.distance, expected.distance)


@pytest.mark.parametrize("num_reference", [1, 2, 3])
def test_tree_with_fewer_points_than_neighbours(num_reference):
    query, reference = cloud(5), cloud(1, 1).repeat(num_reference, 1)
    expected, actual = search_all(query, reference, 3, math.inf), search_tree(query, reference, 3, math.inf)
    assert torch.equal(actual.index, expected.index)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 700),
    st.sampled_from([None, 0.5, 2.0]),
    st.sampled_from([1, 2, 7]),
    st.sampled_from([0.0, 0.3, 2.0, math.inf]),
)
def test_kernel_equals_specification_bit_by_bit(seed, num, step, k, radius):
    query, reference = cloud(80, seed, step), cloud(num, seed + 1, step)
    expected = search_all(query, reference, k, radius)
    actual = k_nearest(query, whole(query), reference, whole(reference), k, radius)
    assert torch.equal(actual.index, expected.index)
    assert torch.equal(actual.distance, expected.distance)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_density_and_extent_are_no_trap(spread):
    """Half of the points within a millimetre, half all over, one so far that it alone would fill a curve's bits."""
    reference = torch.cat([cloud(3000) * 1e-4, cloud(3000, 1) * spread, torch.full((1, 3), 1e7)])
    query = torch.cat([cloud(300, 2) * 1e-4, cloud(300, 3) * spread])
    expected = search_all(query, reference, 3, math.inf)
    actual = k_nearest(query, whole(query), reference, whole(reference), 3)
    assert torch.equal(actual.index, expected.index) and torch.equal(actual.distance, expected.distance)


def test_distances_are_symmetric_and_move_with_the_points():
    a, b = cloud(200), cloud(150, 1)
    there, back = k_nearest(a, whole(a), b, whole(b), 150), k_nearest(b, whole(b), a, whole(a), 200)
    table = torch.zeros(200, 150).scatter_(1, there.index, there.distance)
    assert torch.equal(table, torch.zeros(150, 200).scatter_(1, back.index, back.distance).T)
    assert_equivariant(
        lambda pair: nearest(pair[0], whole(a), pair[1], whole(b))[0].double(),
        similarities(10),
        inputs=(a, b),
        act=lambda t, pair: (t.apply(pair[0], whole(a)), t.apply(pair[1], whole(b))),
        tolerance=0.0,
    )


def test_threads_do_not_change_a_bit():
    a, b = cloud(20000, step=0.1), cloud(20000, 1, step=0.1)
    try:
        found = [torch.set_num_threads(n) or k_nearest(a, whole(a), b, whole(b), 4, 1.0) for n in (1, 2, 4)]
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        assert torch.equal(found[0].index, other.index) and torch.equal(found[0].distance, other.distance)


def test_many_coinciding_points_are_no_trap():
    """Padding at the origin ties with itself thousands of times."""
    zeros = torch.zeros(4000, 3)
    query, reference = torch.cat([cloud(2000), zeros]), torch.cat([cloud(2000, 1), zeros])
    index, distance = nearest(query, whole(query), reference, whole(reference), 1.0)
    assert (index[2000:] == 2000).all() and (distance[2000:] == 0).all()


def test_coinciding_points_cost_no_square():
    """Each query is as near to 60,000 points: a kernel that looked at all of them would take many seconds."""
    compiled = torch._C._dispatch_has_kernel_for_dispatch_key("equilidar::k_nearest", "CPU")
    zeros = torch.zeros(60000 if compiled else 6000, 3)
    start = time.process_time()
    index, distance = k_nearest(zeros, whole(zeros), zeros, whole(zeros), 2, 1.0)
    assert time.process_time() - start < 2
    assert (index == torch.tensor([0, 1])).all() and (distance == 0).all()


def test_large_clouds_take_the_tree_and_agree_with_scipy(monkeypatch):
    a, b = cloud(3000), cloud(3000, 1)
    taken = []
    monkeypatch.setattr(neighbors, "search_tree", lambda *args: taken.append(1) or search_tree(*args))
    args = a, from_lengths([1500, 1500]), b, from_lengths([1000, 2000])
    index, distance = (values[:, 0] for values in reference_of(torch.ops.equilidar.k_nearest.default)(*args, 1, 0.7))
    assert taken
    assert torch.equal(nearest(*args, 0.7)[0], index)
    for start, stop, first, last in ((0, 1500, 0, 1000), (1500, 3000, 1000, 3000)):
        away, row = KDTree(b[first:last].double()).query(a[start:stop].double(), distance_upper_bound=0.7)
        found = np.isfinite(away)
        assert found.any() and not found.all()
        np.testing.assert_array_equal(index[start:stop], np.where(found, row + first, -1))
        np.testing.assert_allclose(distance[start:stop], away, rtol=1e-6)


def test_radius_includes_its_own_distance():
    query, reference = torch.zeros(1, 3), torch.tensor([[3.0, 4.0, 0.0]])
    for search in (search_all, search_tree):
        assert search(query, reference, 1, 5.0).index.item() == 0
        assert search(query, reference, 1, 4.999999).index.item() == -1


def test_chunks_do_not_change_the_result(monkeypatch):
    a, b = cloud(50, step=1.0), cloud(60, 1, step=1.0)
    expected = search_all(a, b, 2, 3.0)
    monkeypatch.setattr(neighbors, "_MAX_PAIRS", 100)
    actual = search_all(a, b, 2, 3.0)
    assert torch.equal(actual.index, expected.index) and torch.equal(actual.distance, expected.distance)


def test_differences_are_exact_far_from_the_origin():
    """In float32, |a|^2 - 2 ab + |b|^2 would be wrong by centimetres here."""
    query = torch.tensor([[70.0, 70.0, 1.0]])
    reference = query + torch.tensor([[0.0, 0.015625, 0.0]])
    assert nearest(query, whole(query), reference, whole(reference))[1].item() == 0.015625


def test_errors_name_the_argument():
    points = cloud(3)
    with pytest.raises(ValueError, match="query_offsets is for 2 items and reference_offsets for 1"):
        nearest(points, torch.tensor([0, 1, 3]), points, whole(points), 1.0)
    with pytest.raises(ValueError, match="radius"):
        nearest(points, whole(points), points, whole(points), -1.0)
    with pytest.raises(ValueError, match="k must be"):
        k_nearest(points, whole(points), points, whole(points), 0)


def files(oracles):
    found = sorted((oracles / "point_ops").glob("nearest_neighbour_*.npz"))
    if not found:
        pytest.skip(f"no nearest_neighbour_*.npz in {oracles / 'point_ops'}")
    return found


def check_distances(distance, expected, dtype):
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5 + 1e-6 * expected
    assert (np.abs(distance.double().numpy() - expected) <= tolerance).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_reproduces_oracle(oracles, dtype):
    for path in files(oracles):
        data = np.load(path)
        a, b = (torch.from_numpy(data[name]).to(dtype) for name in "ab")
        means = []
        for one, other, name in ((a, b, "a_to_b"), (b, a, "b_to_a")):
            index, distance = nearest(one, whole(one), other, whole(other))
            check_distances(distance, data[f"dist_{name}"], dtype)
            # Another row than expected must be as near: b holds equal points.
            expected = torch.from_numpy(data[f"index_{name}"]).long()
            differs = index != expected
            assert differs.sum() < 50
            torch.testing.assert_close((one - other[expected]).norm(dim=1)[differs], distance[differs])
            means += [distance.double().mean(), distance.double().square().mean()]
        np.testing.assert_allclose(np.array(means)[[0, 2, 1, 3]], data["chamfer"], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_nearest_reproduces_oracle(oracles, dtype):
    for path in files(oracles):
        data = np.load(path)
        expected = data["knn8_dist_first1000"]
        a, b = torch.from_numpy(data["a"][: len(expected)]).to(dtype), torch.from_numpy(data["b"]).to(dtype)
        index, distance = k_nearest(a, whole(a), b, whole(b), expected.shape[1])
        check_distances(distance, expected, dtype)
        assert (index.numpy() == data["knn8_index_first1000"]).mean() > 0.99
