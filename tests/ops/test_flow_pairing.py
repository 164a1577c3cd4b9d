"""Pairing by flow and forward warping, by their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops._registration import reference_of
from equilidar.ops.flow_pairing import pair_by_flow, pair_sweeps, warp_to_cells
from equilidar.structures.offsets import from_lengths, to_batch_index
from equilidar.testing import assert_op, similarities


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


PAIRINGS = {
    "empty": ([0], [0]),
    "no items": ([], []),
    "one point": ([1], [1]),
    "no target": ([6], [0]),
    "empty items": ([30, 0, 25, 0], [40, 12, 0, 0]),
    "many": ([300], [350]),
}


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("case", PAIRINGS)
def test_pairing_ops(case, mutual, device):
    lengths = PAIRINGS[case]
    source, target = cloud(2 * sum(lengths[0]))[::2], cloud(sum(lengths[1]), 1)
    flow = cloud(len(source), 2) * 0.1
    valid = torch.arange(len(source)) % 4 != 1
    view = next(iter(similarities(1, batch_size=max(1, len(lengths[0])), max_shift=0.2, max_yaw=0.1).values()))
    view = view[: len(lengths[0])]
    offsets = from_lengths(lengths[0]), from_lengths(lengths[1])
    voxels = torch.arange(len(source)) % 7 - 1, torch.arange(len(target)) % 5
    warped = view.apply(source + flow, offsets[0])
    items = to_batch_index(offsets[0], len(source)), to_batch_index(offsets[1], len(target))
    pairs = loop(warped, valid, items[0], target, items[1], 0.6, mutual)
    match = torch.full((len(source),), -1).index_put((pairs[:, 0],), pairs[:, 1])
    carried = torch.full((len(source), 2), -1)
    carried[pairs[:, 0]] = torch.stack([voxels[0][pairs[:, 0]], voxels[1][pairs[:, 1]]], 1)

    tensors = [source, flow, valid, offsets[0], view.linear, view.translation, target, offsets[1], *voxels]
    args = [*(t.to(device) for t in tensors), 0.6, mutual]
    op = torch.ops.equilidar.flow_pairing.default
    for function in (op, reference_of(op)):
        moved, found, cells = function(*args)
        assert torch.equal(found.cpu(), match) and torch.equal(cells.cpu(), carried)
        assert torch.equal(moved[valid].cpu(), warped[valid]) and moved[~valid].isnan().all()
    # Its comparison takes NaN for a difference.
    all_known = [*args[:2], torch.ones_like(args[2]), *args[3:]]
    assert_op(op, all_known)
    match_args = [args[0], args[3], args[6], args[7], 0.6, mutual]
    assert_op(torch.ops.equilidar.match_flow.default, match_args)
    result = pair_sweeps(source, flow, valid, offsets[0], view, target, offsets[1], 0.6, mutual, *voxels)
    assert torch.equal(result.match, match) and torch.equal(result.voxels, carried)


@pytest.mark.parametrize("num", [0, 1, 60])
def test_moves_op(num, device):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-1, 7, (num,), generator=generator)
    cells = torch.randint(-1, 4, (num,), generator=generator)
    weights = torch.rand(num, generator=generator) * (torch.arange(num) % 5 > 0)
    sums = {}
    for row, cell, weight in zip(rows.tolist(), cells.tolist(), weights.tolist(), strict=True):
        if 0 <= row < 6 and 0 <= cell < 4 and weight > 0:
            sums[row, cell] = sums.get((row, cell), 0.0) + weight
    args = [rows.to(device), cells.to(device), weights.to(device), 6, 4]
    op = torch.ops.equilidar.distinct_moves.default
    assert_op(op, args)
    for function in (op, reference_of(op)):
        distinct_rows, distinct_cells, joined = (out.tolist() for out in function(*args))
        kept = [i for i, row in enumerate(distinct_rows) if row >= 0]
        assert [(distinct_rows[i], distinct_cells[i]) for i in kept] == sorted(sums)
        assert [joined[i] for i in kept] == pytest.approx([sums[key] for key in sorted(sums)])
        assert all(joined[i] == 0 and distinct_cells[i] == -1 for i in range(num) if i not in kept)


def test_threads_do_not_change_a_bit():
    source, target = cloud(9000, spread=20.0), cloud(9000, 1, spread=20.0)
    features = torch.randn(800, 20, generator=torch.Generator().manual_seed(0))
    rows, cells = torch.arange(9000) % 800, torch.arange(9000) % 700
    weights = torch.rand(9000, generator=torch.Generator().manual_seed(1))
    valid, offsets = torch.ones(9000, dtype=torch.bool), from_lengths([9000])

    def run(threads):
        torch.set_num_threads(threads)
        results = [pair_by_flow(source, source, valid, offsets, target, offsets, 1.0, True)]
        for reduction in ("mean", "max"):
            leaf = features.clone().requires_grad_()
            carried, total = warp_to_cells(leaf, rows, cells, 700, reduction, weights)
            carried.pow(3).sum().backward()
            results += [carried.detach(), total, leaf.grad]
        return results

    try:
        one, two, four = (run(threads) for threads in (1, 2, 4))
    finally:
        torch.set_num_threads(1)
    for results in (two, four):
        assert all(torch.equal(a, b) for a, b in zip(one, results, strict=True))


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
    # Rows and cells of nothing.
    nothing = torch.arange(num_moves, device=device) % 3 == 0
    args = [features.detach(), rows.masked_fill(nothing, -1), cells.masked_fill(~nothing & (rows > 1), -1)]
    assert_op(torch.ops.equilidar.scatter_sum.default, [*args, weights, num_cells])
    assert_op(torch.ops.equilidar.scatter_max.default, [*args, num_cells])
    grad, origin = torch.ops.equilidar.scatter_max.default(*args, num_cells)
    assert_op(torch.ops.equilidar.scatter_max_backward.default, [grad + 1, origin, *args[1:], num_features])


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
