"""The same matching and average precision for sweeps with `ObjectAnnotations`: simulator scenes and own logs.

At difficulty d the objects of difficulty <= d are to be found; harder ones may be found and need not be, and so may
those of a neighbouring class (a van for a car). No detection is too small to count, and no area is unlabelled.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int64

from equilidar.evaluation.kitti import DIFFICULTIES
from equilidar.evaluation.matching import COUNTS, IGNORED, OTHER_CLASS, Curve, ap_r11, ap_r40, precision_curve
from equilidar.evaluation.overlaps import same_sweep_pairs, upright_overlaps
from equilidar.structures.boxes import Boxes3D
from equilidar.structures.labelled import Detections, ObjectAnnotations
from equilidar.structures.offsets import from_lengths

NEIGHBOURS: Mapping[str, Sequence[str]] = {"car": ("van",), "pedestrian": ("person_sitting",)}
"""Classes too alike to count a confusion as an error."""


def evaluate_sweeps(
    annotations: Sequence[ObjectAnnotations],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    overlaps: Mapping[str, Sequence[float]],
    neighbours: Mapping[str, Sequence[str]] = NEIGHBOURS,
) -> dict[str, dict[str, Any]]:
    """Evaluate detections seen from above and in space.

    Args:
        annotations: the objects of each sweep.
        detections: what was found in each sweep (batches of one), in the frame of the annotations.
        class_names: names of the labels of both.
        overlaps: least overlaps by class, as {"Car": (0.5, 0.7)}; classes that are not named are not evaluated.
        neighbours: classes that are ignored where another one is evaluated; case does not matter.

    Returns:
        {class: {"num_ground_truth": [easy, moderate, hard], "3d@0.7": {"AP_R11": [...], "AP_R40": [...],
        "recall": [...]}, "bev@0.7": ...}} with lower-case classes, in percent; recall is that at the lowest score.

    Raises:
        ValueError: the numbers of sweeps differ, a class is unknown or an item is no single sweep.
    """
    if len(annotations) != len(detections):
        raise ValueError(f"annotations of {len(annotations)} sweeps but detections of {len(detections)}")
    indices = {name.lower(): index for index, name in enumerate(class_names)}
    if unknown := [name for name in overlaps if name.lower() not in indices]:
        raise ValueError(f"overlaps names {', '.join(unknown)}, the classes are {', '.join(class_names)}")
    evaluation = _Evaluation(annotations, detections)
    result: dict[str, dict[str, Any]] = {}
    for name, minima in overlaps.items():
        near = {other.lower() for own, others in neighbours.items() if own.lower() == name.lower() for other in others}
        ignored = [indices[other] for other in sorted(near & indices.keys())]
        result[name.lower()] = evaluation.of_class(indices[name.lower()], ignored, minima)
    return result


class _Evaluation:
    def __init__(self, annotations: Sequence[ObjectAnnotations], detections: Sequence[Detections]) -> None:
        truth, truth_offsets, self.truth_label = _flatten([item.boxes for item in annotations], "annotations")
        found, found_offsets, self.found_label = _flatten([item.boxes for item in detections], "detections")
        self.difficulty = _join([item.difficulty.cpu().numpy() for item in annotations], np.int64)
        self.scores = _join([item.scores.detach().cpu().numpy() for item in detections], np.float64)
        if not np.isfinite(self.scores).all() or not np.isfinite(found).all():
            raise ValueError("detections hold numbers that are not finite")
        bev, volume = upright_overlaps(truth, found, same_sweep_pairs(truth_offsets, found_offsets))
        self.overlaps = {"bev": bev, "3d": volume}

    def of_class(self, label: int, neighbours: Sequence[int], minima: Sequence[float]) -> dict[str, Any]:
        found = np.where(self.found_label == label, COUNTS, OTHER_CLASS).astype(np.int8)
        truth = [self._truth_states(label, neighbours, level) for level in range(len(DIFFICULTIES))]
        result: dict[str, Any] = {"num_ground_truth": [int((states == COUNTS).sum()) for states in truth]}
        for minimum in minima:
            for metric, pairs in self.overlaps.items():
                curves = [precision_curve(pairs, float(minimum), states, found, self.scores) for states in truth]
                result[f"{metric}@{minimum}"] = _summary(curves)
        return result

    def _truth_states(self, label: int, neighbours: Sequence[int], level: int) -> Int8[np.ndarray, " G"]:
        states = np.where(self.difficulty <= level, COUNTS, IGNORED)
        states[self.truth_label != label] = OTHER_CLASS
        states[np.isin(self.truth_label, neighbours)] = IGNORED
        return states.astype(np.int8)


def _summary(curves: list[Curve]) -> dict[str, list[float]]:
    return {
        "AP_R11": [ap_r11(curve.precision) for curve in curves],
        "AP_R40": [ap_r40(curve.precision) for curve in curves],
        "recall": [100 * curve.found_fraction for curve in curves],
    }


def _flatten(
    items: Sequence[Boxes3D], name: str
) -> tuple[Float64[np.ndarray, "N 7"], Int64[np.ndarray, " F1"], Int64[np.ndarray, " N"]]:
    for index, boxes in enumerate(items):
        if boxes.batch_size != 1:
            raise ValueError(f"{name}[{index}] holds {boxes.batch_size} sweeps; give one item for each sweep")
    offsets = from_lengths([len(boxes) for boxes in items]).numpy()
    rows = [boxes.as_tensor().detach().double().cpu().numpy() for boxes in items]
    labels = _join([boxes.label.cpu().numpy() for boxes in items], np.int64)
    return np.concatenate([np.zeros((0, 7)), *rows]), offsets, labels


def _join(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
