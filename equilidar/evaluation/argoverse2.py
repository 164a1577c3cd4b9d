"""Official figures of the Argoverse 2 detection benchmark: AP, ATE, ASE, AOE, CDS by category.

Wilson et al., "Argoverse 2: Next Generation Datasets for Self-Driving Perception and Forecasting", NeurIPS Datasets
and Benchmarks 2021; agrees with av2 0.3.6, its pitfalls included: a detection is tied to its nearest ground truth and
only the first of each can be true, so a later, nearer one is false all the same; the hundred best detections of a
sweep and category are counted before the map prunes any; a category without ground truth counts in the means with
AP 0, ATE 2, ASE 1, AOE pi, CDS 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from equilidar.evaluation.argoverse2_boxes import COMPETITION_CATEGORIES, Argoverse2Boxes
from equilidar.evaluation.center_matching import group_offsets, nearest_ground_truth
from equilidar.evaluation.quaternions import yaw_of
from equilidar.evaluation.recall_curve import sample_at_recalls
from equilidar.formats.argoverse2_annotations import CATEGORIES

DISTANCES = (0.5, 1.0, 2.0, 4.0)
FIGURES = ("AP", "ATE", "ASE", "AOE", "CDS")
MAX_RANGE = 150.0
MAX_DETECTIONS = 100
_ERROR_DISTANCE = 2.0
_WORST_ERRORS = np.array([_ERROR_DISTANCE, 1.0, math.pi])
_EPSILON = 1e-10


@dataclass(frozen=True, slots=True)
class Inside:
    """Which rows lie on the region of interest of their log's map."""

    ground_truth: Bool[np.ndarray, " G"]
    detections: Bool[np.ndarray, " D"]


@dataclass(frozen=True, slots=True)
class Argoverse2Result:
    """Figures, and which boxes they are of.

    Attributes:
        metrics: {category: [AP, ATE, ASE, AOE, CDS]}, unrounded; AVERAGE_METRICS has the means.
        true_positives: {category: {distance: number}} of the categories that have ground truth or detections.
        ground_truth: which annotations were evaluated.
        detections: which detections were evaluated.
    """

    metrics: dict[str, list[float]]
    true_positives: dict[str, dict[str, int]]
    ground_truth: Bool[np.ndarray, " G"]
    detections: Bool[np.ndarray, " D"]

    def as_figures(self, categories: Sequence[str], max_range: float, pruned: bool) -> dict[str, Any]:
        """Return what is written: the configuration, the table, the numbers of boxes."""
        return {
            "config": {
                "max_range_m": max_range,
                "max_num_dts_per_category": MAX_DETECTIONS,
                "affinity_thresholds_m": list(DISTANCES),
                "tp_threshold_m": _ERROR_DISTANCE,
                "eval_only_roi_instances": pruned,
                "categories": list(categories),
            },
            "columns": list(FIGURES),
            "metrics": self.metrics,
            "n_evaluated": {"detections": int(self.detections.sum()), "annotations": int(self.ground_truth.sum())},
            "true_positives": self.true_positives,
        }


def evaluate_argoverse2(
    ground_truth: Argoverse2Boxes,
    detections: Argoverse2Boxes,
    inside: Inside | None = None,
    *,
    categories: Sequence[str] = COMPETITION_CATEGORIES,
    max_range: float = MAX_RANGE,
) -> Argoverse2Result:
    """Evaluate detections.

    Args:
        ground_truth: annotations.
        detections: detections; sweeps that only one of the two names are evaluated, too.
        inside: boxes on the region of interest; None prunes nothing.
        categories: what is evaluated and averaged over.
        max_range: metres from the egovehicle's origin, in space.

    Raises:
        ValueError: a category is unknown.
    """
    if unknown := [name for name in categories if name not in CATEGORIES]:
        raise ValueError(f"categories names {', '.join(unknown)}, known are {', '.join(CATEGORIES)}")
    sweeps = tuple(sorted({*ground_truth.sweeps, *detections.sweeps}))
    truth, found = ground_truth.renumbered(sweeps), detections.renumbered(sweeps)
    counts = (np.linalg.norm(truth.center, axis=1) < max_range) & (truth.num_points > 0)
    if inside is not None:
        counts &= inside.ground_truth
    evaluated = np.zeros(len(found), np.bool_)
    metrics: dict[str, list[float]] = {}
    true_positives: dict[str, dict[str, int]] = {}
    for label, name in enumerate(CATEGORIES):
        own = np.nonzero(found.label == label)[0]
        own = own[np.lexsort((-found.score[own], found.sweep[own]))]
        own = own[_among_best(found, own, max_range)]
        if inside is not None:
            own = own[inside.detections[own]]
        evaluated[own] = True
        rows = np.nonzero(counts & (truth.label == label))[0]
        if name in categories:
            is_true, errors = _match(truth.select(rows), found.select(own))
            metrics[name] = _figures(is_true, errors, len(rows))
            if len(rows) or len(own):
                true_positives[name] = dict(zip(map(str, DISTANCES), is_true.sum(1).tolist(), strict=True))
    in_order = {name: metrics[name] for name in categories}
    in_order["AVERAGE_METRICS"] = np.mean([metrics[name] for name in categories], axis=0).tolist()
    return Argoverse2Result(in_order, true_positives, counts, evaluated)


def _among_best(found: Argoverse2Boxes, rows: np.ndarray, max_range: float) -> Bool[np.ndarray, " D"]:
    """Tell which rows, sorted by sweep and falling score, are in range and among the first hundred of their sweep."""
    near = np.linalg.norm(found.center[rows], axis=1) < max_range
    so_far = np.cumsum(near)
    sweep = found.sweep[rows]
    first = np.searchsorted(sweep, sweep)
    before = np.where(first > 0, so_far[first - 1], 0)
    return near & (so_far - before <= MAX_DETECTIONS)


def _match(
    truth: Argoverse2Boxes, found: Argoverse2Boxes
) -> tuple[Bool[np.ndarray, "T D"], Float64[np.ndarray, "P 3"]]:
    """Return which detections, of falling score, are true at each distance, and the errors of those true at 2 m."""
    order = np.argsort(truth.sweep, kind="stable")
    truth = truth.select(order)
    offsets = group_offsets(truth.sweep, len(truth.sweeps))
    match, distance = nearest_ground_truth(truth.center, offsets, found.center, found.sweep)
    by_score = np.argsort(-found.score, kind="stable")
    is_true = distance[by_score] < np.array(DISTANCES)[:, None]
    pairs = by_score[is_true[DISTANCES.index(_ERROR_DISTANCE)]]
    return is_true, _errors(truth.select(match[pairs]), found.select(pairs))


def _errors(truth: Argoverse2Boxes, found: Argoverse2Boxes) -> Float64[np.ndarray, "P 3"]:
    shared, whole = np.minimum(truth.size, found.size).prod(1), np.maximum(truth.size, found.size).prod(1)
    turned = np.abs(yaw_of(found.rotation) - yaw_of(truth.rotation))
    folded = np.where(turned >= math.pi, math.pi - np.remainder(turned, math.pi), turned)
    return np.stack([np.linalg.norm(found.center - truth.center, axis=1), 1 - shared / whole, folded], 1)


def _figures(is_true: Bool[np.ndarray, "T D"], errors: Float64[np.ndarray, "P 3"], num_truth: int) -> list[float]:
    if not num_truth:
        return [0.0, *_WORST_ERRORS.tolist(), 0.0]
    precisions = [_average_precision(of_distance, num_truth) for of_distance in is_true]
    mean_precision = float(np.mean(precisions))
    mean_errors = errors.mean(0) if len(errors) else _WORST_ERRORS
    score = mean_precision * float(np.mean(1 - mean_errors / _WORST_ERRORS))
    return [mean_precision, *mean_errors.tolist(), score]


def _average_precision(is_true: Bool[np.ndarray, " D"], num_truth: int) -> float:
    if not len(is_true):
        return 0.0
    num_true = np.cumsum(is_true)
    precision = num_true / (np.arange(1, len(is_true) + 1) + _EPSILON)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(sample_at_recalls(num_true / num_truth, monotone).mean())
