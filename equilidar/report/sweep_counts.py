"""What is in a sweep, in a few lines of text."""

from collections.abc import Sequence

import torch

from equilidar.structures import Boxes3D, Sweep


def describe(sweep: Sweep, boxes: Boxes3D | None = None, class_names: Sequence[str] = ()) -> str:
    """Return the number of points, their ranges, and per class how many objects there are and how many points each.

    Args:
        sweep: what was measured.
        boxes: its objects.
        class_names: names of their labels.
    """
    lines = [f"{sweep.key}: {len(sweep.xyz):,} points, channels {', '.join(sweep.contract.channels) or 'none'}"]
    if len(sweep.xyz):
        distance = torch.linalg.vector_norm(sweep.xyz, dim=1)
        quantiles = torch.quantile(distance, torch.tensor([0.05, 0.5, 0.95])).tolist()
        lines.append("range of 5, 50 and 95 % of the points: " + ", ".join(f"{q:.1f} m" for q in quantiles))
    if boxes is None:
        return "\n".join(lines)
    counts = boxes.contains(sweep.xyz).sum(1)
    for label, name in enumerate(class_names):
        own = counts[boxes.label == label]
        if len(own) == 0:
            lines.append(f"{name}: none")
            continue
        low, middle, high = (int(v) for v in (own.min(), own.median(), own.max()))
        lines.append(f"{name}: {len(own)} objects, points per object {low} to {high}, median {middle}")
    return "\n".join(lines)
