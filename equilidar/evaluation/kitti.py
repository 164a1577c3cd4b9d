"""Official average precision of the KITTI object benchmark: bbox, aos, bev, 3d; easy, moderate, hard; R11 and R40.

Agrees with the official C++ tool, its pitfalls included: see `matching` for the protocol. In addition
- a detection lower than the limit is ignored whatever its class, and may still take a ground truth;
- Van for Car and Person_sitting for Pedestrian may absorb a detection;
- DontCare areas excuse false positives in the image, not in space;
- a metric is None where no detection of the class could be evaluated by it; aos wherever any alpha is -10.
A threshold at which nothing is found, right or wrong, counts as precision 0 (0 / 0 in the official tool).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8

from equilidar.evaluation.figures import DIFFICULTIES
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, list_frames, read_labels, read_results
from equilidar.evaluation.matching import COUNTS, IGNORED, OTHER_CLASS, Curve, ap_r11, ap_r40, precision_curve
from equilidar.evaluation.overlaps import Overlaps, image_overlaps, same_sweep_pairs, upright_overlaps

CLASSES = ("car", "pedestrian", "cyclist")
METRICS = ("bbox", "aos", "bev", "3d")
IN_SPACE = ("bev", "3d")

MinimumOverlaps = Mapping[str, Mapping[str, float]]
"""Least overlap by class, then by metric (bbox, bev, 3d); aos is measured at that of bbox."""

STRICT: MinimumOverlaps = {
    "car": {"bbox": 0.7, "bev": 0.7, "3d": 0.7},
    "pedestrian": {"bbox": 0.5, "bev": 0.5, "3d": 0.5},
    "cyclist": {"bbox": 0.5, "bev": 0.5, "3d": 0.5},
}
LOOSE: MinimumOverlaps = {
    "car": {"bbox": 0.7, "bev": 0.5, "3d": 0.5},
    "pedestrian": {"bbox": 0.5, "bev": 0.25, "3d": 0.25},
    "cyclist": {"bbox": 0.5, "bev": 0.25, "3d": 0.25},
}

_MIN_HEIGHT = (40, 25, 25)
_MAX_OCCLUSION = (0, 1, 2)
_MAX_TRUNCATION = (0.15, 0.30, 0.50)
_NEIGHBOUR = {"car": "van", "pedestrian": "person_sitting"}
_NO_LOCATION = -1000
_NO_ALPHA = -10


class KittiEvaluation:
    """Compares one set of detections with its ground truth; overlaps are computed once, for any thresholds.

    Args:
        ground_truth: labels, frame by frame.
        detections: results of the same frames in the same order.

    Raises:
        ValueError: the frames differ.
    """

    def __init__(self, ground_truth: KittiTable, detections: KittiTable) -> None:
        if ground_truth.frames != detections.frames:
            raise ValueError(
                f"ground truth of {len(ground_truth.frames)} frames and detections of {len(detections.frames)} frames "
                "must be of the same frames in the same order"
            )
        self.ground_truth, self.detections = ground_truth, detections
        pairs = same_sweep_pairs(ground_truth.offsets, detections.offsets)
        images = ground_truth.image_box, detections.image_box
        bev, volume = upright_overlaps(ground_truth.upright_boxes(), detections.upright_boxes(), pairs)
        self.overlaps: dict[str, Overlaps] = {"bbox": image_overlaps(*images, pairs), "bev": bev, "3d": volume}
        self._similarity = _orientation_similarity(ground_truth, detections, self.overlaps["bbox"])
        is_area = ground_truth.kind[pairs[0]] == KITTI_CLASSES.index("dontcare")
        areas = image_overlaps(*images, (pairs[0][is_area], pairs[1][is_area]), of_detection=True)
        self._unlabelled_part = np.zeros(len(detections))
        np.maximum.at(self._unlabelled_part, areas.detection, areas.value)

    def curve(self, name: str, metric: str, difficulty: int, minimum_overlap: float) -> Curve:
        """Return the curve of one class.

        Args:
            name: car, pedestrian or cyclist.
            metric: bbox (its curve has the orientation similarity, too), bev or 3d.
            difficulty: 0 easy, 1 moderate, 2 hard.
            minimum_overlap: a match overlaps by more than this.
        """
        in_image = metric == "bbox"
        return precision_curve(
            self.overlaps[metric],
            minimum_overlap,
            ground_truth_states(self.ground_truth, name, difficulty),
            detection_states(self.detections, name, difficulty),
            self.detections.score,
            excused=self._unlabelled_part > minimum_overlap if in_image else None,
            similarity=self._similarity if in_image else None,
        )

    def curves(
        self, minimum_overlaps: MinimumOverlaps = STRICT, metrics: Sequence[str] = METRICS
    ) -> dict[str, dict[str, list[Curve] | None]]:
        """Return for each class and metric the curves of the three difficulties; None as the official tool has it."""
        result: dict[str, dict[str, list[Curve] | None]] = {}
        for name, by_metric in minimum_overlaps.items():
            result[name] = dict.fromkeys(metrics)
            for metric in self._evaluable(name):
                if metric not in metrics:
                    continue
                curves = [self.curve(name, metric, level, by_metric[metric]) for level in range(len(DIFFICULTIES))]
                result[name][metric] = curves
                if metric == "bbox" and self._similarity is not None:
                    result[name]["aos"] = curves
        return result

    def average_precision(
        self, minimum_overlaps: MinimumOverlaps = STRICT, metrics: Sequence[str] = METRICS
    ) -> dict[str, dict[str, Any]]:
        """Return {class: {metric: {"AP_R11": [easy, moderate, hard], "AP_R40": [...]}}} in percent, None for a metric
        that the official tool does not evaluate."""
        return {
            name: {metric: _summary(curves, metric) for metric, curves in by_metric.items()}
            for name, by_metric in self.curves(minimum_overlaps, metrics).items()
        }

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the official figures, those at loose overlaps as "bev@0.5", recall with each, and the numbers of
        objects as "num_ground_truth": the form that `evaluate_sweeps` has."""
        counts = self.num_ground_truth()
        result: dict[str, dict[str, Any]] = {name: {"num_ground_truth": counts[name]} for name in CLASSES}
        for minimum_overlaps, metrics in ((STRICT, METRICS), (LOOSE, IN_SPACE)):
            for name, by_metric in self.curves(minimum_overlaps, metrics).items():
                for metric, curves in by_metric.items():
                    key = metric if minimum_overlaps is STRICT else f"{metric}@{minimum_overlaps[name][metric]}"
                    summary = _summary(curves, metric)
                    if curves is not None and summary is not None:
                        summary["recall"] = [100 * curve.found_fraction for curve in curves]
                    result[name][key] = summary
        return result

    def num_ground_truth(self) -> dict[str, list[int]]:
        """Return how many objects count, by class: [easy, moderate, hard]."""
        return {
            name: [int((ground_truth_states(self.ground_truth, name, level) == COUNTS).sum()) for level in range(3)]
            for name in CLASSES
        }

    def _evaluable(self, name: str) -> list[str]:
        of_class = self.detections.kind == KITTI_CLASSES.index(name)
        x, y, _ = self.detections.location[of_class].T
        evaluable = {
            "bbox": (self.detections.image_box[of_class, 0] >= 0).any(),
            "bev": (x != _NO_LOCATION).any(),
            "3d": (y != _NO_LOCATION).any(),
        }
        return [metric for metric, is_evaluable in evaluable.items() if is_evaluable]


def ground_truth_states(objects: KittiTable, name: str, difficulty: int) -> Int8[np.ndarray, " N"]:
    """Tell which ground truths count for a class at a difficulty and which are ignored."""
    of_class = objects.kind == KITTI_CLASSES.index(name)
    height = objects.image_box[:, 3] - objects.image_box[:, 1]
    too_hard = (
        (objects.occluded > _MAX_OCCLUSION[difficulty])
        | (objects.truncated > _MAX_TRUNCATION[difficulty])
        | (height <= _MIN_HEIGHT[difficulty])
    )
    states = np.where(of_class, np.where(too_hard, IGNORED, COUNTS), OTHER_CLASS)
    if name in _NEIGHBOUR:
        states[objects.kind == KITTI_CLASSES.index(_NEIGHBOUR[name])] = IGNORED
    return states.astype(np.int8)


def detection_states(objects: KittiTable, name: str, difficulty: int) -> Int8[np.ndarray, " N"]:
    """Tell which detections count for a class at a difficulty; those that are too low are ignored, of any class."""
    # The official tool keeps whole pixels only.
    height = np.trunc(np.abs(objects.image_box[:, 3] - objects.image_box[:, 1]))
    of_class = objects.kind == KITTI_CLASSES.index(name)
    states = np.where(of_class, COUNTS, OTHER_CLASS)
    return np.where(height < _MIN_HEIGHT[difficulty], IGNORED, states).astype(np.int8)


def _orientation_similarity(
    ground_truth: KittiTable, detections: KittiTable, pairs: Overlaps
) -> Float64[np.ndarray, " P"] | None:
    if (detections.alpha == _NO_ALPHA).any():
        return None
    angle = ground_truth.alpha[pairs.ground_truth] - detections.alpha[pairs.detection]
    return (1 + np.cos(angle)) / 2


def _summary(curves: list[Curve] | None, metric: str) -> dict[str, list[float]] | None:
    if curves is None:
        return None
    sampled = [curve.similarity if metric == "aos" else curve.precision for curve in curves]
    return {
        "AP_R11": [ap_r11(values) for values in sampled if values is not None],
        "AP_R40": [ap_r40(values) for values in sampled if values is not None],
    }


def evaluate_folders(
    ground_truth: str | Path, detections: str | Path, frames: str | Path | None = None, loose: bool = False
) -> dict[str, dict[str, Any]]:
    """Evaluate a folder of result files against a folder of label files, as the official tool would.

    Args:
        ground_truth: folder of NNNNNN.txt with 15 columns.
        detections: folder of NNNNNN.txt with 16 columns, one file for each frame; an empty one says: nothing found.
        frames: text file with one frame name a line; None evaluates all frames of the ground truth.
        loose: also evaluate bev and 3d at the overlaps 0.5 (car) and 0.25, as metrics like "3d@0.5".

    Returns:
        {class: {metric: {"AP_R11": [easy, moderate, hard], "AP_R40": [...]} or None}}.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the folders do not hold the same frames, or a row is not in the format.
    """
    names = frames_of_both(Path(ground_truth), Path(detections), None if frames is None else Path(frames))
    evaluation = KittiEvaluation(read_labels(Path(ground_truth), names), read_results(Path(detections), names))
    result = evaluation.average_precision()
    if loose:
        for name, by_metric in evaluation.average_precision(LOOSE, IN_SPACE).items():
            result[name] |= {f"{metric}@{LOOSE[name][metric]}": value for metric, value in by_metric.items()}
    return result


def frames_of_both(ground_truth: Path, detections: Path, split: Path | None) -> list[str]:
    """Return the names of the frames that are evaluated.

    Args:
        ground_truth: folder of label files.
        detections: folder of result files.
        split: text file of frame names; None takes all frames of the ground truth.

    Raises:
        FileNotFoundError: a folder or the split file is missing.
        ValueError: one of the folders lacks frames, or the detections have frames too many.
    """
    labelled, found = list_frames(ground_truth), list_frames(detections)
    wanted = labelled if split is None else read_split(split)
    if absent := sorted(set(wanted) - set(labelled)):
        raise ValueError(f"{split} names {_some(absent)} without ground truth in {ground_truth}")
    if absent := sorted(set(found) - set(wanted)):
        where = f"ground truth in {ground_truth}" if split is None else f"being named in {split}"
        raise ValueError(f"{detections} holds detections for {_some(absent)} without {where}")
    if absent := sorted(set(wanted) - set(found)):
        raise ValueError(
            f"{detections} holds no file for {_some(absent)} of the ground truth; write an empty file where nothing "
            "was found, or name the evaluated frames in a file given as frames"
        )
    return wanted


def read_split(path: Path) -> list[str]:
    """Return the frame names of a text file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names none, or one twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected one frame name a line")
    names = path.read_text().split()
    if not names:
        raise ValueError(f"{path} names no frame")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{path} names frame {twice} twice")
    return names


def _some(frames: list[str]) -> str:
    shown = ", ".join(frames[:3]) + (", ..." if len(frames) > 3 else "")
    return f"{len(frames)} frame{'s' if len(frames) > 1 else ''} ({shown})"
