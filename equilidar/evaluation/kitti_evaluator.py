"""Evaluate KITTI result files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.evaluation.figures import format_table
from equilidar.evaluation.kitti import CLASSES, evaluate_folders, frames_of_both, read_split
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, list_frames, read_labels, read_results
from equilidar.evaluation.preflight import compare_conventions, describe, required


@dataclass(slots=True)
class KittiEvaluator:
    """bbox, aos, bev and 3d average precision of the official tool.

    Attributes:
        ground_truth: folder of NNNNNN.txt with 15 columns.
        detections: folder of NNNNNN.txt with 16 columns; an empty file says: nothing found.
        frames: text file of frame names; None: all frames of the ground truth.
        loose: also bev and 3d at the overlaps 0.5 (car) and 0.25.
    """

    ground_truth: str | Path
    detections: str | Path | None = None
    frames: str | Path | None = None
    loose: bool = False

    def evaluate(self) -> dict[str, Any]:
        """Return the figures of `evaluate_folders`, and raise as it does."""
        return evaluate_folders(self.ground_truth, required(self.detections), self.frames, self.loose)

    def check(self) -> list[str]:
        """Return what was found in the files; raises as `evaluate`, and where a convention is another one."""
        truth_folder, split = Path(self.ground_truth), None if self.frames is None else Path(self.frames)
        if self.detections is None:
            labels = read_labels(truth_folder, list_frames(truth_folder) if split is None else read_split(split))
            return [describe("ground truth", truth_folder, len(labels.frames), labels.kind, KITTI_CLASSES)]
        names = frames_of_both(truth_folder, Path(self.detections), split)
        labels, results = read_labels(truth_folder, names), read_results(Path(self.detections), names)
        return [
            describe("ground truth", truth_folder, len(names), labels.kind, KITTI_CLASSES),
            describe("detections", self.detections, len(names), results.kind, KITTI_CLASSES, results.score),
            f"{'':<13}the same frames as the ground truth",
            _compare(labels, results),
        ]

    def table(self, figures: dict[str, Any]) -> str:
        """Return average precision, R40 before R11."""
        return format_table(figures)


def _compare(labels: KittiTable, results: KittiTable) -> str:
    frames, kinds, boxes = [], [], []
    for table in (labels, results):
        # Only what has a place in space, and a class that is evaluated: Misc is anything.
        chosen = np.isin(table.kind, [KITTI_CLASSES.index(name) for name in CLASSES]) & (table.values[:, 7:10] > 0).all(
            1
        )
        frames.append(np.repeat(np.arange(len(table.frames)), np.diff(table.offsets))[chosen])
        kinds.append(table.kind[chosen])
        boxes.append(table.upright_boxes()[chosen])
    return compare_conventions((frames[0], frames[1]), (kinds[0], kinds[1]), (boxes[0], boxes[1]))
