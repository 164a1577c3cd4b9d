"""Evaluate nuScenes submissions from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from equilidar.evaluation.nuscenes import ERRORS, evaluate_nuscenes
from equilidar.evaluation.nuscenes_boxes import CLASSES, BikeRacks, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import read_ground_truth_boxes, read_submission
from equilidar.evaluation.nuscenes_tables import NuscenesTruth, read_tables
from equilidar.evaluation.preflight import check_frames, compare_conventions, describe, required
from equilidar.evaluation.quaternions import yaw_of
from equilidar.evaluation.text_table import text_table, without_nan


@dataclass(slots=True)
class NuscenesEvaluator:
    """mean AP, true positive errors and NDS of a submission.

    Attributes:
        ground_truth: folder of a release's tables, or a JSON file {"gt": {sample_token: [box, ...]}}.
        detections: submission, or a JSON file {"pred": {...}}.
        split: with tables: train, val, test, mini_train, mini_val, or a text file of scene names; None: all scenes.
    """

    ground_truth: str | Path
    detections: str | Path | None = None
    split: str | None = None

    def evaluate(self) -> dict[str, Any]:
        """Return the development kit's figures.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not in the format, or the samples differ.
        """
        path = required(self.detections)
        truth = self._read_truth()
        found = self._read_detections(path, truth)
        return cast("dict[str, Any]", without_nan(evaluate_nuscenes(truth.boxes, found, truth.racks)))

    def check(self) -> list[str]:
        """Return what was found in the files; raises as `evaluate`, and where a convention is another one."""
        truth = self._read_truth()
        boxes = truth.boxes
        lines = [describe("ground truth", self.ground_truth, len(boxes.samples), boxes.label, CLASSES, what="samples")]
        lines.append(
            f"{'':<13}{len(truth.racks.sample)} bicycle racks, {(boxes.num_points == 0).sum()} boxes without points"
        )
        if self.detections is None:
            return lines
        found = self._read_detections(Path(self.detections), truth)
        most = int(np.bincount(found.sample, minlength=1).max(initial=0))
        lines.append(
            describe(
                "detections", self.detections, len(found.samples), found.label, CLASSES, found.score, what="samples"
            )
        )
        lines.append(f"{'':<13}at most {most} in a sample, the same samples as the ground truth")
        place = {token: index for index, token in enumerate(boxes.samples)}
        of_found = np.array([place[token] for token in found.samples], dtype=np.int64)[found.sample]
        placed = _around_ego(boxes, truth, boxes.sample), _around_ego(found, truth, of_found)
        lines.append(compare_conventions((boxes.sample, of_found), (boxes.label, found.label), placed))
        return lines

    def table(self, figures: dict[str, Any]) -> str:
        """Return a line for each class, then the means."""
        aps, errors = figures["mean_dist_aps"], figures["label_tp_errors"]
        rows = [[name, aps[name], *(errors[name][error] for error in ERRORS)] for name in CLASSES]
        rows.append(["mean", figures["mean_ap"], *(figures["tp_errors"][error] for error in ERRORS)])
        header = ["class", "AP", "ATE", "ASE", "AOE", "AVE", "AAE"]
        return f"{text_table(header, rows)}\nNDS {figures['nd_score']:.4f}"

    def _read_truth(self) -> NuscenesTruth:
        path = Path(self.ground_truth)
        if path.is_dir():
            return read_tables(path, self.split)
        boxes = read_ground_truth_boxes(path)
        ego = np.full((len(boxes.samples), 3), np.nan)
        ego[boxes.sample, :2] = boxes.center[:, :2] - boxes.ego_offset
        return NuscenesTruth(boxes, BikeRacks.none(), ego, np.zeros(len(ego)))

    def _read_detections(self, path: Path, truth: NuscenesTruth) -> NuscenesBoxes:
        """Read the detections and place them relative to the ego vehicle where their file does not say."""
        found = read_submission(path)
        hint = "; a split of the release is selected by evaluator.split=val" if Path(self.ground_truth).is_dir() else ""
        check_frames(path, truth.boxes.samples, found.samples, what="samples", hint=hint)
        place = {token: index for index, token in enumerate(truth.boxes.samples)}
        ego = truth.ego[np.array([place[token] for token in found.samples], dtype=np.int64)[found.sample], :2]
        # Tables know better than the file itself; a box file's ground truth tells only where the file does not.
        needed = np.isnan(found.ego_offset) | Path(self.ground_truth).is_dir()
        found.ego_offset = np.where(needed, found.center[:, :2] - ego, found.ego_offset)
        unknown = np.isnan(found.ego_offset).any(1)
        if unknown.any():
            token = found.samples[found.sample[int(np.argmax(unknown))]]
            raise ValueError(
                f"{path}: sample {token} has no ground truth box to tell where the ego vehicle is; give "
                "ego_translation, or the folder of the tables as evaluator.ground_truth"
            )
        return found


def _around_ego(boxes: NuscenesBoxes, truth: NuscenesTruth, sample: np.ndarray) -> np.ndarray:
    """Return center in the ego vehicle's axes (where known), length, width, height, yaw: (N, 7)."""
    offset = boxes.center - np.nan_to_num(truth.ego[sample])
    turn = truth.ego_yaw[sample]
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin
    return np.column_stack([x, y, offset[:, 2], boxes.size[:, [1, 0, 2]], yaw_of(boxes.rotation) - turn])
