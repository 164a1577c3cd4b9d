"""Anchors, targets and losses for KITTI in plain NumPy and PyTorch, one box or anchor after the other.

After SECOND (Yan et al. 2018) and OpenPCDet's description; float64; imports no equilidar.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Arrays = dict[str, np.ndarray]

# length, width, height, bottom, matched, unmatched of Car, Pedestrian and Cyclist
CLASSES = (
    (3.9, 1.6, 1.56, -1.78, 0.6, 0.45),
    (0.8, 0.6, 1.73, -0.6, 0.5, 0.35),
    (1.76, 0.6, 1.73, -0.6, 0.5, 0.35),
)
YAWS = (0.0, 1.57)


def all_anchors(height: int, width: int, bounds: Sequence[float]) -> np.ndarray:
    """Return (y, x, class, yaw) flat for a range of x, y, z lowest and highest."""
    rows = [
        (x, y, bottom + dz / 2, dx, dy, dz, yaw)
        for y in np.linspace(bounds[1], bounds[4], height)
        for x in np.linspace(bounds[0], bounds[3], width)
        for dx, dy, dz, bottom, _, _ in CLASSES
        for yaw in YAWS
    ]
    return np.array(rows)


def limit_period(angle: float, period: float) -> float:
    return angle - math.floor(angle / period) * period


def decode(maps: dict[str, Tensor], anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and 1-based labels of all anchors."""
    logits, deltas, turns = (
        maps[name].detach().reshape(-1, size).numpy()
        for name, size in (("cls_preds", 3), ("box_preds", 7), ("dir_cls_preds", 2))
    )
    boxes = np.empty_like(anchors)
    for i, (anchor, delta, turn) in enumerate(zip(anchors, deltas, turns, strict=True)):
        diagonal = math.hypot(anchor[3], anchor[4])
        boxes[i, :2] = delta[:2] * diagonal + anchor[:2]
        boxes[i, 2] = delta[2] * anchor[5] + anchor[2]
        boxes[i, 3:6] = np.exp(delta[3:6]) * anchor[3:6]
        half = limit_period(delta[6] + anchor[6] - 0.78539, math.pi)
        boxes[i, 6] = half + 0.78539 + math.pi * int(turn[1] > turn[0])
    scores = 1 / (1 + np.exp(-logits))
    return boxes, scores.max(1), scores.argmax(1) + 1


def nearest_rectangle(box: np.ndarray) -> tuple[float, float, float, float]:
    angle = box[6] - math.floor(box[6] / math.pi + 0.5) * math.pi
    dx, dy = (box[3], box[4]) if abs(angle) < math.pi / 4 else (box[4], box[3])
    return box[0] - dx / 2, box[1] - dy / 2, box[0] + dx / 2, box[1] + dy / 2


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def assign(anchors: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the label of each anchor and the row of its box, -1 for none."""
    labels, rows = np.full(len(anchors), -1), np.full(len(anchors), -1)
    rectangles = [nearest_rectangle(anchor) for anchor in anchors.astype(np.float32).astype(np.float64)]
    for index, (*_, matched, unmatched) in enumerate(CLASSES):
        own = [i for i in range(len(anchors)) if i % 6 // 2 == index]
        truths = [row for row, box in enumerate(boxes) if box[7] == index + 1]
        table = np.zeros((len(own), len(truths)))
        for column, row in enumerate(truths):
            target = nearest_rectangle(boxes[row])
            table[:, column] = [overlap(rectangles[i], target) for i in own]
        highest = table.max(0) if len(own) else np.zeros(0)
        for line, i in enumerate(own):
            best = table[line].max(initial=0.0)
            forced = any(table[line, c] > 0 and table[line, c] >= highest[c] - 1e-7 for c in range(len(truths)))
            if forced or (truths and best >= matched):
                labels[i], rows[i] = index + 1, truths[int(table[line].argmax())]
            elif best < unmatched:
                labels[i] = 0
    return labels, rows


def encode(box: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    diagonal = math.hypot(anchor[3], anchor[4])
    center = (box[:3] - anchor[:3]) / (diagonal, diagonal, anchor[5])
    return np.concatenate([center, np.log(box[3:6] / anchor[3:6]), [box[6] - anchor[6]]])


def targets_and_losses(
    maps: dict[str, Tensor], anchors: np.ndarray, batch: np.ndarray
) -> tuple[Arrays, dict[str, Tensor]]:
    """Return what the assigner gives for (B, M, 8) boxes, and the weighted losses."""
    logits = maps["cls_preds"].reshape(len(batch), -1, 3)
    deltas = maps["box_preds"].reshape(len(batch), -1, 7)
    turns = maps["dir_cls_preds"].reshape(len(batch), -1, 2)
    classification = box_loss = direction = torch.zeros((), dtype=torch.float64)
    all_labels, index, residuals, bins = [], [], [], []
    for item, boxes in enumerate(batch):
        labels, rows = assign(anchors, boxes[boxes[:, 7] > 0])
        all_labels.append(labels)
        share = 1 / max((labels > 0).sum(), 1) / len(batch)
        for k in range(3):
            p = logits[item, :, k].sigmoid()
            target = torch.from_numpy(labels == k + 1)
            focal = torch.where(target, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
            classification = classification + (focal * torch.from_numpy(labels >= 0)).sum() * share
        for i in np.flatnonzero(labels > 0):
            residual = encode(boxes[rows[i], :7], anchors[i])
            turn = math.floor(limit_period(residual[6] + anchors[i, 6] - 0.78539, 2 * math.pi) / math.pi)
            index.append((item, i))
            residuals.append(residual)
            bins.append(turn)
            got, target = deltas[item, i], torch.from_numpy(residual)
            error = torch.cat([got[:6] - target[:6], torch.sin(got[6:] - target[6:])]).abs()
            smooth = torch.where(error < 1 / 9, 0.5 * 9 * error**2, error - 0.5 / 9)
            box_loss = box_loss + 2 * smooth.sum() * share
            direction = direction + 0.2 * -turns[item, i].log_softmax(0)[turn] * share
    arrays = {
        "labels": np.stack(all_labels).astype(np.int8),
        "pos_index_b_anchor": np.array(index, np.int32).reshape(-1, 2),
        "pos_reg_targets": np.array(residuals, np.float32).reshape(-1, 7),
        "pos_dir_targets": np.array(bins, np.int8),
    }
    losses = {"rpn_loss_cls": classification, "rpn_loss_loc": box_loss, "rpn_loss_dir": direction}
    return arrays, losses | {"rpn_loss": classification + box_loss + direction}
