"""Learns one batch by heart."""

import torch

from equilidar.detection.detector import Detector
from equilidar.structures import Boxes3D, LabelledBatch, PointCloudBatch


def learn_by_heart(model: Detector, points: PointCloudBatch, boxes: Boxes3D, steps: int) -> None:
    """Train on two sweeps alone, then take the statistics of normalisation from them; ends in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for step in range(steps):
        batch = LabelledBatch(points, boxes, torch.tensor([2 * step, 2 * step + 1]), ("a", "b"))
        optimizer.zero_grad()
        model.batch_loss(model(points), batch).total().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
    for module in model.modules():  # statistics of the one batch, not of how they came to be
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.loss(model(points), boxes)
    model.eval()
