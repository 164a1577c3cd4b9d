import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.detection.anchors import make_anchors
from equilidar.detection.box_coder import encode_boxes
from equilidar.detection.direction import direction_of
from equilidar.detection.targets import assign_targets
from equilidar.ops.rotated_iou import axis_aligned_bev_iou
from equilidar.structures import Boxes3D, GridSpec

from .openpcdet_case import ANCHORS, load

GRID = GridSpec.from_range([0, -8, -3, 16, 8, 1], [0.5, 0.5, 0.1])
MAP = (20, 20)


def reference_assign(anchors: np.ndarray, spec_index: np.ndarray, boxes: np.ndarray, labels: np.ndarray):
    """The rule, written anchor by anchor and box by box, for one sweep.

    Also returns where the answer hangs on the last bits: an IoU at a threshold, or nearly the highest of a box.
    """

    def rectangle(box):
        turn = abs((box[6] + math.pi / 2) % math.pi - math.pi / 2)
        dx, dy = (box[3], box[4]) if turn < math.pi / 4 else (box[4], box[3])
        return box[0] - dx / 2, box[1] - dy / 2, box[0] + dx / 2, box[1] + dy / 2

    def iou(a, b):
        w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
        h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
        return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)

    out = np.zeros(len(anchors), np.int64)
    match = np.full(len(anchors), -1)
    unsure = np.zeros(len(anchors), bool)
    for k, spec in enumerate(ANCHORS):
        rows, mine = np.flatnonzero(spec_index == k), np.flatnonzero(labels == k)
        if not len(mine):
            continue
        table = np.array([[iou(rectangle(anchors[a]), rectangle(boxes[m])) for m in mine] for a in rows])
        highest = (table > 0) & (table > table.max(0) - 1e-5)  # which anchors do best for which box
        shared = highest & (highest.sum(0) > 1)
        for i, a in enumerate(rows):
            match[a], best, tied = mine[table[i].argmax()], table[i].max(), highest[i].any()
            unsure[a] = shared[i].any() or min(abs(best - spec.matched), abs(best - spec.unmatched)) < 1e-5
            out[a] = k + 1 if best >= spec.matched or tied else (0 if best < spec.unmatched else -1)
    return out, match, unsure


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6))
def test_assignment_by_the_rule(seed: int, num: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = make_anchors(ANCHORS, GRID, MAP)
    items = []
    for count in (num, 0, 3):
        label = torch.randint(-1, 3, (count,), generator=generator)  # -1: no class of the detector
        size = torch.tensor([a.size for a in ANCHORS])[label.clamp(min=0)] * (
            0.8 + 0.4 * torch.rand(count, 3, generator=generator)
        )
        center = torch.tensor([20.0, 20.0, 0.0]) * torch.rand(count, 3, generator=generator) - torch.tensor(
            [2.0, 10.0, 0.8]
        )
        items.append(Boxes3D.make(center, size, 8 * torch.rand(count, generator=generator) - 4, label=label))
    targets = assign_targets(anchors, Boxes3D.collate(items))
    for b, item in enumerate(items):
        rows = item.as_tensor()
        labels, match, unsure = reference_assign(
            anchors.boxes.double().numpy(), anchors.class_index().numpy(), rows.double().numpy(), item.label.numpy()
        )
        np.testing.assert_array_equal(targets.labels[b].numpy()[~unsure], labels[~unsure])
        positive = targets.labels[b] > 0
        assert unsure.mean() < 0.1
        assert (targets.boxes[b][~positive] == 0).all() and (targets.directions[b][~positive] == 0).all()
        if positive.any():
            found = rows[match[positive.numpy()]]
            torch.testing.assert_close(targets.boxes[b][positive], encode_boxes(found, anchors.boxes[positive]))
            assert (targets.directions[b][positive] == direction_of(found[:, 6])).all()


def test_every_overlapped_box_is_found_by_some_anchor() -> None:
    # Too small for any threshold: only the rule of the highest IoU can give it an anchor.
    anchors = make_anchors(ANCHORS, GRID, MAP)
    box = Boxes3D.make(torch.tensor([[5.2, 0.3, -1.0]]), torch.tensor([[1.0, 0.5, 1.0]]), torch.tensor([0.2]))
    assert (assign_targets(anchors, box).labels == 1).any()


def test_ties_all_count() -> None:
    anchors = make_anchors(ANCHORS, GridSpec.from_range([0, 0, -3, 8, 8, 1], [0.5, 0.5, 0.5]), (9, 9))  # 1 m apart
    box = Boxes3D.make(torch.tensor([[3.5, 3.0, -1.0]]), torch.tensor([[1.0, 1.0, 1.0]]), torch.zeros(1))
    labels = assign_targets(anchors, box).labels.view(9, 9, 6)
    # Anchors of 3.9 x 1.6 m at heading 0 that cover the whole box: x 3 and 4 alike (and farther ones, too).
    assert labels[3, 3, 0] == labels[3, 4, 0] == 1
    assert (labels.flip(1)[3, 1:8, 0] == labels[3, 1:8, 0]).sum() >= 2


def test_boxes_outside_the_grid_and_of_other_classes_change_nothing() -> None:
    anchors = make_anchors(ANCHORS, GRID, MAP)
    inside = Boxes3D.make(torch.tensor([[5.0, 0.0, -1.0]]), torch.tensor([[3.9, 1.6, 1.5]]), torch.zeros(1))
    more = Boxes3D.make(
        torch.tensor([[5.0, 0.0, -1.0], [-90.0, 0.0, -1.0], [6.0, 1.0, 0.0]]),
        torch.tensor([[3.9, 1.6, 1.5]]).repeat(3, 1),
        torch.zeros(3),
        label=torch.tensor([0, 0, -1]),
    )
    assert torch.equal(assign_targets(anchors, inside).labels, assign_targets(anchors, more).labels)


def test_openpcdet_oracle_nearest_bev(oracles) -> None:
    case = load(oracles / "openpcdet/conventions/augment_boxes.npz")
    boxes, stored = torch.from_numpy(case["in/boxes7"]), torch.from_numpy(case["nearest_bev/aligned_boxes"])
    # The stored x0, y0, x1, y1 as boxes that need no turning are the boxes, as far as this IoU can tell.
    upright = torch.zeros(len(stored), 7)
    upright[:, :2], upright[:, 3:5] = (stored[:, :2] + stored[:, 2:]) / 2, stored[:, 2:] - stored[:, :2]
    torch.testing.assert_close(axis_aligned_bev_iou(boxes, upright).diagonal(), torch.ones(5), atol=1e-5, rtol=0)
    # The second set is not stored: the same boxes, 0.3 m and 0.1 m aside and 0.1 m longer and wider.
    others = boxes + torch.tensor([0.3, 0.1, 0, 0.1, 0.1, 0, 0])
    iou = axis_aligned_bev_iou(boxes, others)
    torch.testing.assert_close(iou, torch.from_numpy(case["nearest_bev/iou_self"]), atol=1e-5, rtol=0)
