"""Official figures of Argoverse 2 scene flow: errors by foreground and motion and distance, three-way and normalised.

The totals agree with av2 0.3.6 (`av2.evaluation.scene_flow`): only valid points count; an error is accurate if it is
below 0.05 m (strict) or 0.1 m (relaxed), or that part of the true flow; the angle is between (flow, 0.1) in space and
time; examples are weighted by their points; moving background is left out of the totals.

The bucket-normalised error is that of Khatri et al., "I Can't Believe It's Not Scene Flow!", ECCV 2024, with the
settings of the authors' tool (kylevedder/BucketedSceneFlowEval, `eval/bucketed_epe.py` at a86047d): points fall into 51
buckets of true motion per class group (50 of 0.04 m up to 2 m between sweeps, and beyond); the slowest bucket's mean
error is the static one, and the mean over the others of mean error / mean motion is the dynamic one. Motion is that
against the world: where flows hold the ego motion, as av2's annotations do, its part must be known.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.formats.argoverse2_annotations import CATEGORIES

CATEGORY_TO_INDEX = {"NONE": 0} | {name: index for index, name in enumerate(CATEGORIES, 1)}
FOREGROUND = list(range(1, len(CATEGORY_TO_INDEX)))
FLOW_METRICS = ("ACCURACY_RELAX", "ACCURACY_STRICT", "ANGLE_ERROR", "EPE")
SEGMENTATION_METRICS = ("TP", "TN", "FP", "FN")
GROUPS = {
    "BACKGROUND": ("NONE",),
    "CAR": ("REGULAR_VEHICLE",),
    "OTHER_VEHICLES": (
        "ARTICULATED_BUS",
        "BOX_TRUCK",
        "BUS",
        "LARGE_VEHICLE",
        "RAILED_VEHICLE",
        "SCHOOL_BUS",
        "TRUCK",
        "TRUCK_CAB",
        "VEHICULAR_TRAILER",
    ),
    "PEDESTRIAN": ("OFFICIAL_SIGNALER", "PEDESTRIAN", "STROLLER", "WHEELCHAIR"),
    "WHEELED_VRU": ("BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"),
}
"""Groups of classes of the normalised error; signs, cones, animals and towed signals belong to none."""

BUCKET_EDGES: Float64[np.ndarray, " 52"] = np.append(np.linspace(0, 2, 51), np.inf)
"""Edges of the buckets of motion, metres between two sweeps."""

RESTING = 0.06
"""Metres: what does not move against the world (below 0.05 m for av2) flows by less, half-precision rounding included,
unless the flow holds the ego motion."""

_MOST_FLOWING = 0.01  # of the points at rest: more are no mistakes of labelling

_SWEEP_GAP = 0.1
_EPSILON = 1e-10
_PARTS = [
    (group, motion, distance)
    for group in ("Background", "Foreground")
    for motion in ("Dynamic", "Static")
    for distance in ("Close", "Far")
]


@dataclass(slots=True)
class FlowExample:
    """Points of one sweep with their true and estimated motion to the next one, metres.

    Attributes:
        name: number or relative path.
        category: (N,) index as in CATEGORY_TO_INDEX, 0 for background.
        is_close: (N,) |x| and |y| up to 35 m.
        is_dynamic: (N,) moves against the world.
        is_valid: (N,) the true flow is known.
        flow: (N, 3) true flow.
        rest: (N, 3) the flow that the point would have at rest; 0 where flows hold no ego motion, or it is not known.
        estimate: (N, 3) estimated flow; NaN where there is none.
        estimated_dynamic: (N,) said to move.
    """

    name: str
    category: Int64[np.ndarray, " N"]
    is_close: Bool[np.ndarray, " N"]
    is_dynamic: Bool[np.ndarray, " N"]
    is_valid: Bool[np.ndarray, " N"]
    flow: Float64[np.ndarray, "N 3"]
    rest: Float64[np.ndarray, "N 3"]
    estimate: Float64[np.ndarray, "N 3"]
    estimated_dynamic: Bool[np.ndarray, " N"]

    def motion(self) -> Float64[np.ndarray, " N"]:
        """Return how far each point moves against the world, metres between the sweeps."""
        return np.linalg.norm(self.flow - self.rest, axis=1)

    def flowing_at_rest(self) -> Int64[np.ndarray, " 2"]:
        """Return how many points at rest flow all the same, and how many are at rest."""
        at_rest = self.is_valid & ~self.is_dynamic
        return np.array([(self.motion()[at_rest] > RESTING).sum(), at_rest.sum()], dtype=np.int64)


def evaluate_scene_flow(examples: Iterable[FlowExample]) -> dict[str, Any]:
    """Evaluate examples, one at a time.

    Returns:
        {"totals": {name: value}, "per_example": [row of each example and part], "category_to_index": {...},
        "foreground_indices": [...], "bucketed": {"close": ..., "all": ...}}; NaN where no point is. "bucketed" is None
        where points at rest flow: the ego motion is in the flows and its part (`rest`) was not given.

    Raises:
        ValueError: there is no example.
    """
    sums = SceneFlowSums()
    for example in examples:
        sums.add(example)
    return sums.figures()


class SceneFlowSums:
    """`evaluate_scene_flow` for examples that come one by one: `add` each, then ask for `figures`."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._buckets = {"close": _Buckets(), "all": _Buckets()}
        self._flowing = np.zeros(2, np.int64)

    def add(self, example: FlowExample) -> None:
        """Add an example."""
        self._rows += _rows(example)
        self._flowing += example.flowing_at_rest()
        error = np.linalg.norm(example.estimate - example.flow, axis=1)
        self._buckets["close"].add(example, error, example.is_valid & example.is_close)
        self._buckets["all"].add(example, error, example.is_valid)

    def figures(self) -> dict[str, Any]:
        """Return what `evaluate_scene_flow` returns for the examples so far; raises as it does."""
        if not self._rows:
            raise ValueError("no example to evaluate")
        bucketed = {name: part.figures() for name, part in self._buckets.items()}
        return {
            "totals": _totals(self._rows),
            "per_example": list(self._rows),
            "category_to_index": dict(CATEGORY_TO_INDEX),
            "foreground_indices": list(FOREGROUND),
            "bucketed": None if holds_ego_motion(self._flowing) else bucketed,
        }


def holds_ego_motion(flowing_at_rest: Int64[np.ndarray, " 2"]) -> bool:
    """Tell from sums of `FlowExample.flowing_at_rest` whether flows hold an ego motion that is not known."""
    return bool(flowing_at_rest[0] > _MOST_FLOWING * flowing_at_rest[1])


def _rows(example: FlowExample) -> list[dict[str, Any]]:
    rows = []
    foreground = example.category > 0
    for group, motion, distance in _PARTS:
        mask = example.is_valid & (foreground == (group == "Foreground"))
        mask &= (example.is_dynamic == (motion == "Dynamic")) & (example.is_close == (distance == "Close"))
        count = int(mask.sum())
        row = {"Example": example.name, "Class": group, "Motion": motion, "Distance": distance, "Count": count}
        values = _flow_metrics(example.estimate[mask], example.flow[mask])
        row |= {name: float(value.mean()) if count else np.nan for name, value in values.items()}
        row |= _segmentation(example.estimated_dynamic[mask], example.is_dynamic[mask])
        rows.append(row)
    return rows


def _flow_metrics(estimate: Float64[np.ndarray, "N 3"], flow: Float64[np.ndarray, "N 3"]) -> dict[str, np.ndarray]:
    error = np.linalg.norm(estimate - flow, axis=1)
    # Near a perfect estimate arccos turns the last bit of this sum into 1e-8: it is added up as the official tool does.
    cosine = np.einsum("bd,bd->b", _direction(estimate), _direction(flow))
    relative = error / (np.linalg.norm(flow, axis=1) + _EPSILON)
    return {
        "ACCURACY_RELAX": (error < 0.1) | (relative < 0.1),
        "ACCURACY_STRICT": (error < 0.05) | (relative < 0.05),
        "ANGLE_ERROR": np.arccos(np.clip(cosine, -1, 1)),
        "EPE": error,
    }


def _direction(flow: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 4"]:
    extended = np.column_stack([flow, np.full(len(flow), _SWEEP_GAP)])
    return extended / np.linalg.norm(extended, axis=1, keepdims=True)


def _segmentation(said: Bool[np.ndarray, " N"], true: Bool[np.ndarray, " N"]) -> dict[str, float]:
    pairs = {"TP": said & true, "TN": ~said & ~true, "FP": said & ~true, "FN": ~said & true}
    return {name: float(pairs[name].sum()) for name in SEGMENTATION_METRICS}


def _totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    kept = [part for part in _PARTS if part[:2] != ("Background", "Dynamic")]
    without_distance = list(dict.fromkeys(part[:2] for part in kept))
    for parts in (kept, without_distance):
        for metric in FLOW_METRICS:
            title = metric if metric == "EPE" else metric.title().replace("_", " ")
            for part in parts:
                own = [row for row in rows if (row["Class"], row["Motion"], row["Distance"])[: len(part)] == part]
                totals["/".join((title, *part))] = _weighted(own, metric)
    counts = {name: sum(row[name] for row in rows) for name in SEGMENTATION_METRICS}
    union = counts["TP"] + counts["FP"] + counts["FN"]
    totals["Dynamic IoU"] = counts["TP"] / union if union else np.nan
    three = ("EPE/Foreground/Dynamic", "EPE/Foreground/Static", "EPE/Background/Static")
    totals["EPE 3-Way Average"] = sum(totals[name] for name in three) / 3
    return totals


def _weighted(rows: list[dict[str, Any]], metric: str) -> float:
    total = sum(row["Count"] for row in rows)
    return sum(row[metric] * row["Count"] for row in rows if row["Count"]) / total if total else np.nan


class _Buckets:
    """Sums of errors and motions by group of classes and bucket of motion."""

    def __init__(self) -> None:
        shape = (len(GROUPS), len(BUCKET_EDGES) - 1)
        self._error, self._motion, self._count = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._group = np.full(len(CATEGORY_TO_INDEX), -1)
        for number, names in enumerate(GROUPS.values()):
            self._group[[CATEGORY_TO_INDEX[name] for name in names]] = number

    def add(self, example: FlowExample, error: Float64[np.ndarray, " N"], mask: Bool[np.ndarray, " N"]) -> None:
        group = self._group[example.category]
        mask = mask & (group >= 0)
        motion = example.motion()[mask]
        bucket = np.searchsorted(BUCKET_EDGES, motion, side="right") - 1
        cell = np.ravel_multi_index((group[mask], bucket), self._count.shape)
        for total, values in ((self._error, error[mask]), (self._motion, motion), (self._count, None)):
            total += np.bincount(cell, values, minlength=total.size).reshape(total.shape)

    def figures(self) -> dict[str, dict[str, float]]:
        """Return {group: {"static": metres, "dynamic": normalised}} and their means over the groups that have any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            static = self._error[:, 0] / self._count[:, 0]
            normalised = self._error[:, 1:] / self._motion[:, 1:]
        dynamic = [_mean(row) for row in normalised]
        result = {
            name: {"static": float(static[number]), "dynamic": dynamic[number]} for number, name in enumerate(GROUPS)
        }
        return result | {"mean": {"static": _mean(static), "dynamic": _mean(np.array(dynamic))}}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
