"""Official figures of the Waymo 3D detection benchmark: AP and APH, levels 1 and 2, by type, range and speed.

Sun et al., "Scalability in Perception for Autonomous Driving: Waymo Open Dataset", CVPR 2020, section 4; agrees with
the detection metrics of waymo-open-dataset 1.6.7 in the official tool's configuration, pitfalls included:
- detections are matched anew at each of 101 score cutoffs;
- at level 1 a match with a ground truth of level 2 is a true positive, and only unmatched ones are left out;
- range sorts both sides by their own distance, so a pair across a border does not match;
- speed sorts what is counted, after the matching: a match with a ground truth of another speed is neither true nor
  false, and an unmatched detection is no false positive of a speed if the ground truth that it overlaps most (by 0.01
  at least) has another speed;
- a type without ground truth has AP 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.evaluation.overlaps import Overlaps, same_sweep_pairs, upright_overlaps
from equilidar.evaluation.waymo_boxes import LEVELS, TYPES, WaymoBoxes
from equilidar.evaluation.waymo_matching import count_from_levels, count_matches, reached_levels

CUTOFFS: Float64[np.ndarray, " 101"] = np.arange(101) * 0.01
MINIMUM_OVERLAP = {"VEHICLE": 0.7, "PEDESTRIAN": 0.5, "SIGN": 0.5, "CYCLIST": 0.5}
RANGES = {"[0, 30)": (0.0, 30.0), "[30, 50)": (30.0, 50.0), "[50, +inf)": (50.0, np.inf)}
SPEEDS = {
    "STATIONARY": (0.0, 0.2),
    "SLOW": (0.2, 1.0),
    "MEDIUM": (1.0, 3.0),
    "FAST": (3.0, 10.0),
    "VERY_FAST": (10.0, np.inf),
}
_TOUCHES = 0.01
_MAX_RECALL_STEP = 0.05
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class WaymoCurve:
    """One breakdown at one level, by cutoff.

    Attributes:
        precision: (101,) 1 where nothing is found.
        heading_precision: (101,) the same with each true positive weighted by the accuracy of its heading.
        recall: (101,).
        counts: (101, 3) true positives, false positives, false negatives.
    """

    precision: Float64[np.ndarray, " C"]
    heading_precision: Float64[np.ndarray, " C"]
    recall: Float64[np.ndarray, " C"]
    counts: Float64[np.ndarray, "C 3"]


def prepare_ground_truth(boxes: WaymoBoxes) -> WaymoBoxes:
    """Return the ground truth that counts, all with a difficulty.

    Objects without a LiDAR point are dropped; where no difficulty was labelled it is 2 up to five points, else 1.

    Raises:
        ValueError: there are objects, but none has a point: the file was written without point counts.
    """
    kept = boxes.select(boxes.num_points > 0)
    if len(boxes) and not len(kept):
        raise ValueError(
            f"none of the {len(boxes)} ground truths has num_lidar_points_in_box above 0: all would be "
            "dropped; write the counts (data of version 1.0 has none)"
        )
    kept.difficulty = np.where(kept.difficulty > 0, kept.difficulty, np.where(kept.num_points <= 5, 2, 1))
    return kept


def waymo_curves(ground_truth: WaymoBoxes, detections: WaymoBoxes) -> dict[str, WaymoCurve]:
    """Return the curves of all breakdowns, under the official names, in the official order.

    Args:
        ground_truth: as `prepare_ground_truth` returns it.
        detections: detections; frames that only one of the two names are evaluated, too.
    """
    frames = tuple(sorted({*ground_truth.frames, *detections.frames}))
    truth, found = ground_truth.renumbered(frames), detections.renumbered(frames)
    curves: dict[str, WaymoCurve] = {}
    for number, name in enumerate(TYPES, 1):
        own = _by_frame(truth.select(truth.kind == number)), _by_frame(found.select(found.kind == number))
        curves |= _curves_of_type(*own, name)
    order = [f"{kind}_TYPE_" for kind in ("OBJECT_TYPE", "RANGE", "VELOCITY")]
    return {name: curves[name] for prefix in order for name in curves if name.startswith(prefix)}


def evaluate_waymo(curves: dict[str, WaymoCurve]) -> dict[str, dict[str, float]]:
    """Return {"AP": {breakdown: value}, "APH": {...}}, 0 to 1."""
    return {
        "AP": {name: average_precision(curve.precision, curve.recall) for name, curve in curves.items()},
        "APH": {name: average_precision(curve.heading_precision, curve.recall) for name, curve in curves.items()},
    }


def curve_arrays(curves: dict[str, WaymoCurve]) -> dict[str, Any]:
    """Return the curves of the object types as arrays.

    Returns:
        names: (8,); pr: (8, 101, 5) precision, recall, true and false positives, false negatives; pr_heading:
        (8, 101, 2) precision weighted by heading, recall.
    """
    chosen = {name: curve for name, curve in curves.items() if name.startswith("OBJECT_TYPE")}
    plain = [np.column_stack([curve.precision, curve.recall, curve.counts]) for curve in chosen.values()]
    weighted = [np.column_stack([curve.heading_precision, curve.recall]) for curve in chosen.values()]
    return {"names": np.array(list(chosen)), "pr": np.stack(plain), "pr_heading": np.stack(weighted)}


def average_precision(precision: Float64[np.ndarray, " C"], recall: Float64[np.ndarray, " C"]) -> float:
    """Integrate precision over recall.

    The best precision of each recall, made monotone from the highest recall down. Where neighbours are more than 0.05
    apart, precision stays at the higher recall's value in steps of 0.05, and only the last piece is a slope.
    """
    order = np.lexsort((-precision, -recall))
    recall, precision = recall[order], precision[order]
    is_first = np.concatenate([[True], np.diff(recall) != 0])
    recall, precision = recall[is_first], np.maximum.accumulate(precision[is_first])
    if recall[-1] == 0 and len(recall) > 1:
        precision[-1] = precision[-2]
    area = 0.0
    for high, low, ahead, behind in zip(recall[:-1], recall[1:], precision[:-1], precision[1:], strict=True):
        # A gap of exactly one step is none, whatever rounding says.
        while high - low > _MAX_RECALL_STEP + 1e-6:
            area += ahead * _MAX_RECALL_STEP
            high -= _MAX_RECALL_STEP
        area += (high - low) * (ahead + behind) / 2
    if recall[-1] > 0:
        area += recall[-1] * precision[-1]
    return float(area)


def _by_frame(boxes: WaymoBoxes) -> WaymoBoxes:
    return boxes.select(np.argsort(boxes.frame, kind="stable"))


def _curves_of_type(truth: WaymoBoxes, found: WaymoBoxes, name: str) -> dict[str, WaymoCurve]:
    pairs = _overlaps(truth, found)
    part = _Part(truth, found, pairs.select(pairs.value >= MINIMUM_OVERLAP[name]))
    curves = part.curves(f"OBJECT_TYPE_TYPE_{name}", np.ones(len(truth), np.bool_))
    truth_range, found_range = (np.linalg.norm(boxes.box[:, :3], axis=1) for boxes in (truth, found))
    for label, (low, high) in RANGES.items():
        near_truth, near_found = ((low <= value) & (value < high) for value in (truth_range, found_range))
        curves |= part.curves(f"RANGE_TYPE_{name}_{label}", near_truth, candidates=(near_truth, near_found))
    most = _widest(pairs, len(found))
    for label, (low, high) in SPEEDS.items():
        of_speed = (low <= truth.speed) & (truth.speed < high)
        may_be_false = np.where(most >= 0, of_speed[most] if len(of_speed) else False, True)
        curves |= part.curves(f"VELOCITY_TYPE_{name}_{label}", of_speed, may_be_false=may_be_false)
    return curves


def _overlaps(truth: WaymoBoxes, found: WaymoBoxes) -> Overlaps:
    """Return the pairs of the same frame that overlap by 0.01 at least, a block of frames at a time."""
    parts = [
        upright_overlaps(truth.box[truth_rows], found.box[found_rows], pairs)[1].rebased(
            truth_rows.start, found_rows.start
        )
        for truth_rows, found_rows, pairs in _blocks(truth, found)
    ]
    kept = [part.select(part.value >= _TOUCHES) for part in parts]
    return Overlaps.concatenate(kept)


def _blocks(truth: WaymoBoxes, found: WaymoBoxes) -> Iterator[tuple[slice, slice, tuple[np.ndarray, np.ndarray]]]:
    edges = np.arange(len(truth.frames) + 1)
    truth_offsets, found_offsets = np.searchsorted(truth.frame, edges), np.searchsorted(found.frame, edges)
    num_pairs = np.concatenate([[0], np.cumsum(np.diff(truth_offsets) * np.diff(found_offsets))])
    start = 0
    while start < len(edges) - 1:
        end = max(start + 1, int(np.searchsorted(num_pairs, num_pairs[start] + _PAIRS_AT_ONCE, side="right")) - 1)
        truth_rows = slice(int(truth_offsets[start]), int(truth_offsets[end]))
        found_rows = slice(int(found_offsets[start]), int(found_offsets[end]))
        offsets = truth_offsets[start : end + 1], found_offsets[start : end + 1]
        yield truth_rows, found_rows, same_sweep_pairs(offsets[0] - offsets[0][0], offsets[1] - offsets[1][0])
        start = end


def _widest(pairs: Overlaps, num_found: int) -> Int64[np.ndarray, " D"]:
    """Return the ground truth that each detection overlaps most, -1 for none."""
    most = np.full(num_found, -1)
    rising = np.argsort(pairs.value, kind="stable")
    most[pairs.detection[rising]] = pairs.ground_truth[rising]
    return most


class _Part:
    """One type: its boxes and the pairs that may match."""

    def __init__(self, truth: WaymoBoxes, found: WaymoBoxes, pairs: Overlaps) -> None:
        self.truth, self.found, self.pairs = truth, found, pairs
        self.level = reached_levels(found.score, CUTOFFS)
        turned = found.box[pairs.detection, 6] - truth.box[pairs.ground_truth, 6]
        wrapped = np.remainder(turned + np.pi, 2 * np.pi) - np.pi
        self.heading = 1 - np.abs(wrapped) / np.pi

    def curves(
        self,
        name: str,
        truth: Bool[np.ndarray, " G"],
        *,
        candidates: tuple[Bool[np.ndarray, " G"], Bool[np.ndarray, " D"]] | None = None,
        may_be_false: Bool[np.ndarray, " D"] | None = None,
    ) -> dict[str, WaymoCurve]:
        """Return the curves of both levels.

        Args:
            name: name of the breakdown.
            truth: the ground truth that is counted.
            candidates: what takes part in the matching; None: everything.
            may_be_false: detections that are false positives if they match nothing; None: all that take part.
        """
        near_truth, near_found = candidates or (np.ones(len(truth), np.bool_), np.ones(len(self.found), np.bool_))
        counted = near_found & ~self.found.in_no_label_zone
        if may_be_false is not None:
            counted &= may_be_false
        is_hard = self.truth.difficulty == LEVELS[1]
        chosen = near_truth[self.pairs.ground_truth] & near_found[self.pairs.detection]
        pairs = self.pairs.select(chosen)
        own = truth[pairs.ground_truth]
        values = [own, own * self.heading[chosen], own & is_hard[pairs.ground_truth], counted[pairs.detection]]
        sums = count_matches(pairs, self.level, np.stack(values, 1).astype(np.float64), len(truth), len(CUTOFFS))
        true, heading, true_hard, matched = sums.T
        false = count_from_levels(self.level, counted, len(CUTOFFS)) - matched
        missed = {1: (truth & ~is_hard).sum() - (true - true_hard), 2: truth.sum() - true}
        return {f"{name}_LEVEL_{level}": _curve(true, false, missed[level], heading) for level in LEVELS}


def _curve(true: np.ndarray, false: np.ndarray, missed: np.ndarray, heading: np.ndarray) -> WaymoCurve:
    found = np.maximum(true + false, 1)
    return WaymoCurve(
        np.where(true > 0, true / found, 1.0),
        np.where(true > 0, heading / found, 1.0),
        true / np.maximum(true + missed, 1),
        np.stack([true, false, missed], 1),
    )
