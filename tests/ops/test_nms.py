"""Suppression against the greedy loop, and against reference selections."""

import json
import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops import nms
from equilidar.ops._registration import reference_of
from equilidar.ops.nms import axis_aligned_nms, circle_nms, nms_batched, rotated_nms
from equilidar.ops.rotated_iou import bev_iou
from equilidar.testing import assert_op
from tests.ops.implementations import IMPLEMENTATIONS, assert_same_bits_with_any_threads, use


def boxes_of(num, seed=0, spread=20.0):
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed))
    return torch.cat([(u[:, :3] - 0.5) * spread, 1 + 3 * u[:, 3:6], u[:, 6:] * 7], 1)


def scores_of(num, seed=0, levels=1000):
    return torch.randint(0, levels, (num,), generator=torch.Generator().manual_seed(seed)).float() / levels


def rotated(boxes, threshold):
    return bev_iou(boxes.double(), boxes.double()) > threshold


def axis_aligned(boxes, threshold):
    """By shapely."""
    x, y, _, length, width = boxes.cpu().double().numpy().T[:5]
    shapes = shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
    overlap = shapely.area(shapely.intersection(shapes[:, None], shapes))
    union = (length * width)[:, None] + length * width - overlap
    return torch.from_numpy(overlap > threshold * union).to(boxes.device)


def circle(centers, radius):
    return (centers.double()[:, None] - centers.double()).square().sum(-1) <= radius * radius


# Op, which boxes suppress which, columns of a box that it takes, thresholds.
RULES = {
    "rotated": (torch.ops.equilidar.rotated_nms.default, rotated, 7, [0.01, 0.5, 1.0]),
    "axis-aligned": (torch.ops.equilidar.axis_aligned_nms.default, axis_aligned, 7, [0.01, 0.5, 1.0]),
    "circle": (torch.ops.equilidar.circle_nms.default, circle, 2, [0.0, 0.7, 3.0]),
}


def greedy(suppresses):
    """Return the plain greedy loop over a rule."""

    def loop(boxes, scores, groups, threshold):
        over = suppresses(boxes, threshold)
        kept = []
        for i in scores.argsort(descending=True, stable=True).tolist():
            if not any(over[j, i] and groups[i] == groups[j] for j in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64, device=boxes.device)

    return loop


HUGE = torch.tensor([3e6, -1e6, 0, 0, 0, 0, 0])

CASES = {
    "empty": (boxes_of(0), scores_of(0)),
    "one box": (boxes_of(1), scores_of(1)),
    "apart": (boxes_of(20, spread=5000), scores_of(20)),
    "crowded": (boxes_of(120, spread=8), scores_of(120)),
    "duplicates": (boxes_of(10).repeat(3, 1), scores_of(30)),
    "ties": (boxes_of(60, spread=8), scores_of(60, levels=3)),
    "no extent": (boxes_of(20, spread=2) * torch.tensor([1, 1, 1, 0, 1, 1, 1.0]), scores_of(20)),
    "huge coordinates": (boxes_of(40, spread=8) + HUGE, scores_of(40)),
    "non-contiguous": (boxes_of(60)[::2], scores_of(60)[::2]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_op(case, rule, dtype, device):
    boxes, scores = (value.to(device) for value in CASES[case])
    op, suppresses, columns, thresholds = RULES[rule]
    groups = torch.arange(len(boxes), device=device) % 2
    for threshold in thresholds:
        args = [boxes[:, :columns].to(dtype), scores.to(dtype), groups, threshold]
        if threshold == thresholds[1]:
            assert_op(op, args, reference=greedy(suppresses))
        assert torch.equal(op(*args), greedy(suppresses)(*args))
        assert torch.equal(op(*args), reference_of(op)(*args))


@pytest.mark.parametrize("rule", RULES)
def test_many_boxes_equal_the_reference(rule, device):
    """More than one block of the kernels, and of the GPU's bit masks."""
    op, _, columns, thresholds = RULES[rule]
    boxes, scores = boxes_of(5000, spread=60).to(device), scores_of(5000).to(device)
    groups = torch.arange(5000, device=device) % 3
    args = boxes[:, :columns], scores, groups, thresholds[1]
    assert torch.equal(op(*args), reference_of(op)(*args))


def test_same_bits_with_any_number_of_threads():
    boxes, scores = boxes_of(6000, spread=200), scores_of(6000)  # enough for several tasks
    assert_same_bits_with_any_threads(
        lambda: (
            rotated_nms(boxes, scores, 0.3),
            axis_aligned_nms(boxes, scores, 0.3),
            circle_nms(boxes[:, :2], scores, 0.8),
        )
    )


@st.composite
def any_boxes(draw):
    """Boxes on a coarse lattice, so that many touch, coincide or have an IoU of exactly the threshold; tied scores."""
    num = draw(st.integers(0, 12))
    numbers = st.integers(0, 6)
    rows = [
        [draw(numbers) / 2, draw(numbers) / 2, 0, 1 + draw(numbers) / 2, 1 + draw(numbers) / 2, 1, draw(numbers) * 0.4]
        for _ in range(num)
    ]
    scores = [draw(st.integers(0, 4)) / 4 for _ in range(num)]
    groups = [draw(st.integers(0, 1)) for _ in range(num)]
    return (
        torch.tensor(rows).view(-1, 7),
        torch.tensor(scores).view(-1),
        torch.tensor(groups, dtype=torch.int64).view(-1),
    )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60, deadline=None)
@given(any_boxes(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_what_is_kept_is_apart_and_what_is_dropped_has_a_better_one(rule, drawn, threshold):
    boxes, scores, groups = drawn
    op, suppresses, columns, _ = RULES[rule]
    rows = boxes[:, :columns]
    kept = op(rows, scores, groups, threshold)
    over = suppresses(rows, threshold) & (groups[:, None] == groups)
    assert (scores[kept].diff() <= 0).all()
    # Of the better one only: in another box's frame an overlap rounds differently.
    assert not over[kept][:, kept].triu(1).any()
    for row in sorted(set(range(len(boxes))) - set(kept.tolist())):
        better = kept[(scores[kept] > scores[row]) | ((scores[kept] == scores[row]) & (kept < row))]
        assert over[better, row].any()
    # Idempotent: what is left suppresses nothing more.
    again = op(rows[kept], scores[kept], groups[kept], threshold)
    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(any_boxes(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_where_scores_differ(rule, drawn, random):
    boxes, _, groups = drawn
    op, _, columns, thresholds = RULES[rule]
    scores = torch.arange(len(boxes)).float()
    shuffled = list(range(len(boxes)))
    random.shuffle(shuffled)
    kept = op(boxes[:, :columns], scores, groups, thresholds[1])
    other = op(boxes[shuffled, :columns], scores[shuffled], groups[shuffled], thresholds[1])
    assert [shuffled[i] for i in other.tolist()] == kept.tolist()


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_of_the_reference_do_not_change_the_result(monkeypatch, block):
    use("reference", nms, monkeypatch)
    boxes, scores = boxes_of(200, spread=10), scores_of(200)
    expected = rotated_nms(boxes, scores, 0.2)
    monkeypatch.setattr(nms, "_BLOCK", block)
    assert torch.equal(rotated_nms(boxes, scores, 0.2), expected)


def test_a_chain_is_suppressed_link_by_link():
    """Each box overlaps the next: a dropped box must not drop another."""
    boxes = torch.tensor([[1.0 * i, 0, 0, 1.5, 1, 1, 0] for i in range(100)])
    kept = rotated_nms(boxes, torch.arange(100).flip(0).float(), 0.1)
    assert kept.tolist() == list(range(0, 100, 2))


def test_an_overlap_equal_to_the_threshold_stays():
    # 3 x 1 boxes shifted by 1 share 2 of 4.
    boxes = torch.tensor([[0.0, 0, 0, 3, 1, 1, 0], [1, 0, 0, 3, 1, 1, 0]])
    assert len(rotated_nms(boxes, torch.tensor([2.0, 1.0]), 0.5)) == 2
    assert len(rotated_nms(boxes, torch.tensor([2.0, 1.0]), 0.4999)) == 1


def test_groups_equal_separate_suppression():
    boxes, scores = boxes_of(90, spread=6), scores_of(90)
    groups = torch.arange(90) % 3
    together = nms_batched(boxes, scores, 0.1, groups)
    assert (scores[together].diff() <= 0).all()
    for group in range(3):
        rows = (groups == group).nonzero()[:, 0]
        alone = rows[rotated_nms(boxes[rows], scores[rows], 0.1)]
        assert torch.equal(together[groups[together] == group], alone)


def test_centers_at_the_radius_suppress():
    """As in CenterPoint's loop, whose squared distance is compared by "not above"."""
    centers = torch.tensor([[0.0, 0], [3, 4], [3, 4.5]])
    assert circle_nms(centers, torch.tensor([3.0, 2, 1]), 5.0).tolist() == [0, 2]
    assert circle_nms(centers, torch.tensor([3.0, 2, 1]), 4.999).tolist() == [0, 1]


def test_axis_aligned_drops_the_yaw():
    boxes = torch.tensor([[0.0, 0, 0, 4, 1, 1, 0], [0, 0, 0, 4, 1, 1, math.pi / 2]])
    assert rotated_nms(boxes, torch.tensor([2.0, 1]), 0.5).tolist() == [0, 1]
    assert axis_aligned_nms(boxes, torch.tensor([2.0, 1]), 0.5).tolist() == [0]


@pytest.mark.parametrize("function", [axis_aligned_nms, circle_nms])
def test_groups_are_optional(function):
    boxes = boxes_of(40, spread=5)[:, : 2 if function is circle_nms else 7]
    scores = scores_of(40)
    one_group = function(boxes, scores, 0.5, torch.zeros(40, dtype=torch.int64))
    assert torch.equal(function(boxes, scores, 0.5), one_group)
    assert len(function(boxes, scores, 0.5, torch.arange(40))) == 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_odd_numbers_leave_the_other_boxes_alone(value):
    boxes, scores = boxes_of(30, spread=5), scores_of(30)
    scores[4] = 2  # visited first
    others = [row for row in range(30) if row != 4]
    for op, _, columns, thresholds in RULES.values():
        for column in set(range(columns)) - {2, 3, 4, 5, 6}:
            odd = boxes.clone()
            odd[4, column] = value
            groups = torch.zeros(30, dtype=torch.int64)
            kept = op(odd[:, :columns], scores, groups, thresholds[1])
            alone = op(odd[others][:, :columns], scores[others], groups[others], thresholds[1])
            assert kept.tolist() == [4, *(others[i] for i in alone)]


def test_errors_name_the_argument():
    for function in (rotated_nms, axis_aligned_nms):
        with pytest.raises(ValueError, match=r"iou_threshold must be within 0\.\.1, got 70"):
            function(boxes_of(2), scores_of(2), 70.0)
    with pytest.raises(ValueError, match="radius must be at least 0 metres, got -1"):
        circle_nms(boxes_of(2)[:, :2], scores_of(2), -1.0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nms_reproduces_oracle(oracles, implementation, monkeypatch):
    use(implementation, nms, monkeypatch)
    paths = sorted((oracles / "rotated_boxes").glob("nms_*.npz"))
    if not paths:
        pytest.skip("no nms_*.npz")
    for path in paths:
        data, cases = np.load(path), json.loads(path.with_suffix(".json").read_text())
        for number, case in enumerate(cases):
            boxes, scores = (torch.from_numpy(data[f"{name}_{number}"]) for name in ("boxes", "scores"))
            kept = rotated_nms(boxes, scores, case["iou_threshold"])
            np.testing.assert_array_equal(kept, data[f"keep_{number}"], err_msg=f"{path.name} set {number}")
