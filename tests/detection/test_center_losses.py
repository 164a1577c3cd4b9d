import dataclasses
import math

import numpy as np
import pytest
import torch

from equilidar.detection.center_losses import CenterLoss, heatmap_focal_loss
from equilidar.detection.center_predictions import CenterPredictions
from equilidar.detection.center_targets import CenterAssignment, CenterTargets
from equilidar.structures import Boxes3D

from .reference_centers import losses_of_head, targets_of_head
from .test_center_targets import CELL, LAYOUT, LOW, TASKS, as_rows, random_boxes


def random_predictions(batch: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> CenterPredictions:
    generator = torch.Generator().manual_seed(seed)
    heatmap = 3 * torch.randn(batch, 4, *LAYOUT.shape, generator=generator) - 2
    codes = torch.randn(batch, 3, 10, *LAYOUT.shape, generator=generator)
    return CenterPredictions(heatmap.to(dtype).requires_grad_(), codes.to(dtype).requires_grad_(), LAYOUT)


def targets_for(boxes: Boxes3D) -> CenterTargets:
    return CenterAssignment()(LAYOUT, boxes)


def reference(predictions: CenterPredictions, boxes: Boxes3D) -> list[tuple[float, float]]:
    first, values = 0, []
    for task, names in enumerate(TASKS):
        classes = list(range(first + 1, first + 1 + len(names)))
        targets = [targets_of_head(as_rows(item), classes, LOW, CELL, LAYOUT.shape) for item in boxes.split()]
        logits = predictions.heatmap[:, first : first + len(names)].detach().float().numpy()
        codes = predictions.codes[:, task].detach().float().numpy()
        values.append(losses_of_head(logits, codes, targets, np.array(CenterLoss().code_weights)))
        first += len(names)
    return values


def test_focal_loss_by_formula() -> None:
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for target in (0.0, 0.4, 1.0):
        got = heatmap_focal_loss(logits, torch.full_like(logits, target)).tolist()
        for logit, value in zip(logits.tolist(), got, strict=True):
            p = 1 / (1 + math.exp(-logit))
            expected = -((1 - p) ** 2) * math.log(p) if target == 1 else -((1 - target) ** 4) * p**2 * math.log(1 - p)
            assert value == pytest.approx(expected, rel=1e-2 if abs(logit) > 9.2 else 1e-9)


def test_focal_loss_is_finite_at_extreme_logits() -> None:
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    loss = heatmap_focal_loss(logits, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("lengths", [[6, 3], [0, 4], [0, 0]])
def test_loss_by_loops(lengths: list[int]) -> None:
    predictions, boxes = random_predictions(2), random_boxes(lengths, 1)
    expected = reference(predictions, boxes)
    got = CenterLoss().by_task(predictions, targets_for(boxes))
    for values, place in ((got[0], 0), (got[1], 1)):
        np.testing.assert_allclose(values.detach().numpy(), [pair[place] for pair in expected], rtol=1e-4, atol=1e-6)
    terms = CenterLoss(heatmap=1.0, box=0.25)(predictions, targets_for(boxes))
    total = sum(focal + 0.25 * box for focal, box in expected)
    assert terms.total().item() == pytest.approx(total, rel=1e-4)


def test_unknown_velocities_cost_nothing_and_poison_nothing() -> None:
    boxes = random_boxes([6, 3], 1)
    boxes.velocity[::2] = math.nan
    boxes.velocity[1] = math.inf
    predictions = random_predictions(2)
    terms = CenterLoss()(predictions, targets_for(boxes))
    terms.total().backward()
    assert torch.isfinite(terms.total()) and predictions.codes.grad.isfinite().all()
    boxes.velocity[1] = math.nan
    expected = sum(box for _, box in reference(predictions, boxes))
    assert terms.terms["box"].item() == pytest.approx(expected, rel=1e-4)


def test_nothing_to_find_still_trains() -> None:
    predictions = random_predictions(2)
    loss = CenterLoss()(predictions, targets_for(Boxes3D.empty(2)))
    loss.total().backward()
    assert loss.terms["box"].item() == 0 and (predictions.codes.grad == 0).all()
    assert predictions.heatmap.grad.abs().sum() > 0


def test_half_precision_outputs_give_a_float32_loss() -> None:
    predictions, boxes = random_predictions(1, dtype=torch.bfloat16), random_boxes([5], 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = CenterLoss()(predictions, targets_for(boxes))
    assert all(term.dtype == torch.float32 for term in loss.terms.values())
    expected = reference(predictions, boxes)
    assert loss.terms["box"].item() == pytest.approx(sum(box for _, box in expected), rel=1e-4)


def test_mean_over_shards_is_the_loss_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the counts of all processes, the mean of what each has is the loss of the whole batch."""
    predictions, boxes = random_predictions(4), random_boxes([6, 0, 2, 1], 4)
    whole = CenterLoss().by_task(predictions, targets_for(boxes))
    halves = [
        (
            dataclasses.replace(predictions, heatmap=predictions.heatmap[part], codes=predictions.codes[part]),
            targets_for(Boxes3D.collate(boxes.split()[part])),
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    heat_count, box_count = torch.zeros(3), torch.zeros(3)
    for _, targets in halves:
        centers = (targets.heatmap == 1).sum((0, 2, 3)).float()
        heat_count += torch.stack([centers[0], centers[1] + centers[2], centers[3]])
        box_count += targets.task.bincount(minlength=3)
    asked = iter([heat_count, box_count] * 2)
    monkeypatch.setattr("equilidar.detection.center_losses.all_processes_sum", lambda count: next(asked))
    monkeypatch.setattr("equilidar.detection.center_losses.num_processes", lambda: 2)
    shards = [CenterLoss().by_task(*half) for half in halves]
    for place in (0, 1):
        torch.testing.assert_close((shards[0][place] + shards[1][place]) / 2, whole[place])


def test_code_weights_must_fit() -> None:
    with pytest.raises(ValueError, match="code_weights must hold 8 numbers, or 10"):
        CenterLoss(code_weights=[1.0] * 7)
