"""What an evaluation during training returns, and what gives it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from equilidar.structures import Boxes3D, Detections

MODERATE = 1


@dataclass(frozen=True)
class Score:
    """Figures of one evaluation.

    Attributes:
        figures: {class: {metric: figure}}; a figure is {"AP_R40": [easy, moderate, hard], "AP_R11": ..., ...}, percent,
            where the protocol has difficulties, else a number in the benchmark's own unit, means under "mean".
        headline: the official figure, percent, by which the best checkpoint is chosen: the mean over classes of 3D AP
            R40 moderate (KITTI, simulator), NDS (nuScenes), mean APH of level 2 (Waymo), CDS (Argoverse 2).
        name: of that figure.
    """

    figures: dict[str, dict[str, Any]]
    headline: float
    name: str = "3D AP R40 moderate"

    def logged(self) -> dict[str, float]:
        """Return what is logged, by name: the moderate figures of R40, or all numbers."""
        values: dict[str, float] = {}
        for name, metrics in self.figures.items():
            for metric, figure in metrics.items():
                if isinstance(figure, Mapping):
                    values[f"{name}_{metric}_moderate_R40"] = figure["AP_R40"][MODERATE]
                elif isinstance(figure, float) and math.isfinite(figure):
                    values[f"{name}_{metric}"] = figure
        return values


@runtime_checkable
class Scorer(Protocol):
    """Evaluates detections of one dataset.

    Attributes:
        has_cliff: whether a figure is the mean precision at few recall positions (KITTI's R11): how far it moves with
            slightly other scores is measured after training.
    """

    has_cliff: bool

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Return the figures; `detections` holds one item (a batch of one) for each key of the dataset."""
        ...

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write detections as files in the dataset's own format."""
        ...


def nothing_found() -> Detections:
    """Return the detections of a sweep in which there are none."""
    return Detections(Boxes3D.empty(), torch.zeros(0))
