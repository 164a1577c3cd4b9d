"""Evaluate scene flow from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from equilidar.evaluation.preflight import required
from equilidar.evaluation.scene_flow import GROUPS, FlowExample, evaluate_scene_flow, holds_ego_motion
from equilidar.evaluation.scene_flow_files import (
    FlowSource,
    check_same_examples,
    open_flow,
    read_examples,
    read_truth,
)
from equilidar.evaluation.text_table import text_table, without_nan

_MOVES = 0.2  # metres: an estimate of less tells nothing of its direction
_FEWEST = 20  # points
_EGO_MOTION = (
    "no normalised errors: points at rest flow with the ego motion; give evaluator.ego_motion=PATH, the flow of a "
    "world at rest (av2's example_submission writes it)"
)
_OTHERS = {
    "negated (from the second sweep to the first)": -np.eye(3),
    "mirrored left to right (y is negated)": np.diag([1.0, -1.0, 1.0]),
    "mirrored front to back (x is negated)": np.diag([-1.0, 1.0, 1.0]),
    "turned by 90 degrees (x forward and y forward confused)": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "turned by -90 degrees (x forward and y forward confused)": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    "ten times too long (metres per second instead of metres between the sweeps)": np.eye(3) / 10,
}


@dataclass(slots=True)
class SceneFlowEvaluator:
    """Argoverse 2's errors by part, three-way and bucket-normalised.

    Attributes:
        ground_truth: folder or zip of annotations LOG/STAMP.feather, or an .npz with gt_flow_I, ...
        detections: submission (folder or zip), or an .npz with pred_flow_I, ...; it may be the same file.
        ego_motion: flow of a world at rest, in the form of a submission (av2's `example_submission` writes one): the
            normalised errors need it where flows hold the ego motion; None: they do not.
    """

    ground_truth: str | Path
    detections: str | Path | None = None
    ego_motion: str | Path | None = None

    def evaluate(self) -> dict[str, Any]:
        """Return {"totals": ..., "per_example": ..., "category_to_index", "foreground_indices", "bucketed"}; see
        `evaluate_scene_flow`.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not in the format, or the examples differ.
        """
        figures = evaluate_scene_flow(read_examples(*self._open(required(self.detections))))
        return cast("dict[str, Any]", without_nan(figures))

    def check(self) -> list[str]:
        """Return what was found in the files; raises as `evaluate`, and where a convention is another one."""
        truth = open_flow(Path(self.ground_truth), is_estimate=False)
        if self.detections is None:
            examples = (read_truth(truth, name) for name in truth.names())
            return [_describe(self.ground_truth, list(map(_counts, examples)))]
        counts, votes, flowing = [], np.zeros(1 + len(_OTHERS)), np.zeros(2, np.int64)
        for example in read_examples(*self._open(Path(self.detections))):
            flowing += example.flowing_at_rest()
            counts.append(_counts(example))
            votes += _votes(example)
        names = ["", *_OTHERS]
        best = int(np.argmax(votes))
        if best and votes[best] >= _FEWEST and votes[best] >= 0.75 * votes.sum():
            raise ValueError(
                f"detections are in another convention than the ground truth: flow is {names[best]} "
                f"(nearer then for {votes[best]:.0f} of {votes.sum():.0f} moving points)"
            )
        ego = [f"ego motion   {_EGO_MOTION}"] if holds_ego_motion(flowing) else []
        return [
            _describe(self.ground_truth, counts),
            f"detections   {self.detections}: the same examples, the same numbers of points",
            *ego,
            f"conventions  {votes.sum():.0f} moving points compared; directions and lengths agree",
        ]

    def table(self, figures: dict[str, Any]) -> str:
        """Return a line for each part, the three-way average and the normalised errors."""
        totals = figures["totals"]
        metrics = ("EPE", "Accuracy Strict", "Accuracy Relax", "Angle Error")
        parts = [name.removeprefix("EPE/") for name in totals if name.startswith("EPE/")]
        rows = [[part, *(totals[f"{metric}/{part}"] for metric in metrics)] for part in parts]
        three, iou = (_shown(totals[name]) for name in ("EPE 3-Way Average", "Dynamic IoU"))
        lines = [
            text_table(["part", "EPE [m]", "strict", "relaxed", "angle [rad]"], rows),
            f"EPE 3-way average {three} m, dynamic IoU {iou}",
            _EGO_MOTION if figures["bucketed"] is None else _bucket_table(figures["bucketed"]),
        ]
        return "\n".join(lines)

    def _open(self, detections: Path) -> tuple[FlowSource, FlowSource, FlowSource | None]:
        truth, estimate = open_flow(Path(self.ground_truth), is_estimate=False), open_flow(detections, is_estimate=True)
        check_same_examples(truth, estimate)
        if self.ego_motion is None:
            return truth, estimate, None
        at_rest = open_flow(Path(self.ego_motion), is_estimate=True)
        check_same_examples(truth, at_rest)
        return truth, estimate, at_rest


def _bucket_table(bucketed: dict[str, dict[str, dict[str, float]]]) -> str:
    parts = bucketed["close"], bucketed["all"]
    rows = [
        [name, *(part[name][kind] for part in parts for kind in ("static", "dynamic"))] for name in (*GROUPS, "mean")
    ]
    header = ["normalised", "static (close)", "dynamic (close)", "static (all)", "dynamic (all)"]
    return text_table(header, rows)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _counts(example: FlowExample) -> tuple[int, int, int]:
    moving = example.is_valid & example.is_dynamic
    return len(example.flow), int(example.is_valid.sum()), int(moving.sum())


def _describe(path: str | Path, counts: list[tuple[int, int, int]]) -> str:
    points, valid, moving = np.array(counts).reshape(-1, 3).sum(0)
    return f"ground truth {path}: {len(counts)} examples, {points} points, {valid} valid, {moving} of them moving"


def _votes(example: FlowExample) -> np.ndarray:
    """Return for how many moving points each reading of the estimate, as it is first, is nearest to the truth."""
    length = np.linalg.norm(example.flow, axis=1)
    chosen = example.is_valid & (length > _MOVES) & (np.linalg.norm(example.estimate, axis=1) > _MOVES)
    flow, estimate = example.flow[chosen], example.estimate[chosen]
    readings = [np.eye(3), *_OTHERS.values()]
    errors = np.stack([np.linalg.norm(estimate @ reading.T - flow, axis=1) for reading in readings])
    return np.bincount(errors.argmin(0), minlength=len(readings)).astype(np.float64)
