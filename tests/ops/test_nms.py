"""Suppression against the greedy loop, and against reference selections."""

import json

import numpy as np
import pytest
import torch

from equilidar.ops import nms
from equilidar.ops.nms import nms_batched, rotated_nms
from equilidar.ops.rotated_iou import bev_iou
from equilidar.testing import assert_op


def boxes_of(num, seed=0, spread=20.0):
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed))
    return torch.cat([(u[:, :3] - 0.5) * spread, 1 + 3 * u[:, 3:6], u[:, 6:] * 7], 1)


def scores_of(num, seed=0, levels=1000):
    return torch.randint(0, levels, (num,), generator=torch.Generator().manual_seed(seed)).float() / levels


def greedy(boxes, scores, groups, threshold):
    overlap = bev_iou(boxes.double(), boxes.double())
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(overlap[i, j] <= threshold or groups[i] != groups[j] for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


CASES = {
    "empty": (boxes_of(0), scores_of(0)),
    "one box": (boxes_of(1), scores_of(1)),
    "apart": (boxes_of(20, spread=5000), scores_of(20)),
    "crowded": (boxes_of(120, spread=8), scores_of(120)),
    "duplicates": (boxes_of(10).repeat(3, 1), scores_of(30)),
    "ties": (boxes_of(60, spread=8), scores_of(60, levels=3)),
    "non-contiguous": (boxes_of(60)[::2], scores_of(60)[::2]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threshold", [0.01, 0.5, 1.0])
def test_op(case, threshold, device):
    boxes, scores = (value.to(device) for value in CASES[case])
    groups = torch.arange(len(boxes), device=device) % 2
    assert_op(torch.ops.equilidar.rotated_nms.default, [boxes, scores, groups, threshold], reference=greedy)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_do_not_change_the_result(monkeypatch, block):
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


def test_error_names_the_argument():
    with pytest.raises(ValueError, match=r"iou_threshold must be within 0\.\.1, got 70"):
        rotated_nms(boxes_of(2), scores_of(2), 70.0)


def test_nms_reproduces_oracle(oracles):
    paths = sorted((oracles / "rotated_boxes").glob("nms_*.npz"))
    if not paths:
        pytest.skip("no nms_*.npz")
    for path in paths:
        data, cases = np.load(path), json.loads(path.with_suffix(".json").read_text())
        for number, case in enumerate(cases):
            boxes, scores = (torch.from_numpy(data[f"{name}_{number}"]) for name in ("boxes", "scores"))
            kept = rotated_nms(boxes, scores, case["iou_threshold"])
            np.testing.assert_array_equal(kept, data[f"keep_{number}"], err_msg=f"{path.name} set {number}")
