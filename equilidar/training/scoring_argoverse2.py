"""Argoverse 2: CDS and mAP of detections in a dataset of annotated sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.spatial.transform import Rotation

from equilidar.data.argoverse2_labelled import Argoverse2Objects
from equilidar.data.protocols import LabelledDataset
from equilidar.data.recordings import Run
from equilidar.evaluation.argoverse2 import FIGURES, evaluate_argoverse2
from equilidar.evaluation.argoverse2_boxes import Argoverse2Boxes
from equilidar.evaluation.argoverse2_files import write_detections
from equilidar.evaluation.argoverse2_map import boxes_inside
from equilidar.formats.argoverse2_annotations import CATEGORIES
from equilidar.structures import Detections
from equilidar.training.score import Score, nothing_found

_MEAN = "AVERAGE_METRICS"


@runtime_checkable
class Argoverse2Like(LabelledDataset, Protocol):
    """Annotated sweeps of Argoverse 2."""

    frames: list[tuple[Path, Run, int]]

    def objects(self, index: int) -> Argoverse2Objects:
        """Return the annotations of sweep `index`."""
        ...


class Argoverse2Scorer:
    """The official protocol over the given sweeps and the detector's categories; the headline is CDS in percent.

    Boxes off the region of interest are left out where every log has its map, as the benchmark does.
    """

    has_cliff = False

    def __init__(self, dataset: Argoverse2Like, indices: Sequence[int], classes: Sequence[str]) -> None:
        self.dataset, self.indices, self.classes = dataset, list(indices), tuple(classes)
        # Read at the first use and kept: the same sweeps are scored again and again.
        self._truth: Argoverse2Boxes | None = None

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Evaluate; see `Scorer`."""
        if self._truth is None:
            self._truth = self._read_truth()
        truth, found = self._truth, self._boxes(detections)
        logs = {log.name: log for log, _, _ in (self.dataset.frames[index] for index in self.indices)}
        has_map = all(any((log / "map").glob("log_map_archive_*.json")) for log in logs.values())
        inside = boxes_inside(truth, found, logs) if has_map else None
        metrics = evaluate_argoverse2(truth, found, inside, categories=self.classes).metrics
        figures: dict[str, dict[str, Any]] = {
            "mean" if name == _MEAN else name: dict(zip(FIGURES, values, strict=True))
            for name, values in metrics.items()
        }
        return Score(figures, 100 * figures["mean"]["CDS"], "CDS")

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write detections.feather, as the official evaluation takes it."""
        write_detections(folder / "detections.feather", self._boxes(detections))

    def _sweeps(self) -> tuple[tuple[str, int], ...]:
        frames = [self.dataset.frames[index] for index in self.indices]
        return tuple((log.name, run.frames[place].number) for log, run, place in frames)

    def _read_truth(self) -> Argoverse2Boxes:
        objects = [self.dataset.objects(index) for index in self.indices]
        lengths = [len(item) for item in objects]
        poses = np.concatenate([item.ego_T_object for item in objects])
        return Argoverse2Boxes(
            self._sweeps(),
            np.repeat(np.arange(len(lengths)), lengths),
            np.array([CATEGORIES.index(name) for item in objects for name in item.category], dtype=np.int64),
            poses[:, :3, 3],
            np.concatenate([item.size for item in objects]),
            _quaternions(Rotation.from_matrix(poses[:, :3, :3]) if len(poses) else None),
            np.full(len(poses), np.nan),
            np.concatenate([item.num_points for item in objects]),
            np.arange(len(poses)),
        )

    def _boxes(self, detections: Mapping[str, Detections]) -> Argoverse2Boxes:
        found = [detections.get(self.dataset.keys[index], nothing_found()) for index in self.indices]
        lengths = [len(item.scores) for item in found]
        rows = np.concatenate([item.boxes.as_tensor().double().numpy() for item in found])
        numbers = np.array([CATEGORIES.index(name) for name in self.dataset.class_names])
        return Argoverse2Boxes(
            self._sweeps(),
            np.repeat(np.arange(len(lengths)), lengths),
            numbers[np.concatenate([item.boxes.label.numpy() for item in found])],
            *(rows[:, :3], rows[:, 3:6]),
            _quaternions(Rotation.from_euler("z", rows[:, 6:]) if len(rows) else None),
            np.concatenate([item.scores.double().numpy() for item in found]),
            np.full(len(rows), -1),
            np.arange(len(rows)),
        )


def _quaternions(rotations: Rotation | None) -> np.ndarray:
    """Return (N, 4) w, x, y, z."""
    return np.zeros((0, 4)) if rotations is None else rotations.as_quat().reshape(-1, 4)[:, [3, 0, 1, 2]]
