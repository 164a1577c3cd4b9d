import math

import numpy as np
import pytest
import torch

from equilidar.detection.point_head import PointHead, PointLoss
from equilidar.structures import Boxes3D


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Boxes3D]:
    """Two sweeps of keypoints, many of them close to faces; the second box is of no known class."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([[2.0, 1, 0, 3, 1.5, 1.4, 0.6], [6, 1, 0, 3, 1.5, 1.4, 0], [1, 1, 0, 0.8, 0.6, 1.7, 2.0]])
    label = torch.tensor([0, -1, 2])
    boxes = Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6], label=label, offsets=torch.tensor([0, 2, 3]))
    which = torch.tensor([0] * 60 + [1] * 60 + [2] * 60)
    local = (torch.rand(180, 3, generator=generator) - 0.5) * (rows[which, 3:6] + 0.5)
    cos, sin = rows[which, 6].cos(), rows[which, 6].sin()
    x, y = local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos
    return torch.stack([x, y, local[:, 2]], 1) + rows[which, :3], torch.tensor([0, 120, 180]), boxes


def reference_labels(xyz: np.ndarray, offsets: list[int], boxes: Boxes3D) -> list[int]:
    labels = []
    rows, bounds = boxes.as_tensor().numpy(), boxes.offsets.tolist()
    for point in range(len(xyz)):
        item = 0 if point < offsets[1] else 1
        inside = near = False
        for row in range(bounds[item], bounds[item + 1]):
            if boxes.label[row] < 0:
                continue
            box, delta = rows[row], xyz[point] - rows[row, :3]
            along = delta[0] * math.cos(box[6]) + delta[1] * math.sin(box[6])
            across = delta[1] * math.cos(box[6]) - delta[0] * math.sin(box[6])
            beyond = np.abs([along, across, delta[2]]) - box[3:6] / 2
            inside, near = inside or bool((beyond <= 0).all()), near or bool((beyond <= 0.1).all())
        labels.append(1 if inside else -1 if near else 0)
    return labels


def test_points_near_an_object_are_ignored() -> None:
    xyz, offsets, boxes = case()
    labels = PointLoss().labels(xyz, offsets, boxes)
    assert labels.tolist() == reference_labels(xyz.numpy(), offsets.tolist(), boxes)
    assert {-1, 0, 1} == set(labels.tolist())


def test_loss_and_gradient_follow_the_definition() -> None:
    xyz, offsets, boxes = case()
    logits = torch.randn(180, requires_grad=True)
    loss = PointLoss()(logits, xyz, offsets, boxes)
    labels = reference_labels(xyz.numpy(), offsets.tolist(), boxes)

    def total(values: np.ndarray) -> float:
        terms = []
        for value, label in zip(values, labels, strict=True):
            p = 1 / (1 + math.exp(-value))
            if label == 1:
                terms.append(-0.25 * (1 - p) ** 2 * math.log(p))
            elif label == 0:
                terms.append(-0.75 * p**2 * math.log(1 - p))
        return sum(terms) / labels.count(1)

    values = logits.detach().double().numpy()
    assert loss.terms["points"].item() == pytest.approx(total(values), rel=1e-5)
    assert loss.metrics["positive_points"].item() == labels.count(1) / 2
    loss.total().backward()
    for place in range(180):
        step = np.zeros(180)
        step[place] = 1e-5
        slope = (total(values + step) - total(values - step)) / 2e-5
        assert logits.grad[place].item() == pytest.approx(slope, abs=1e-6), place


def test_without_objects_or_points() -> None:
    xyz, offsets, _ = case()
    logits = torch.randn(180, requires_grad=True)
    loss = PointLoss()(logits, xyz, offsets, Boxes3D.empty(2))
    loss.total().backward()
    assert torch.isfinite(loss.total()) and (logits.grad != 0).all()
    none = torch.zeros(0, requires_grad=True)
    loss = PointLoss()(none, torch.zeros(0, 3), torch.zeros(3, dtype=torch.int64), case()[2])
    assert loss.total().item() == 0


def test_head_gives_one_logit_for_each_keypoint() -> None:
    head = PointHead(12, channels=(8, 6))
    assert head(torch.randn(5, 12)).shape == (5,)
    assert head(torch.randn(0, 12)).shape == (0,)
