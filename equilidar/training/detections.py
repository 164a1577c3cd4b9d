"""Detections of batches as those of single sweeps, and of all processes together."""

import torch

from equilidar.structures import Boxes3D, Detections


def split_detections(found: Detections) -> list[Detections]:
    """Return the detections of each sweep as a batch of one."""
    lengths = found.offsets.diff().tolist()
    parts: list[Boxes3D] = found.boxes.split()
    return [Detections(boxes, scores) for boxes, scores in zip(parts, found.scores.split(lengths), strict=True)]


def gather_detections(own: dict[str, Detections]) -> dict[str, Detections]:
    """Return the detections of all processes; every sweep was read by exactly one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[dict[str, Detections] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: value for part in parts if part is not None for key, value in part.items()}
