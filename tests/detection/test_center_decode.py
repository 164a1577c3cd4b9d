import dataclasses
import math

import numpy as np
import pytest
import torch

from equilidar.detection.center_decode import CenterBoxes, CenterSelection, decode_centers
from equilidar.detection.center_predictions import CenterPredictions
from equilidar.detection.center_targets import CenterAssignment

from .reference_centers import decode_head, suppress_circles
from .test_center_losses import random_predictions
from .test_center_targets import CELL, LAYOUT, LOW, TASKS, random_boxes

RANGE = (-6.0, 3.5, -0.8, 12.0, 12.0, 0.9)


def row_of_boxes(scores: list[list[list[float]]], spacing: float) -> CenterBoxes:
    """Boxes along x, (item, task) by (item, task)."""
    score = torch.tensor(scores)
    boxes = torch.tensor([0.0, 0, 0, 4, 2, 1.5, 0]).repeat(*score.shape, 1)
    boxes[..., 0] = torch.arange(score.shape[2]) * spacing
    task = torch.arange(score.shape[1])[:, None]
    velocity, classes = torch.full((*score.shape, 2), math.nan), task.expand(*score.shape).clone()
    return CenterBoxes(boxes, velocity, score, classes, torch.ones(len(score), dtype=torch.bool))


def test_what_was_to_be_found_is_found() -> None:
    """Targets put into the outputs come out of the decoder as the boxes they were made from."""
    boxes = random_boxes([4, 3], 5, margin=-0.5)  # the last half cell is learned half a cell inside
    targets = CenterAssignment()(LAYOUT, boxes)
    codes = torch.zeros(2, 3, 10, *LAYOUT.shape)
    codes.flatten(3).permute(0, 1, 3, 2)[targets.item, targets.task, targets.cell] = targets.codes
    heatmap = torch.logit(targets.heatmap.where(targets.heatmap == 1, 0.0), eps=1e-6)
    selection = CenterSelection(center_range=None, nms_iou=1.0)
    found = selection(decode_centers(CenterPredictions(heatmap, codes, LAYOUT)))
    for truth, got in zip(boxes.split(), found.boxes.split(), strict=True):
        truth = truth.select(truth.label >= 0)
        assert len(got) == len(truth)
        order = [int((got.center - center).norm(dim=1).argmin()) for center in truth.center]
        np.testing.assert_allclose(got.as_tensor()[order, :6], truth.as_tensor()[:, :6], atol=1e-4)
        turn = torch.cos(got.yaw[order] - truth.yaw)
        assert (turn > 1 - 1e-5).all() and got.label[order].tolist() == truth.label.tolist()
        torch.testing.assert_close(got.velocity[order, :2], truth.velocity[:, :2])
        assert (got.velocity[:, 2] == 0).all()


@pytest.mark.parametrize("most", [7, 100, 5000])
def test_decoding_by_loops(most: int) -> None:
    predictions = random_predictions(2)
    with torch.no_grad():
        decoded = decode_centers(predictions, most)
    selection = CenterSelection(center_range=RANGE, max_boxes=5000, nms_iou=1.0)
    usable = selection._usable(decoded)
    first = 0
    for task, names in enumerate(TASKS):
        classes = list(range(first, first + len(names)))
        for item in range(2):
            boxes, scores, labels = decode_head(
                predictions.heatmap[item, classes].detach().numpy(),
                predictions.codes[item, task].detach().numpy(),
                classes,
                LOW,
                CELL,
                center_range=np.array(RANGE),
                most=most,
            )
            rows = usable[item, task]
            np.testing.assert_allclose(decoded.scores[item, task, rows].numpy(), scores, rtol=1e-5)
            np.testing.assert_array_equal(decoded.classes[item, task, rows].numpy(), labels)
            np.testing.assert_allclose(decoded.boxes[item, task, rows].numpy(), boxes[:, :7], atol=1e-3)
            np.testing.assert_allclose(decoded.velocities[item, task, rows].numpy(), boxes[:, 7:], rtol=1e-4)
        first += len(names)


def test_tasks_do_not_suppress_each_other_but_classes_of_one_do() -> None:
    decoded = row_of_boxes([[[0.9, 0.8], [0.7, 0.95]]], spacing=1.0)
    decoded.classes[0, 1, 1] = 2
    found = CenterSelection()(decoded)
    torch.testing.assert_close(found.scores, torch.tensor([0.95, 0.9]))
    assert found.boxes.label.tolist() == [2, 0]


def test_each_sweep_on_its_own_by_falling_score() -> None:
    decoded = row_of_boxes([[[0.3, 0.9]], [[0.0, 0.1]], [[0.7, 0.8]]], spacing=10.0)
    found = CenterSelection()(decoded)  # 0.1 is not above 0.1
    assert found.offsets.tolist() == [0, 2, 2, 4]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.3, 0.8, 0.7]))


def test_limits() -> None:
    decoded = row_of_boxes([[[0.3, 0.9, 0.5, 0.4], [0.6, 0.7, 0.8, 0.2]]], spacing=10.0)
    found = CenterSelection(max_boxes=2)(decoded)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.7, 0.5]))
    found = CenterSelection(center_range=(0.0, -1, -1, 20.0, 1, 1))(decoded)  # ends belong to the range
    assert sorted(set(found.boxes.center[:, 0].tolist())) == [0, 10, 20]
    decoded.boxes[0, 0, 1, 3] = math.inf
    found = CenterSelection()(decoded)
    assert found.scores.max() < 0.9 and found.finite is not None and not found.finite.any()


def test_circles_by_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 3, 60, 7, generator=generator) * 20
    scores = torch.rand(2, 3, 60, generator=generator)
    classes, finite = torch.zeros(2, 3, 60, dtype=torch.int64), torch.ones(2, dtype=torch.bool)
    decoded = CenterBoxes(boxes, boxes[..., :2], scores, classes, finite)
    squared = [4.0, 12.0, 0.85]
    radii = [math.sqrt(value) for value in squared]
    found = CenterSelection(suppression="circle", circle_radii=radii, center_range=None)(decoded)
    expected = []
    for item in range(2):
        kept = []
        for task, limit in enumerate(squared):
            rows = np.flatnonzero(scores[item, task].numpy() > 0.1)
            xy = boxes[item, task, rows, :2].double().numpy()
            own = scores[item, task, rows].numpy()
            kept += [float(own[row]) for row in suppress_circles(xy, own, limit)]
        expected += sorted(kept, reverse=True)
    np.testing.assert_array_equal(found.scores.numpy(), np.array(expected, np.float32))


def test_a_head_without_velocity_says_that_it_is_unknown() -> None:
    predictions = random_predictions(1)
    layout = dataclasses.replace(LAYOUT, has_velocity=False)
    found = CenterSelection()(
        decode_centers(CenterPredictions(predictions.heatmap, predictions.codes[:, :, :8], layout))
    )
    assert len(found.scores) and found.boxes.velocity.isnan().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"suppression": "square"}, "one of rotated, circle, got square"),
        ({"suppression": "circle"}, "needs selection.circle_radii"),
        ({"circle_radii": (1.0, 0.0)}, "must be positive"),
        ({"center_range": (0.0, 0, 0, 1, 1)}, "x0, y0, z0"),
        ({"center_range": (0.0, 0, 0, 1, 1, 0)}, "x0, y0, z0"),
        ({"max_boxes": 0}, "at least 1"),
    ],
)
def test_impossible_selections_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CenterSelection(**settings)


def test_there_is_a_circle_for_each_task() -> None:
    with pytest.raises(ValueError, match="each of the 3 tasks"):
        CenterSelection(suppression="circle", circle_radii=(1.0, 2.0)).check(LAYOUT)
