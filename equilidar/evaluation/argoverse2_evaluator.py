"""Evaluate Argoverse 2 detections from files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.evaluation.argoverse2 import FIGURES, MAX_RANGE, Inside, evaluate_argoverse2
from equilidar.evaluation.argoverse2_boxes import COMPETITION_CATEGORIES, Argoverse2Boxes, Sweep
from equilidar.evaluation.argoverse2_files import annotation_files, read_annotations, read_detections
from equilidar.evaluation.argoverse2_map import boxes_inside
from equilidar.evaluation.preflight import check_frames, compare_conventions, describe, required
from equilidar.evaluation.quaternions import yaw_of
from equilidar.evaluation.text_table import text_table
from equilidar.formats.argoverse2_annotations import CATEGORIES

_SPARSE = "; if that is meant, add evaluator.sparse=true"


@dataclass(slots=True)
class Argoverse2Evaluator:
    """AP, ATE, ASE, AOE and CDS of the official evaluation.

    Attributes:
        ground_truth: annotations.feather, the folder of a log, or a folder of logs.
        detections: feather file with log_id, timestamp_ns, category, box and score; or a folder of such files.
        dataset_dir: folder of logs with maps and poses (a split); None: the ground truth's own folders.
        roi: prune by region of interest; None: where every log has a map.
        frames: file of the time stamps that are evaluated: text, one a line, or JSON with timestamps_ns; None: all.
        categories: what is evaluated and averaged over; None: the competition's 26.
        max_range: metres from the egovehicle's origin.
        sparse: sweeps without any annotation or any detection are meant; the format does not tell them from missing
            ones.
        rows: list the numbers of the evaluated rows, too, where the map prunes.
    """

    ground_truth: str | Path
    detections: str | Path | None = None
    dataset_dir: str | Path | None = None
    roi: bool | None = None
    frames: str | Path | None = None
    categories: Sequence[str] | None = None
    max_range: float = MAX_RANGE
    sparse: bool = False
    rows: bool = True

    def evaluate(self) -> dict[str, Any]:
        """Return configuration, table and numbers of boxes; with maps also those with and without pruning apart.

        Raises:
            FileNotFoundError: a file or a map is missing.
            ValueError: a file is not in the format, or has nothing in common with the other.
        """
        path = required(self.detections)
        truth, found = self._read_truth(), self._select(read_detections(path))
        if not self.sparse:
            # Single sweeps may be empty on one side; whole logs are not.
            check_frames(
                path, {log for log, _ in truth.sweeps}, {log for log, _ in found.sweeps}, what="logs", hint=_SPARSE
            )
            check_frames(path, truth.sweeps, found.sweeps, what="sweeps", hint=_SPARSE, refuse=False)
        categories = tuple(self.categories or COMPETITION_CATEGORIES)
        inside = self._inside(truth, found)
        figures: dict[str, Any] = {}
        for name, pruning in {"no_roi": None, "roi": inside}.items():
            if name == "roi" and inside is None:
                continue
            result = evaluate_argoverse2(truth, found, pruning, categories=categories, max_range=self.max_range)
            whole = result.as_figures(categories, self.max_range, pruned=pruning is not None)
            part = {key: whole[key] for key in ("columns", "metrics")}
            if self.rows:
                part["evaluated_detection_rows"] = found.row[result.detections].tolist()
                part["evaluated_annotation_rows"] = truth.row[result.ground_truth].tolist()
            figures = {**figures, **whole, name: part}
        if inside is None:
            del figures["no_roi"]
        return figures

    def check(self) -> list[str]:
        """Return what was found in the files; raises as `evaluate`, and where sweeps or a convention differ."""
        truth = self._read_truth()
        lines = [
            describe("ground truth", self.ground_truth, len(truth.sweeps), truth.label, CATEGORIES, what="sweeps"),
            f"{'':<13}{int((truth.num_points > 0).sum())} boxes with points",
        ]
        if self.detections is None:
            return lines
        found = self._select(read_detections(Path(self.detections)))
        lines.append(
            describe(
                "detections", self.detections, len(found.sweeps), found.label, CATEGORIES, found.score, what="sweeps"
            )
        )
        if not self.sparse:
            hint = _SPARSE + "; evaluator.frames=FILE selects sweeps"
            check_frames(self.detections, truth.sweeps, found.sweeps, what="sweeps", hint=hint)
            lines.append(f"{'':<13}the same sweeps as the ground truth")
        inside = self._inside(truth, found)
        if inside is not None:
            counts = [f"{int(mask.sum())} of {len(mask)}" for mask in (inside.ground_truth, inside.detections)]
            lines.append(f"{'map':<13}{counts[0]} annotations and {counts[1]} detections lie on the region of interest")
        sweeps = tuple(sorted({*truth.sweeps, *found.sweeps}))
        truth, found = truth.renumbered(sweeps), found.renumbered(sweeps)
        boxes = _boxes(truth), _boxes(found)
        lines.append(compare_conventions((truth.sweep, found.sweep), (truth.label, found.label), boxes))
        return lines

    def table(self, figures: dict[str, Any]) -> str:
        """Return a line for each category, then the means."""
        rows = [[name, *values] for name, values in figures["metrics"].items()]
        pruned = "on" if figures["config"]["eval_only_roi_instances"] else "off"
        counts = figures["n_evaluated"]
        return (
            f"{text_table(['category', *FIGURES], rows)}\n{counts['annotations']} annotations and "
            f"{counts['detections']} detections evaluated, pruning by map {pruned}"
        )

    def _read_truth(self) -> Argoverse2Boxes:
        truth = self._select(read_annotations(Path(self.ground_truth)))
        if not len(truth):
            raise ValueError(f"{self.ground_truth} holds no annotation of a sweep that is evaluated")
        return truth

    def _select(self, boxes: Argoverse2Boxes) -> Argoverse2Boxes:
        if self.frames is None:
            return boxes
        stamps = _read_stamps(Path(self.frames))
        return boxes.renumbered(tuple(sweep for sweep in boxes.sweeps if sweep[1] in stamps))

    def _inside(self, truth: Argoverse2Boxes, found: Argoverse2Boxes) -> Inside | None:
        if self.roi is False:
            return None
        folders = self._log_folders(truth.sweeps)
        has_map = all(sorted((folder / "map").glob("log_map_archive_*.json")) for folder in folders.values())
        if self.roi is None and not (has_map and folders):
            return None
        return boxes_inside(truth, found, folders)

    def _log_folders(self, sweeps: tuple[Sweep, ...]) -> dict[str, Path]:
        logs = {log for log, _ in sweeps}
        if self.dataset_dir is not None:
            root = Path(self.dataset_dir)
            return {log: root if root.name == log else root / log for log in logs}
        own = {file.resolve().parent.name: file.parent for file in annotation_files(Path(self.ground_truth))}
        return {log: own.get(log, Path(self.ground_truth) / log) for log in logs}


def _read_stamps(path: Path) -> set[int]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected time stamps, one a line, or JSON with timestamps_ns")
    text = path.read_text()
    try:
        stamps = json.loads(text)["timestamps_ns"] if path.suffix == ".json" else text.split()
        return {int(stamp) for stamp in stamps}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} holds no time stamps: expected one a line, or JSON with timestamps_ns") from None


def _boxes(boxes: Argoverse2Boxes) -> np.ndarray:
    return np.column_stack([boxes.center, boxes.size, yaw_of(boxes.rotation)])
