"""Official figures of the nuScenes detection benchmark: mean AP, five true positive errors, NDS.

Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, section 3; agrees with version 1.2.0
of the official development kit, its pitfalls included:
- of equal scores the LATER detection goes first;
- precision is sampled at 101 recalls without being made monotone; recalls up to 0.1 and precision below 0.1 are cut;
- an error is the cumulative mean over true positives, sampled over confidence and averaged from recall 0.11 to the
  highest one that is reached; that is the last with a confidence above 0, so a score of exactly 0 counts as unreached;
- a class without ground truth has AP 0 and errors 1 and counts in the means.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.evaluation.center_matching import group_offsets, match_nearest_free
from equilidar.evaluation.nuscenes_boxes import CLASSES, NO_ATTRIBUTE, BikeRacks, NuscenesBoxes, filter_boxes
from equilidar.evaluation.quaternions import yaw_of
from equilidar.evaluation.recall_curve import RECALLS, sample_at_recalls

DISTANCES = (0.5, 1.0, 2.0, 4.0)
ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
_ERROR_DISTANCE = 2.0
_MIN_RECALL = 0.1
_MIN_PRECISION = 0.1
_MEAN_AP_WEIGHT = 5
_UNDEFINED = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}


@dataclass(frozen=True, slots=True)
class _Curve:
    """One class at one distance, sampled at RECALLS: precision, confidence, true positive errors by name."""

    precision: Float64[np.ndarray, " 101"]
    confidence: Float64[np.ndarray, " 101"]
    errors: dict[str, Float64[np.ndarray, " 101"]]


def evaluate_nuscenes(
    ground_truth: NuscenesBoxes, detections: NuscenesBoxes, racks: BikeRacks | None = None
) -> dict[str, Any]:
    """Evaluate detections of the same samples.

    Args:
        ground_truth: boxes of all samples, unfiltered.
        detections: boxes of the same samples; its order of samples, which may be another, breaks ties.
        racks: bicycle racks of the ground truth's samples.

    Returns:
        the development kit's summary (label_aps, mean_dist_aps, mean_ap, label_tp_errors, tp_errors, tp_scores,
        nd_score) and n_raw, n_after_filter, precision_at_2m (rounded to 9 digits); NaN where an error is not defined.

    Raises:
        ValueError: the samples differ.
    """
    if set(ground_truth.samples) != set(detections.samples):
        raise ValueError("ground truth and detections must be of the same samples")
    racks = racks or BikeRacks.none()
    truth = filter_boxes(ground_truth, racks)
    found = filter_boxes(detections, _renumber(racks, ground_truth.samples, detections.samples))
    curves = {name: _curves_of_class(truth, found, index) for index, name in enumerate(CLASSES)}
    middle = DISTANCES.index(_ERROR_DISTANCE)
    label_aps = {
        name: {str(distance): _average_precision(curve) for distance, curve in zip(DISTANCES, of_class, strict=True)}
        for name, of_class in curves.items()
    }
    label_errors = {
        name: {error: _mean_error(of_class[middle], name, error) for error in ERRORS}
        for name, of_class in curves.items()
    }
    summary = _summarize(label_aps, label_errors)
    return summary | {
        "n_raw": {"gt": len(ground_truth), "pred": len(detections)},
        "n_after_filter": {"gt": len(truth), "pred": len(found)},
        "precision_at_2m": {name: of_class[middle].precision.round(9).tolist() for name, of_class in curves.items()},
    }


def _renumber(racks: BikeRacks, old: tuple[str, ...], new: tuple[str, ...]) -> BikeRacks:
    place = {token: index for index, token in enumerate(new)}
    sample = np.array([place[old[index]] for index in racks.sample], dtype=np.int64)
    return BikeRacks(sample, racks.center, racks.size, racks.rotation)


def _summarize(label_aps: dict[str, dict[str, float]], label_errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    mean_dist_aps = {name: float(np.mean(list(aps.values()))) for name, aps in label_aps.items()}
    mean_ap = float(np.mean(list(mean_dist_aps.values())))
    errors = {error: float(np.nanmean([of_class[error] for of_class in label_errors.values()])) for error in ERRORS}
    scores = {error: max(0.0, 1.0 - value) for error, value in errors.items()}
    return {
        "label_aps": label_aps,
        "mean_dist_aps": mean_dist_aps,
        "mean_ap": mean_ap,
        "label_tp_errors": label_errors,
        "tp_errors": errors,
        "tp_scores": scores,
        "nd_score": (_MEAN_AP_WEIGHT * mean_ap + sum(scores.values())) / (_MEAN_AP_WEIGHT + len(scores)),
    }


def _curves_of_class(truth: NuscenesBoxes, found: NuscenesBoxes, label: int) -> list[_Curve]:
    place = {token: index for index, token in enumerate(found.samples)}
    truth = truth.select(truth.label == label)
    sample = np.array([place[token] for token in truth.samples], dtype=np.int64)[truth.sample]
    order = np.argsort(sample, kind="stable")
    truth, sample = truth.select(order), sample[order]
    found = found.select(found.label == label)
    found = found.select(np.argsort(found.score, kind="stable")[::-1])
    matches = match_nearest_free(
        truth.center[:, :2],
        group_offsets(sample, len(found.samples)),
        found.center[:, :2],
        found.sample,
        np.array(DISTANCES),
    )
    period = math.pi if CLASSES[label] == "barrier" else 2 * math.pi
    return [_curve(truth, found, match, period) for match in matches]


def _curve(truth: NuscenesBoxes, found: NuscenesBoxes, match: Int64[np.ndarray, " D"], period: float) -> _Curve:
    is_true = match >= 0
    if not is_true.any():
        return _Curve(np.zeros(len(RECALLS)), np.zeros(len(RECALLS)), {name: np.ones(len(RECALLS)) for name in ERRORS})
    num_true = np.cumsum(is_true).astype(np.float64)
    recall = num_true / len(truth)
    precision = sample_at_recalls(recall, num_true / np.arange(1, len(found) + 1))
    confidence = sample_at_recalls(recall, found.score)
    of_pair = _errors(truth.select(match[is_true]), found.select(is_true), period)
    rising, own = confidence[::-1], found.score[is_true][::-1]
    errors = {name: np.interp(rising, own, _running_mean(error)[::-1])[::-1] for name, error in of_pair.items()}
    return _Curve(precision, confidence, errors)


def _errors(truth: NuscenesBoxes, found: NuscenesBoxes, period: float) -> dict[str, Float64[np.ndarray, " P"]]:
    shared = np.minimum(truth.size, found.size).prod(1)
    turned = np.remainder(yaw_of(truth.rotation) - yaw_of(found.rotation) + period / 2, period) - period / 2
    known = truth.attribute != NO_ATTRIBUTE
    return {
        "trans_err": np.linalg.norm(found.center[:, :2] - truth.center[:, :2], axis=1),
        "scale_err": 1 - shared / (truth.size.prod(1) + found.size.prod(1) - shared),
        "orient_err": np.abs(turned),
        "vel_err": np.linalg.norm(found.velocity - truth.velocity, axis=1),
        "attr_err": np.where(known, truth.attribute != found.attribute, np.nan).astype(np.float64),
    }


def _running_mean(values: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
    """Return the mean of the values so far, NaN left out: 0 before the first number, 1 where there is none at all."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    return np.nancumsum(values) / np.maximum(np.cumsum(known), 1)


def _average_precision(curve: _Curve) -> float:
    kept = curve.precision[round(100 * _MIN_RECALL) + 1 :]
    return float(np.mean(np.maximum(kept - _MIN_PRECISION, 0))) / (1 - _MIN_PRECISION)


def _mean_error(curve: _Curve, name: str, error: str) -> float:
    if error in _UNDEFINED.get(name, ()):
        return math.nan
    first = round(100 * _MIN_RECALL) + 1
    reached = np.nonzero(curve.confidence)[0]
    last = int(reached[-1]) if len(reached) else 0
    return float(np.mean(curve.errors[error][first : last + 1])) if last >= first else 1.0
