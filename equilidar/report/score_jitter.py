"""How much average precision moves when the same detections get slightly other scores.

Two trainings of one detector differ by more than this, so a difference below it says nothing. The mean over 11 recall
positions (R11) falls by up to a ninth of its height where recall just misses a position: the same detector was reported
with 79.3 and with 84.5 on KITTI, while the mean over 40 positions (R40) moved by a point or two.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from equilidar.structures import Detections

KEYS = ("AP_R40", "AP_R11")
SIGMA, REPEATS = 0.1, 10

Figures = Mapping[str, Mapping[str, Any]]
"""{class: {metric: {"AP_R40": [easy, moderate, hard], "AP_R11": [...]} or None}}; other entries are left alone."""


def jittered(detections: Mapping[str, Detections], sigma: float, seed: int) -> dict[str, Detections]:
    """Return detections with Gaussian noise on the logits of their scores.

    What falls below the lowest score there was is dropped: that score is taken for the threshold of the detector.

    Args:
        detections: one item (a batch of one) for each sweep.
        sigma: standard deviation of the noise; 0.1 moves a score of 0.5 by 0.025.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    lowest = min((float(item.scores.min()) for item in detections.values() if len(item.scores)), default=0.0)
    result: dict[str, Detections] = {}
    for key in sorted(detections):  # the noise depends on no order of reading
        item = detections[key]
        noise = sigma * torch.randn(len(item.scores), generator=generator, dtype=torch.float64)
        logits = torch.logit(item.scores.double(), eps=1e-6)
        scores = torch.sigmoid(logits + noise).to(item.scores.dtype)
        kept = scores >= lowest
        result[key] = Detections(item.boxes.select(kept), scores[kept])
    return result


def measure_jitter(
    score: Callable[[Mapping[str, Detections]], Figures],
    detections: Mapping[str, Detections],
    *,
    sigma: float = SIGMA,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how far each average precision spreads over jittered scores, the original ones among them.

    Args:
        score: evaluates detections.
        detections: one item for each sweep.
        sigma: of the noise on logits.
        repeats: number of jittered copies.
        seed: of the first; the others follow.

    Returns:
        {"sigma", "repeats", "seed", "spread": {class: {metric: {"AP_R40": [easy, moderate, hard], "AP_R11": [...]}}}},
        highest minus lowest in AP.
    """
    copies = [score(detections), *(score(jittered(detections, sigma, seed + i)) for i in range(repeats))]
    spread: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, metrics in copies[0].items():
        for metric, values in metrics.items():
            if isinstance(values, Mapping) and "AP_R40" in values:
                own = spread.setdefault(name, {}).setdefault(metric, {})
                for key in KEYS:
                    levels = [copy[name][metric][key] for copy in copies if copy[name][metric] is not None]
                    own[key] = [max(column) - min(column) for column in zip(*levels, strict=True)]
    return {"sigma": sigma, "repeats": repeats, "seed": seed, "spread": spread}
