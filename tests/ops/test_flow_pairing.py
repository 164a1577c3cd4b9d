"""Pairing by flow and forward warping, by their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops.flow_pairing import pair_by_flow, warp_to_cells
from equilidar.structures.offsets import from_lengths, to_batch_index
from equilidar.testing import assert_op


def cloud(num, seed=0, spread=4.0):
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) * spread


def loop(warped, valid, source_item, target, target_item, radius, mutual):
    distance = torch.cdist(warped.double(), target.double())
    distance[~valid] = torch.inf
    distance[source_item[:, None] != target_item] = torch.inf
    pairs = []
    for s in range(len(warped)):
        if len(target) == 0 or distance[s].min() > radius:
            continue
        t = int(distance[s].argmin())
        if not mutual or int(distance[:, t].argmin()) == s:
            pairs.append([s, t])
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("lengths", [([0], [0]), ([1], [1]), ([30], [40]), ([10, 0, 15], [12, 9, 0]), ([0, 9], [9, 9])])
def test_pairs_are_those_of_the_definition(lengths, mutual, device):
    source_lengths, target_lengths = lengths
    source, target = cloud(sum(source_lengths)), cloud(sum(target_lengths), 1)
    valid = torch.arange(len(source)) % 4 != 1
    offsets = from_lengths(source_lengths), from_lengths(target_lengths)
    pairs = pair_by_flow(
        source.to(device), (source + 0.1).to(device), valid.to(device), offsets[0].to(device),
        target.to(device), offsets[1].to(device), 0.8, mutual,
    )  # fmt: skip
    items = to_batch_index(offsets[0], len(source)), to_batch_index(offsets[1], len(target))
    expected = loop(source + 0.1, valid, items[0], target, items[1], 0.8, mutual)
    assert torch.equal(pairs.cpu(), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 2**31))
def test_exact_flow_pairs_every_point_with_itself(num, seed):
    """Points that do not move against each other, in another order, found again through their flow."""
    source = cloud(num, seed)
    flow = torch.tensor([1.5, -0.5, 0.1])
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    target = (source + flow)[order]
    pairs = pair_by_flow(
        source,
        source + flow,
        torch.ones(num, dtype=torch.bool),
        from_lengths([num]),
        target,
        from_lengths([num]),
        0.1,
        True,
    )
    assert torch.equal(pairs[:, 0], torch.arange(num))
    assert torch.equal(order[pairs[:, 1]], pairs[:, 0])


def test_mutual_pairs_use_each_target_once():
    source, target = cloud(80), cloud(30, 1)
    args = source, source, torch.ones(80, dtype=torch.bool), from_lengths([80]), target, from_lengths([30]), 2.0
    mutual, all_pairs = pair_by_flow(*args, True), pair_by_flow(*args, False)
    assert len(mutual[:, 1].unique()) == len(mutual) < len(all_pairs)
    assert len(all_pairs[:, 0].unique()) == len(all_pairs)
    kept = {tuple(pair) for pair in mutual.tolist()}
    assert kept <= {tuple(pair) for pair in all_pairs.tolist()}


def test_an_unknown_flow_does_not_compete():
    """The nearer of two warped points is invalid: the other one is the target's mutual match."""
    source = torch.tensor([[0.0, 0, 0], [0.3, 0, 0]])
    target = torch.tensor([[0.05, 0, 0]])
    pairs = pair_by_flow(
        source, source, torch.tensor([False, True]), from_lengths([2]), target, from_lengths([1]), 1.0, True
    )
    assert pairs.tolist() == [[1, 0]]


def test_hand_computed_warp():
    """Two points of voxel 0 and one of voxel 1 reach cell 0; one of voxel 1 reaches cell 2; the others nothing."""
    features = torch.tensor([[1.0, 10.0], [4.0, -2.0]])
    rows, cells = torch.tensor([0, 0, 1, 1, -1, 0]), torch.tensor([0, 0, 0, 2, 1, -1])
    mean, weight = warp_to_cells(features, rows, cells, 3)
    torch.testing.assert_close(mean, torch.tensor([[2.0, 6.0], [0, 0], [4, -2]]))
    assert weight.tolist() == [3, 0, 1]
    largest, weight = warp_to_cells(features, rows, cells, 3, "max")
    torch.testing.assert_close(largest, torch.tensor([[4.0, 10.0], [0, 0], [4, -2]]))
    assert weight.tolist() == [3, 0, 1]
    weighted, weight = warp_to_cells(features, rows, cells, 3, weights=torch.tensor([1.0, 0, 3, 0, 1, 1]))
    torch.testing.assert_close(weighted, torch.tensor([[13 / 4, 1.0], [0, 0], [0, 0]]))
    assert weight.tolist() == [4, 0, 0]


def moves_of(num_points, num_voxels=6, num_cells=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_voxels, 3, generator=generator)
    rows = torch.randint(-1, num_voxels, (num_points,), generator=generator)
    cells = torch.randint(-1, num_cells, (num_points,), generator=generator)
    return features, rows, cells, num_cells, torch.rand(num_points, generator=generator)


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("num_points", [0, 1, 40])
def test_warp_and_its_gradient_are_those_of_the_formula(reduction, num_points):
    features, rows, cells, num_cells, weights = moves_of(num_points)
    leaves = [features.double().requires_grad_() for _ in range(2)]
    actual, total = warp_to_cells(leaves[0], rows, cells, num_cells, reduction, weights.double())
    expected = []
    for cell in range(num_cells):
        here = (cells == cell) & (rows >= 0)
        values, share = leaves[1][rows[here]], weights[here, None].double()
        empty = leaves[1].sum(0) * 0
        reduced = (
            (values * share).sum(0) / share.sum() if reduction == "mean" else values.amax(0) if here.any() else empty
        )
        expected.append(reduced if here.any() else empty)
        assert float(total[cell]) == pytest.approx(float(weights[here].sum()), rel=1e-5)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-6, atol=1e-6)
    gradients = [
        torch.autograd.grad(out.pow(3).sum(), leaf)[0]
        for out, leaf in zip((actual, torch.stack(expected)), leaves, strict=True)
    ]
    if reduction == "mean" or num_points == 1:
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)
    else:
        # amax shares the gradient of a row that came twice; here it goes to the row, which is the same sum.
        torch.testing.assert_close(gradients[0].sum(), gradients[1].sum(), rtol=1e-6, atol=1e-6)


def test_equal_maxima_send_the_gradient_to_the_lowest_row():
    features = torch.tensor([[0.0], [2.0], [2.0]], requires_grad=True)
    warped, _ = warp_to_cells(features, torch.tensor([2, 1, 0]), torch.tensor([0, 0, 0]), 1, "max")
    warped.sum().backward()
    assert features.grad.tolist() == [[0], [1], [0]]


def test_not_a_number_comes_through():
    features = torch.tensor([[1.0], [torch.nan]])
    for reduction in ("mean", "max"):
        warped, _ = warp_to_cells(features, torch.tensor([0, 1]), torch.tensor([0, 0]), 2, reduction)
        assert warped[0].isnan() and warped[1] == 0


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_order_of_points_does_not_matter(reduction):
    features, rows, cells, num_cells, weights = moves_of(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    one, _ = warp_to_cells(features, rows, cells, num_cells, reduction, weights)
    other, _ = warp_to_cells(features, rows[order], cells[order], num_cells, reduction, weights[order])
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("num_features", "num_moves", "num_cells"), [(0, 0, 0), (3, 0, 2), (1, 1, 1), (6, 20, 4)])
def test_ops(num_features, num_moves, num_cells, device):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_features, 3, generator=generator).to(device).requires_grad_()
    rows = torch.randint(0, max(1, num_features), (num_moves,), generator=generator).to(device)
    cells = torch.randint(0, max(1, num_cells), (num_moves,), generator=generator).to(device)
    weights = torch.rand(num_moves, generator=generator).to(device)
    matrix = torch.zeros(num_cells, num_features, device=device).index_put((cells, rows), weights, accumulate=True)
    assert_op(
        torch.ops.equilidar.scatter_sum.default,
        [features, rows, cells, weights, num_cells],
        reference=lambda features, *_: matrix.to(features.dtype) @ features,
    )
    assert_op(torch.ops.equilidar.scatter_max.default, [features, rows, cells, num_cells])


@pytest.mark.usefixtures("unchecked")
def test_errors_name_the_argument():
    features, rows, cells, num_cells, weights = moves_of(4)
    with pytest.raises(ValueError, match="one entry per point, got 4, 4 and 3"):
        warp_to_cells(features, rows, cells, num_cells, weights=weights[:3])
    with pytest.raises(ValueError, match=r"reduction must be .* 'sum'"):
        warp_to_cells(features, rows, cells, num_cells, "sum")
    source = cloud(4)
    with pytest.raises(ValueError, match="got 4, 3 and 3"):
        pair_by_flow(source, source[:3], torch.ones(3) > 0, from_lengths([4]), source, from_lengths([4]), 1.0)
    with pytest.raises(ValueError, match="target_offsets for 2"):
        pair_by_flow(
            source, source, torch.ones(4, dtype=torch.bool), from_lengths([4]), source, from_lengths([2, 2]), 1.0
        )
