import math

import numpy as np
import pytest
import torch

from equilidar.detection.roi_loss import RoILoss, RoIPredictions, corner_distance
from equilidar.detection.roi_targets import RoITargets

from .test_roi_frame import random_boxes, reference_encode


def corners(box: np.ndarray) -> np.ndarray:
    points = []
    for sx in (-0.5, 0.5):
        for sy in (-0.5, 0.5):
            for sz in (-0.5, 0.5):
                x, y = sx * box[3], sy * box[4]
                points.append([
                    box[0] + x * math.cos(box[6]) - y * math.sin(box[6]),
                    box[1] + x * math.sin(box[6]) + y * math.cos(box[6]),
                    box[2] + sz * box[5],
                ])  # fmt: skip
    return np.array(points)


def huber(value: float, beta: float) -> float:
    return 0.5 * value * value / beta if abs(value) < beta else abs(value) - 0.5 * beta


def refined(delta: np.ndarray, roi: np.ndarray) -> np.ndarray:
    diagonal = math.hypot(roi[3], roi[4])
    x, y = delta[0] * diagonal, delta[1] * diagonal
    return np.array([
        roi[0] + x * math.cos(roi[6]) - y * math.sin(roi[6]),
        roi[1] + x * math.sin(roi[6]) + y * math.cos(roi[6]),
        roi[2] + delta[2] * roi[5],
        *(np.exp(delta[3:6]) * roi[3:6]),
        roi[6] + delta[6],
    ])  # fmt: skip


def reference_terms(logits: np.ndarray, deltas: np.ndarray, targets: RoITargets) -> tuple[float, float, float]:
    """Classification, box and corner term, proposal by proposal."""
    entropy, residual, corner = [], [], []
    for place in np.ndindex(*logits.shape):
        score = float(targets.scores[place])
        if score >= 0:
            p = 1 / (1 + math.exp(-logits[place]))
            entropy.append(-score * math.log(p) - (1 - score) * math.log(1 - p))
        if targets.foreground[place]:
            roi, box = targets.rois[place].double().numpy(), targets.boxes[place].double().numpy()
            residual.append(sum(huber(v, 1 / 9) for v in deltas[place] - reference_encode(box, roi)))
            turned = box + np.array([0, 0, 0, 0, 0, 0, math.pi])
            ours = corners(refined(deltas[place], roi))
            gaps = zip(ours, corners(box), corners(turned), strict=True)
            corner.append(np.mean([huber(min(np.linalg.norm(a - b), np.linalg.norm(a - c)), 1.0) for a, b, c in gaps]))
    count = max(1, len(residual))
    return float(np.mean(entropy)), sum(residual) / count, sum(corner) / count


def case(seed: int) -> tuple[np.ndarray, np.ndarray, RoITargets]:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 10).float().view(2, 5, 7)
    rois = boxes + torch.randn(2, 5, 7, generator=generator) * 0.2
    rois[0, 1, 6] += math.pi  # points the other way
    foreground = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 0, 1, 0]], dtype=torch.bool)
    scores = torch.rand(2, 5, generator=generator)
    scores[1, 2] = -1
    matched = torch.where(foreground[..., None], boxes, rois)
    deltas = torch.randn(2, 5, 7, generator=generator).double().numpy() * 0.3
    return (
        torch.randn(2, 5, generator=generator).double().numpy() * 2,
        deltas,
        RoITargets(rois, matched, foreground, scores),
    )


@pytest.mark.parametrize("seed", range(3))
def test_terms_and_their_gradients_follow_the_definition(seed: int) -> None:
    logits, deltas, targets = case(seed)
    leaves = torch.tensor(logits, dtype=torch.float32), torch.tensor(deltas, dtype=torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()
    loss = RoILoss()(RoIPredictions(*leaves), targets)
    expected = reference_terms(logits, deltas, targets)
    for name, value in zip(("roi_classification", "roi_box", "roi_corner"), expected, strict=True):
        assert loss.terms[name].item() == pytest.approx(value, rel=1e-4), name
    assert loss.weights == {"roi_classification": 1.0, "roi_box": 1.0, "roi_corner": 1.0}
    assert loss.metrics["foreground_rois"].item() == 2.5

    loss.total().backward()
    step = 1e-5
    for values, leaf in zip((logits, deltas), leaves, strict=True):
        numeric = np.zeros_like(values)
        for place in np.ndindex(*values.shape):
            sides = []
            for sign in (step, -step):
                moved = values.copy()
                moved[place] += sign
                sides.append(sum(reference_terms(*((moved, deltas) if values is logits else (logits, moved)), targets)))
            numeric[place] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(leaf.grad.numpy(), numeric, atol=2e-4)


def test_what_is_no_foreground_may_say_anything() -> None:
    """Residuals that overflow, of a proposal that is not moved, reach neither loss nor gradient."""
    logits, deltas, targets = case(0)
    said = torch.tensor(deltas, dtype=torch.float32)
    said[~targets.foreground] = 1e4
    said.requires_grad_()
    loss = RoILoss()(RoIPredictions(torch.tensor(logits, dtype=torch.float32), said), targets)
    loss.total().backward()
    assert torch.isfinite(loss.total()) and torch.isfinite(said.grad).all()
    assert not said.grad[~targets.foreground].any()


def test_no_foreground_at_all_costs_nothing() -> None:
    logits, deltas, targets = case(0)
    none = RoITargets(targets.rois, targets.rois, torch.zeros_like(targets.foreground), targets.scores)
    said = torch.tensor(deltas, dtype=torch.float32, requires_grad=True)
    loss = RoILoss()(RoIPredictions(torch.tensor(logits, dtype=torch.float32), said), none)
    loss.total().backward()
    assert loss.terms["roi_box"].item() == 0 and loss.terms["roi_corner"].item() == pytest.approx(0, abs=1e-9)
    assert not said.grad.any()


def test_corner_distance_of_simple_boxes() -> None:
    box = torch.tensor([[1.0, 2, 3, 4, 2, 1, 0.4]])
    turned = box + torch.tensor([0, 0, 0, 0, 0, 0, math.pi])
    moved = box + torch.tensor([0, 0, 3.0, 0, 0, 0, 0])
    nearly = box + torch.tensor([0, 0, 0.2, 0, 0, 0, 0])
    assert corner_distance(box, box).item() == 0
    assert corner_distance(box, turned).item() == pytest.approx(0, abs=1e-10)
    assert corner_distance(box, moved).item() == pytest.approx(2.5)
    assert corner_distance(box, nearly).item() == pytest.approx(0.02, rel=1e-4)
