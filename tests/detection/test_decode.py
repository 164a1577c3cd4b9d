import math

import torch

from equilidar.detection.decode import AnchorBoxes, BoxSelection, decode_predictions
from equilidar.detection.direction import direction_of
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.targets import assign_targets
from equilidar.structures import Boxes3D

from .test_losses import random_predictions


def line_of_boxes(scores: list[list[float]], spacing: float = 10.0) -> AnchorBoxes:
    score = torch.tensor(scores)
    boxes = torch.tensor([0.0, 0, 0, 4, 2, 1.5, 0]).repeat(*score.shape, 1)
    boxes[..., 0] = torch.arange(score.shape[1]) * spacing
    classes = torch.arange(score.shape[1]).expand(len(score), -1) % 3
    return AnchorBoxes(boxes, score, classes, torch.ones(len(score), dtype=torch.bool))


def test_found_boxes_are_those_that_were_to_be_found() -> None:
    """Targets put into the outputs come out of the decoder as the boxes they were made from."""
    predictions = random_predictions(2)
    boxes = Boxes3D.make(
        torch.tensor([[0.3, 0.2, -1.0], [3.5, 3.9, 0.1], [0.1, 3.7, 0.2], [3.9, 0.4, -0.9]]),
        torch.tensor([[4.2, 1.7, 1.4], [0.7, 0.7, 1.8], [1.8, 0.7, 1.7], [3.5, 1.5, 1.6]]),
        torch.tensor([0.3, -2.5, 3.1, -1.4]),
        label=torch.tensor([0, 1, 2, 0]),
        offsets=torch.tensor([0, 3, 4]),
    )
    targets = assign_targets(predictions.anchors, boxes)
    classes = torch.nn.functional.one_hot(targets.labels.clamp(min=0), 4)[..., 1:] * 20.0 - 10
    turns = torch.nn.functional.one_hot(targets.directions, 2) * 1.0
    # Half a turn more in the box output is for the direction classifier to undo.
    deltas = targets.boxes + torch.tensor([0, 0, 0, 0, 0, 0, math.pi])
    found = BoxSelection()(decode_predictions(AnchorPredictions(classes, deltas, turns, predictions.anchors)))
    for item, (truth, got) in enumerate(zip(boxes.split(), found.boxes.split(), strict=True)):
        order = [int((got.center - center).norm(dim=1).argmin()) for center in truth.center]
        assert sorted(order) == list(range(len(got))), item
        torch.testing.assert_close(got.as_tensor()[order], truth.as_tensor(), atol=1e-4, rtol=0)
        assert got.label[order].tolist() == truth.label.tolist()


def test_the_likeliest_alone_give_the_same_detections() -> None:
    predictions = random_predictions(3)
    every, likeliest = decode_predictions(predictions), decode_predictions(predictions, 20)
    assert likeliest.boxes.shape == (3, 20, 7) and (likeliest.scores.diff(dim=1) <= 0).all()
    best = every.scores.topk(20, 1).indices
    torch.testing.assert_close(likeliest.boxes, every.boxes.gather(1, best[..., None].expand(-1, -1, 7)))
    selection = BoxSelection(max_candidates=20, score_threshold=0.0)
    one, other = selection(every), selection(likeliest)
    assert torch.equal(one.scores, other.scores) and torch.equal(one.boxes.as_tensor(), other.boxes.as_tensor())
    assert torch.equal(one.boxes.label, other.boxes.label)
    assert decode_predictions(predictions, 10**6).boxes.shape == every.boxes.shape


def test_heading_lies_in_its_range() -> None:
    decoded = decode_predictions(random_predictions(2))
    yaw = decoded.boxes[..., 6]
    assert (yaw >= 0.78538).all() and (yaw < 0.78540 + 2 * math.pi).all()
    chosen = random_predictions(2).direction_logits.argmax(-1)
    assert (direction_of(yaw) == chosen).float().mean() > 0.99  # the rest: rounding at the seam


def test_low_scores_and_overlaps_go_whatever_the_class() -> None:
    decoded = line_of_boxes([[0.3, 0.9, 0.05, 0.6, 0.8]], spacing=3.0)  # neighbours overlap by a quarter
    found = BoxSelection(score_threshold=0.1, nms_iou=0.01)(decoded)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))
    assert found.boxes.center[:, 0].tolist() == [3, 12]
    assert BoxSelection(nms_iou=0.5)(decoded).boxes.center[:, 0].tolist() == [3, 12, 9, 0]


def test_each_sweep_on_its_own_by_falling_score() -> None:
    decoded = line_of_boxes([[0.3, 0.9, 0.5], [0.0, 0.0, 0.0], [0.7, 0.2, 0.8]])
    found = BoxSelection()(decoded)
    assert found.offsets.tolist() == [0, 3, 3, 6]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5, 0.3, 0.8, 0.7, 0.2]))
    assert found.boxes.label.tolist() == [1, 2, 0, 2, 0, 1]


def test_limits_before_and_after_suppression() -> None:
    decoded = line_of_boxes([[0.3, 0.9, 0.5, 0.4], [0.6, 0.7, 0.8, 0.9]], spacing=3.0)
    found = BoxSelection(max_candidates=2)(decoded)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.9]))  # the second candidate overlaps the first
    apart = line_of_boxes([[0.3, 0.9, 0.5, 0.4], [0.6, 0.7, 0.8, 0.9]])
    found = BoxSelection(max_boxes=2)(apart)
    assert found.offsets.tolist() == [0, 2, 4]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5, 0.9, 0.8]))


def test_boxes_that_overflowed_are_left_out() -> None:
    decoded = line_of_boxes([[0.9, 0.8, 0.7]])
    decoded.boxes[0, 0, 3] = math.inf
    decoded.boxes[0, 1, 0] = math.nan
    found = BoxSelection()(decoded)
    torch.testing.assert_close(found.scores, torch.tensor([0.7]))
    assert found.finite is not None and not found.finite.any(), "left out, not unsaid"
    assert -math.pi <= float(found.boxes.yaw) < math.pi
