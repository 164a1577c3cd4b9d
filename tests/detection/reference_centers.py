"""Targets, losses and decoding of a center head, box by box and cell by cell in NumPy; imports nothing of the package.

Boxes are rows x, y, z, length, width, height, yaw, (vx, vy,) class from 1; `low` and `cell` are the map's lower corner
and the size of its cells along x and y, metres.
"""

import math

import numpy as np


def radius_of(length: float, width: float, overlap: float) -> float:
    """Length and width in cells."""
    s, p = length + width, length * width
    roots = []
    for a, b, c in (
        (1.0, s, p * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * s, (1 - overlap) * p),
        (4 * overlap, -2 * overlap * s, (overlap - 1) * p),
    ):
        roots.append((b + math.sqrt(b * b - 4 * a * c)) / 2)
    return min(roots)


def targets_of_head(
    boxes: np.ndarray,
    classes: list[int],
    low: np.ndarray,
    cell: np.ndarray,
    shape: tuple[int, int],
    *,
    overlap: float = 0.1,
    min_radius: int = 2,
    slots: int = 500,
) -> dict[str, np.ndarray]:
    """Return heat map, cells, mask and codes of one sweep and head; `classes` are the head's, counted from 1."""
    height, width = shape
    heatmap = np.zeros((len(classes), height, width))
    inds, mask = np.zeros(slots, int), np.zeros(slots, int)
    codes = np.zeros((slots, boxes.shape[1]))
    for slot, box in enumerate([box for box in boxes if int(box[-1]) in classes][:slots]):
        at = np.minimum(np.maximum((box[:2] - low) / cell, 0), [width - 0.5, height - 0.5])
        x, y = int(at[0]), int(at[1])
        radius = max(int(radius_of(box[3] / cell[0], box[4] / cell[1], overlap)), min_radius)
        deviation = (2 * radius + 1) / 6
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    value = math.exp(-(dx * dx + dy * dy) / (2 * deviation**2))
                    plane = heatmap[classes.index(int(box[-1]))]
                    plane[y + dy, x + dx] = max(plane[y + dy, x + dx], value)
        inds[slot], mask[slot] = y * width + x, 1
        codes[slot, :8] = [*(at - [x, y]), box[2], *np.log(box[3:6]), math.cos(box[6]), math.sin(box[6])]
        codes[slot, 8:] = box[7:-1]
    return {"heatmap": heatmap, "inds": inds, "masks": mask, "boxes": codes}


def losses_of_head(
    logits: np.ndarray, codes: np.ndarray, targets: list[dict[str, np.ndarray]], code_weights: np.ndarray
) -> tuple[float, float]:
    """Return heat map and box loss of one head over a batch: logits (B, C, H, W), codes (B, R, H, W)."""
    focal, positive = 0.0, 0
    error, count = np.zeros(codes.shape[1]), 0
    for item, target in enumerate(targets):
        p = np.clip(1 / (1 + np.exp(-logits[item].astype(np.float64))), 1e-4, 1 - 1e-4)
        for index in np.ndindex(p.shape):
            wanted = target["heatmap"][index]
            if wanted == 1:
                focal -= math.log(p[index]) * (1 - p[index]) ** 2
                positive += 1
            else:
                focal -= math.log(1 - p[index]) * p[index] ** 2 * (1 - wanted) ** 4
        for slot in np.flatnonzero(target["masks"]):
            y, x = divmod(int(target["inds"][slot]), logits.shape[3])
            difference = np.abs(codes[item, :, y, x] - target["boxes"][slot])
            error += np.where(np.isnan(target["boxes"][slot]), 0, difference)
            count += 1
    return focal / max(positive, 1), float((error * code_weights).sum() / max(count, 1))


def decode_head(
    logits: np.ndarray,
    codes: np.ndarray,
    classes: list[int],
    low: np.ndarray,
    cell: np.ndarray,
    *,
    center_range: np.ndarray,
    most: int = 500,
    threshold: float = 0.1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels (from 1) of one sweep and head: logits (C, H, W), codes (R, H, W)."""
    score = 1 / (1 + np.exp(-logits.astype(np.float64)))
    order = np.argsort(-score, axis=None, kind="stable")[:most]
    boxes, scores, labels = [], [], []
    for place in order:
        kind, y, x = np.unravel_index(place, score.shape)
        code = codes[:, y, x].astype(np.float64)
        center = np.array([*((np.array([x, y]) + code[:2]) * cell + low), code[2]])
        inside = (center >= center_range[:3]).all() and (center <= center_range[3:]).all()
        if inside and score[kind, y, x] > threshold:
            boxes.append([*center, *np.exp(code[3:6]), math.atan2(code[7], code[6]), *code[8:]])
            scores.append(score[kind, y, x])
            labels.append(classes[kind])
    return np.array(boxes).reshape(-1, len(codes) - 1), np.array(scores), np.array(labels, int)


def suppress_circles(xy: np.ndarray, scores: np.ndarray, squared_radius: float) -> list[int]:
    """Return kept rows by falling score: CenterPoint's own rule on the squared distance."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if all(((xy[row] - xy[other]) ** 2).sum() > squared_radius for other in kept):
            kept.append(int(row))
    return kept
