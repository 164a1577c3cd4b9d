import math

import numpy as np
import pytest
import torch

from equilidar.detection.anchors import make_anchors
from equilidar.detection.losses import AnchorLoss, box_residual_loss, sigmoid_focal_loss
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.targets import AnchorTargets
from equilidar.structures import GridSpec

from .openpcdet_case import ANCHORS

GRID = GridSpec.from_range([0, 0, -3, 4, 4, 1], [0.5, 0.5, 0.5])


def test_focal_loss_by_formula() -> None:
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for target in (0.0, 1.0):
        p = 1 / (1 + np.exp(-logits.numpy()))
        p_t, alpha_t = (p, 0.3) if target else (1 - p, 0.7)
        expected = -alpha_t * (1 - p_t) ** 1.5 * np.log(p_t)
        got = sigmoid_focal_loss(logits, torch.full_like(logits, target), alpha=0.3, gamma=1.5)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_focal_loss_is_finite_at_extreme_logits() -> None:
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()
    assert loss[0] == 0 and loss[3] == 0 and loss[1] > 7000 and loss[2] > 2000


def test_box_loss_by_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    deltas, target = torch.randn(2, 50, 7, generator=generator, dtype=torch.float64).unbind(0)

    def smooth(error: float) -> float:
        return 4.5 * error**2 if abs(error) < 1 / 9 else abs(error) - 1 / 18

    expected = [
        sum(smooth(a - b) for a, b in zip(d[:6], t[:6], strict=True)) + smooth(math.sin(d[6] - t[6]))
        for d, t in zip(deltas.tolist(), target.tolist(), strict=True)
    ]
    np.testing.assert_allclose(box_residual_loss(deltas, target).numpy(), expected, rtol=1e-9)


def test_heading_off_by_half_a_turn_costs_the_box_loss_nothing() -> None:
    target = torch.zeros(1, 7)
    turned = torch.tensor([[0, 0, 0, 0, 0, 0, math.pi]])
    assert box_residual_loss(turned, target).item() < 1e-6


def random_predictions(batch: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> AnchorPredictions:
    anchors = make_anchors(ANCHORS, GRID, (2, 3))
    generator = torch.Generator().manual_seed(seed)
    return AnchorPredictions(
        *(torch.randn(batch, len(anchors.boxes), n, generator=generator).to(dtype).requires_grad_() for n in (3, 7, 2)),
        anchors,
    )


def random_targets(predictions: AnchorPredictions, labels: list[list[int]], seed: int = 1) -> AnchorTargets:
    generator = torch.Generator().manual_seed(seed)
    full = torch.zeros(predictions.class_logits.shape[:2], dtype=torch.int64)
    for row, values in zip(full, labels, strict=True):
        row[: len(values)] = torch.tensor(values)
    boxes = torch.randn(predictions.box_deltas.shape, generator=generator) * (full > 0)[..., None]
    return AnchorTargets(full, boxes, torch.randint(0, 2, full.shape, generator=generator) * (full > 0))


def reference_loss(predictions: AnchorPredictions, targets: AnchorTargets) -> dict[str, float]:
    """Anchor by anchor, as the paper's formulas read."""
    total = {"classification": 0.0, "box": 0.0, "direction": 0.0}
    batch = len(targets.labels)
    for b in range(batch):
        normaliser = max(int((targets.labels[b] > 0).sum()), 1) * batch
        for a, label in enumerate(targets.labels[b].tolist()):
            logits = predictions.class_logits[b, a].tolist()
            for k, logit in enumerate(logits):
                p = 1 / (1 + math.exp(-logit))
                positive = label == k + 1
                p_t, alpha_t = (p, 0.25) if positive else (1 - p, 0.75)
                if label >= 0:
                    total["classification"] -= alpha_t * (1 - p_t) ** 2 * math.log(p_t) / normaliser
            if label > 0:
                box = box_residual_loss(predictions.box_deltas[b, a].detach().double(), targets.boxes[b, a].double())
                total["box"] += float(box) / normaliser
                log_p = predictions.direction_logits[b, a].detach().double().log_softmax(0)
                total["direction"] -= float(log_p[targets.directions[b, a]]) / normaliser
    return total


def test_loss_by_formula() -> None:
    predictions = random_predictions(3)
    targets = random_targets(predictions, [[1, -1, 2, 3, 0, 1], [-1, -1], [2]])
    got = AnchorLoss()(predictions, targets)
    expected = reference_loss(predictions, targets)
    for name, value in expected.items():
        assert got.terms[name].item() == pytest.approx(value, rel=1e-5), name
    assert got.weights == {"classification": 1.0, "box": 2.0, "direction": 0.2}
    total = expected["classification"] + 2 * expected["box"] + 0.2 * expected["direction"]
    assert got.total().item() == pytest.approx(total, rel=1e-5)
    assert got.metrics["positive_anchors"].item() == pytest.approx(5 / 3)


def test_mean_over_shards_is_the_loss_of_the_batch() -> None:
    predictions = random_predictions(4)
    targets = random_targets(predictions, [[1, 2, 3], [], [1], [-1, 2]])
    whole = AnchorLoss()(predictions, targets)
    shards = []
    for part in (slice(0, 2), slice(2, 4)):
        some = AnchorPredictions(
            predictions.class_logits[part],
            predictions.box_deltas[part],
            predictions.direction_logits[part],
            predictions.anchors,
        )
        shards.append(
            AnchorLoss()(some, AnchorTargets(targets.labels[part], targets.boxes[part], targets.directions[part]))
        )
    for name, value in whole.terms.items():
        assert value.item() == pytest.approx(sum(shard.terms[name].item() for shard in shards) / 2, rel=1e-5)


def test_nothing_to_find_still_trains() -> None:
    predictions = random_predictions(2)
    loss = AnchorLoss()(predictions, random_targets(predictions, [[], []]))
    loss.total().backward()
    assert loss.terms["box"].item() == 0 and loss.terms["direction"].item() == 0
    assert predictions.class_logits.grad.abs().sum() > 0
    assert (predictions.box_deltas.grad == 0).all() and (predictions.direction_logits.grad == 0).all()


def test_ignored_anchor_has_no_gradient() -> None:
    predictions = random_predictions(1)
    AnchorLoss()(predictions, random_targets(predictions, [[-1, 1]])).total().backward()
    assert (predictions.class_logits.grad[0, 0] == 0).all() and (predictions.class_logits.grad[0, 1] != 0).any()


def test_half_precision_outputs_give_a_float32_loss() -> None:
    predictions = random_predictions(1, dtype=torch.bfloat16)
    targets = random_targets(predictions, [[1, 2, 3]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = AnchorLoss()(predictions, targets)
    assert all(term.dtype == torch.float32 for term in loss.terms.values())
    for name, value in reference_loss(predictions, targets).items():
        assert loss.terms[name].item() == pytest.approx(value, rel=1e-4), name
