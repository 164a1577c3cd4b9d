"""Evaluate Waymo detections from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.evaluation.preflight import check_frames, compare_conventions, describe, required
from equilidar.evaluation.text_table import text_table
from equilidar.evaluation.waymo import (
    RANGES,
    SPEEDS,
    WaymoCurve,
    curve_arrays,
    evaluate_waymo,
    prepare_ground_truth,
    waymo_curves,
)
from equilidar.evaluation.waymo_boxes import TYPES, WaymoBoxes
from equilidar.evaluation.waymo_files import read_waymo

_NAMES = ("UNKNOWN", *TYPES)
_SPARSE = "; if that is meant, add evaluator.sparse=true"


@dataclass(slots=True)
class WaymoEvaluator:
    """AP and APH of the official tool, by type, range and speed.

    Attributes:
        ground_truth: Objects (.bin, .json), or an .npz with gt_* arrays.
        detections: Objects (.bin, .json), or an .npz with pred_* arrays; it may be the same file.
        sparse: frames without any object or any detection are meant: neither format tells them from missing ones.
        curves: .npz file for precision and recall at each cutoff, of the object types; None writes none.
    """

    ground_truth: str | Path
    detections: str | Path | None = None
    sparse: bool = False
    curves: str | Path | None = None

    def evaluate(self) -> dict[str, Any]:
        """Return {"AP": {breakdown: value}, "APH": {...}}.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not in the format, or has nothing in common with the other.
        """
        path = required(self.detections)
        labelled = self._read_truth()
        truth = prepare_ground_truth(labelled)
        found = read_waymo(path, is_detection=True)
        if not self.sparse:
            # Single frames may be empty on one side; whole drives are not.
            check_frames(path, _drives(truth), _drives(found), what="drives", hint=_SPARSE)
            check_frames(path, labelled.frames, found.frames, hint=_SPARSE, refuse=False)
        curves = waymo_curves(truth, found)
        if self.curves is not None:
            _write_curves(Path(self.curves), curves)
        return evaluate_waymo(curves)

    def check(self) -> list[str]:
        """Return what was found in the files; raises as `evaluate`, and where frames or a convention differ."""
        truth = self._read_truth()
        lines = [describe("ground truth", self.ground_truth, len(truth.frames), truth.kind, _NAMES)]
        kept = prepare_ground_truth(truth)
        hard = int((kept.difficulty == 2).sum())
        lines.append(f"{'':<13}{len(kept)} with points, of which {hard} of level 2")
        if self.detections is None:
            return lines
        found = read_waymo(Path(self.detections), is_detection=True)
        lines.append(describe("detections", self.detections, len(found.frames), found.kind, _NAMES, found.score))
        if not self.sparse:
            check_frames(self.detections, truth.frames, found.frames, hint=_SPARSE)
            lines.append(f"{'':<13}the same frames as the ground truth")
        frames = tuple(sorted({*truth.frames, *found.frames}))
        kept, found = kept.renumbered(frames), found.renumbered(frames)
        lines.append(compare_conventions((kept.frame, found.frame), (kept.kind, found.kind), (kept.box, found.box)))
        return lines

    def table(self, figures: dict[str, Any]) -> str:
        """Return a line for each type and part: AP and APH of both levels."""
        rows = []
        for name in TYPES:
            parts = [(f"OBJECT_TYPE_TYPE_{name}", "all")]
            parts += [(f"RANGE_TYPE_{name}_{label}", f"{label} m") for label in RANGES]
            parts += [(f"VELOCITY_TYPE_{name}_{label}", label.lower()) for label in SPEEDS]
            for key, label in parts:
                values = [figures[metric][f"{key}_LEVEL_{level}"] for level in (1, 2) for metric in ("AP", "APH")]
                rows.append([name.lower(), label, *values])
        return text_table(["type", "part", "AP/L1", "APH/L1", "AP/L2", "APH/L2"], rows)

    def _read_truth(self) -> WaymoBoxes:
        truth = read_waymo(Path(self.ground_truth), is_detection=False)
        if not len(truth):
            raise ValueError(f"{self.ground_truth} holds no object")
        return truth


def _drives(boxes: WaymoBoxes) -> set[str]:
    """Return the contexts of frames named context/time; frames that are only numbered are one drive."""
    return {name.rpartition("/")[0] for name in boxes.frames}


def _write_curves(path: Path, curves: dict[str, WaymoCurve]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **curve_arrays(curves))
