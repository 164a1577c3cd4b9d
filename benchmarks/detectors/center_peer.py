"""OpenPCDet's way with centers (CenterHead, `centernet_utils`, NMS by head), for timing.

Written after its description, in NumPy and PyTorch: loops over sweeps, heads and boxes, Gaussians drawn one by one.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows.boxes import shapely_nms
from equilidar.structures import Boxes3D


class CenterPeer:
    """Targets, loss, decoding and suppression for a center head.

    Args:
        model: a `CenterPoint`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        layout = model.head.layout
        self.layout, self.shape = layout, layout.shape
        self.cell = [layout.grid.voxel_size[0] * layout.grid.shape[2] / self.shape[1]] * 2
        self.low = layout.grid.low

    def plausible(self, predictions: Any, boxes: Boxes3D) -> Any:
        """Return outputs as of a trained head: high at the boxes' cells, some false alarms elsewhere."""
        generator = torch.Generator().manual_seed(0)
        heat = torch.cat(self._targets(boxes)[0], 1)
        heatmap = 8 * heat - 6 + 0.5 * torch.randn(heat.shape, generator=generator)
        alarms = torch.rand(heat.shape, generator=generator) < 30 / (heat.shape[2] * heat.shape[3])
        codes = 0.1 * torch.randn(predictions.codes.shape, generator=generator)
        codes[:, :, 3:6] += torch.tensor([1.3, 0.5, 0.4]).view(3, 1, 1)
        return replace(predictions, heatmap=torch.where(alarms, heatmap + 4.5, heatmap), codes=codes)

    def loss(self, predictions: Any, boxes: Boxes3D) -> Tensor:
        """Assign and compare, head by head."""
        heat, wanted, inds, masks = self._targets(boxes)
        total, weights = torch.zeros(()), torch.tensor(self.model.center_loss.code_weights)
        first = 0
        for head, names in enumerate(self.layout.tasks):
            p = predictions.heatmap[:, first : first + len(names)].sigmoid().clamp(1e-4, 1 - 1e-4)
            first += len(names)
            at_center = heat[head].eq(1).float()
            negative = torch.log(1 - p) * p**2 * (1 - heat[head]) ** 4 * (1 - at_center)
            positive = torch.log(p) * (1 - p) ** 2 * at_center
            num = at_center.sum().clamp(min=1)
            total = total - self.model.center_loss.heatmap * (positive.sum() + negative.sum()) / num
            maps = predictions.codes[:, head].permute(0, 2, 3, 1).contiguous().flatten(1, 2)
            got = maps.gather(1, inds[head].unsqueeze(2).expand(-1, -1, maps.shape[2]))
            mask = masks[head].unsqueeze(2) & wanted[head].isfinite()
            error = torch.where(mask, (got - wanted[head].nan_to_num()).abs(), 0.0).sum((0, 1))
            weighted = (error * weights).sum() / masks[head].sum().clamp(min=1)
            total = total + self.model.center_loss.box * weighted
        return total

    def _targets(self, boxes: Boxes3D) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        height, width = self.shape
        heats, codes, inds, masks = [], [], [], []
        first = 0
        for names in self.layout.tasks:
            parts: tuple[list[Tensor], ...] = ([], [], [], [])
            for item in boxes.split():
                own = (item.label >= first) & (item.label < first + len(names))
                rows = torch.cat([item.as_tensor(), item.velocity[:, :2]], 1)[own]
                label = item.label[own] - first
                heat = torch.zeros(len(names), height, width)
                wanted = torch.zeros(500, self.layout.num_codes)
                ind, mask = torch.zeros(500, dtype=torch.int64), torch.zeros(500, dtype=torch.bool)
                x = ((rows[:, 0] - self.low[0]) / self.cell[0]).clamp(0, width - 0.5)
                y = ((rows[:, 1] - self.low[1]) / self.cell[1]).clamp(0, height - 0.5)
                center = torch.stack([x, y], 1)
                corner = center.int()
                radius = _radius(rows[:, 3] / self.cell[0], rows[:, 4] / self.cell[1]).int().clamp(min=2)
                for k in range(len(rows)):
                    _draw(heat[int(label[k])], corner[k], int(radius[k]))
                    ind[k] = corner[k, 1] * width + corner[k, 0]
                    mask[k] = True
                    wanted[k, :2] = center[k] - corner[k].float()
                    wanted[k, 2], wanted[k, 3:6] = rows[k, 2], rows[k, 3:6].log()
                    wanted[k, 6], wanted[k, 7] = torch.cos(rows[k, 6]), torch.sin(rows[k, 6])
                    if self.layout.has_velocity:
                        wanted[k, 8:] = rows[k, 7:9]
                for part, value in zip(parts, (heat, wanted, ind, mask), strict=True):
                    part.append(value)
            heats.append(torch.stack(parts[0]))
            codes.append(torch.stack(parts[1]))
            inds.append(torch.stack(parts[2]))
            masks.append(torch.stack(parts[3]))
            first += len(names)
        return heats, codes, inds, masks

    def candidates(self, predictions: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Decode the best cells of each head; of each sweep and head return boxes above the threshold, with scores."""
        selection, width = self.model.selection, self.shape[1]
        found, first = [], 0
        for head, names in enumerate(self.layout.tasks):
            heat = predictions.heatmap[:, first : first + len(names)].sigmoid()
            first += len(names)
            flat = heat.flatten(2)
            by_class, cells = flat.topk(min(selection.max_candidates, flat.shape[2]), 2)
            scores, best = by_class.flatten(1).topk(min(selection.max_candidates, by_class[0].numel()), 1)
            cells = cells.flatten(1).gather(1, best)
            maps = predictions.codes[:, head].permute(0, 2, 3, 1).contiguous().flatten(1, 2)
            codes = maps.gather(1, cells.unsqueeze(2).expand(-1, -1, maps.shape[2]))
            x = (cells % width + codes[..., 0]) * self.cell[0] + self.low[0]
            y = (torch.div(cells, width, rounding_mode="floor") + codes[..., 1]) * self.cell[1] + self.low[1]
            yaw = torch.atan2(codes[..., 7], codes[..., 6])
            boxes = torch.cat([torch.stack([x, y, codes[..., 2]], -1), codes[..., 3:6].exp(), yaw.unsqueeze(-1)], -1)
            bounds = torch.tensor(selection.center_range or [-math.inf] * 3 + [math.inf] * 3)
            for item in range(len(boxes)):
                inside = (boxes[item, :, :3] >= bounds[:3]).all(1) & (boxes[item, :, :3] <= bounds[3:]).all(1)
                inside &= scores[item] > selection.score_threshold
                found.append((boxes[item][inside].double().numpy(), scores[item][inside].numpy()))
        return found

    def suppress(self, candidates: list[tuple[np.ndarray, np.ndarray]]) -> int:
        """Suppress; return how many are left."""
        selection = self.model.selection
        kept = [shapely_nms(boxes, scores, selection.nms_iou) for boxes, scores in candidates if len(boxes)]
        return sum(min(len(rows), selection.max_boxes) for rows in kept)


def _radius(length: Tensor, width: Tensor, overlap: float = 0.1) -> Tensor:
    b1, c1 = length + width, width * length * (1 - overlap) / (1 + overlap)
    b2, c2 = 2 * (length + width), (1 - overlap) * width * length
    b3, c3 = -2 * overlap * (length + width), (overlap - 1) * width * length
    first = (b1 + (b1**2 - 4 * c1).sqrt()) / 2
    second = (b2 + (b2**2 - 16 * c2).sqrt()) / 2
    third = (b3 + (b3**2 - 16 * overlap * c3).sqrt()) / 2
    return torch.min(torch.min(first, second), third)


def _draw(heat: Tensor, corner: Tensor, radius: int) -> None:
    sigma = (2 * radius + 1) / 6
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    gaussian = np.exp(-(columns * columns + rows * rows) / (2 * sigma * sigma))
    x, y = int(corner[0]), int(corner[1])
    height, width = heat.shape
    left, right = min(x, radius), min(width - x, radius + 1)
    top, bottom = min(y, radius), min(height - y, radius + 1)
    place = heat[y - top : y + bottom, x - left : x + right]
    cut = torch.from_numpy(gaussian[radius - top : radius + bottom, radius - left : radius + right]).float()
    torch.max(place, cut, out=place)
