"""From detections of a labelled dataset to its official figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from equilidar.data.kitti_calibration import KittiCalibration
from equilidar.data.kitti_labels import KittiObjects
from equilidar.data.protocols import LabelledDataset
from equilidar.data.subsets import LabelledSubset
from equilidar.evaluation.kitti import KittiEvaluation
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, write_files
from equilidar.evaluation.kitti_rows import to_kitti_rows
from equilidar.evaluation.simulated import evaluate_sweeps
from equilidar.structures import Detections, GridSpec, ObjectAnnotations
from equilidar.training.score import MODERATE, Score, Scorer, nothing_found
from equilidar.training.scoring_argoverse2 import Argoverse2Like, Argoverse2Scorer
from equilidar.training.scoring_nuscenes import NuScenesLike, NuScenesScorer
from equilidar.training.scoring_waymo import WaymoLike, WaymoScorer

TOO_HARD = 3
SIMULATED_OVERLAPS: Mapping[str, Sequence[float]] = {
    "Car": (0.7, 0.5),
    "Pedestrian": (0.5, 0.25),
    "Cyclist": (0.5, 0.25),
}


_Camera = tuple[np.ndarray, np.ndarray, tuple[int, int]]
"""image_T_rect, rect_T_velo, (width, height) of the image in pixels."""


@runtime_checkable
class Annotated(LabelledDataset, Protocol):
    """A dataset with difficulty levels of its own (the simulator)."""

    def annotations(self, index: int) -> ObjectAnnotations:
        """Return the objects of sweep `index`."""
        ...


@runtime_checkable
class KittiLike(LabelledDataset, Protocol):
    """A dataset with KITTI's labels and calibration."""

    def objects(self, index: int) -> KittiObjects:
        """Return all label rows of frame `index`."""
        ...

    def calibration(self, index: int) -> KittiCalibration:
        """Return the calibration of frame `index`."""
        ...

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of the image that frame `index` is labelled in, pixels."""
        ...


def scorer_for(dataset: LabelledDataset, classes: Sequence[str], grid: GridSpec) -> Scorer:
    """Return the official scorer of a dataset.

    Args:
        dataset: the validation split, or a subset of it.
        classes: what the detector looks for.
        grid: what the detector sees; simulated objects outside are not asked for.

    Raises:
        ValueError: the dataset has neither labels of a known benchmark nor annotations with difficulty levels.
    """
    whole = dataset.dataset if isinstance(dataset, LabelledSubset) else dataset
    indices = dataset.indices if isinstance(dataset, LabelledSubset) else list(range(len(dataset)))
    if isinstance(whole, KittiLike):
        return KittiScorer(whole, indices, classes)
    if isinstance(whole, NuScenesLike):
        return NuScenesScorer(whole, indices)
    if isinstance(whole, WaymoLike):
        return WaymoScorer(whole, indices, classes)
    if isinstance(whole, Argoverse2Like):
        return Argoverse2Scorer(whole, indices, classes)
    if isinstance(whole, Annotated):
        return SimulatedScorer(whole, indices, classes, grid)
    raise ValueError(f"dataset {dataset.name} has no official evaluation: it offers neither objects nor annotations")


class KittiScorer:
    """The official KITTI protocol; "3d" is that of cars at 0.7, "3d@0.5" at 0.5 (others 0.5 and 0.25)."""

    has_cliff = True

    def __init__(self, dataset: KittiLike, indices: Sequence[int], classes: Sequence[str]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.classes = [name.lower() for name in classes]
        # Official files are NNNNNN.txt; frames of several drives need the drive in their name.
        self._short_names = len({key.rsplit("/", 1)[-1] for key in dataset.keys}) == len(dataset.keys)
        # Read at the first use and kept: the same frames are scored again and again.
        self._truth: KittiTable | None = None
        self._cameras: list[_Camera] | None = None

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Evaluate; see `Scorer`."""
        if self._truth is None:
            self._truth = KittiTable.concatenate([self._read_truth(index) for index in self.indices])
        found = KittiTable.concatenate(self._rows(detections))
        evaluated = KittiEvaluation(self._truth, found).figures()
        figures = {name: evaluated[name] for name in self.classes}
        return Score(figures, _headline(figures, dict.fromkeys(figures, "3d")))

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write a result file for each frame."""
        folder.mkdir(parents=True, exist_ok=True)
        for rows in self._rows(detections):
            write_files(folder, rows)

    def _rows(self, detections: Mapping[str, Detections]) -> list[KittiTable]:
        if self._cameras is None:
            self._cameras = [self._read_camera(index) for index in self.indices]
        tables: list[KittiTable] = []
        for index, camera in zip(self.indices, self._cameras, strict=True):
            key = self.dataset.keys[index]
            found = detections.get(key, nothing_found())
            tables.append(to_kitti_rows(self._frame(key), found, self.dataset.class_names, *camera))
        return tables

    def _read_camera(self, index: int) -> _Camera:
        calibration = self.dataset.calibration(index)
        return calibration.image_T_rect, calibration.rect_T_velo, self.dataset.image_size(index)

    def _frame(self, key: str) -> str:
        return key.rsplit("/", 1)[-1] if self._short_names else key.replace("/", "_")

    def _read_truth(self, index: int) -> KittiTable:
        objects = self.dataset.objects(index)
        values = np.column_stack(
            [
                objects.truncated,
                objects.occluded,
                objects.alpha,
                objects.image_box,
                objects.height_width_length,
                objects.bottom_center,
                objects.rotation_y,
                np.full(len(objects), np.nan),
            ]
        )
        kind = np.array([KITTI_CLASSES.index(name.lower()) for name in objects.types], dtype=np.int64)
        return KittiTable((self._frame(self.dataset.keys[index]),), np.array([0, len(objects)]), kind, values)


class SimulatedScorer:
    """KITTI's matching and average precision, with the dataset's own difficulty levels."""

    has_cliff = True

    def __init__(self, dataset: Annotated, indices: Sequence[int], classes: Sequence[str], grid: GridSpec) -> None:
        self.dataset, self.indices, self.grid = dataset, list(indices), grid
        self.overlaps = {name: SIMULATED_OVERLAPS.get(name, (0.5,)) for name in classes}
        self._annotations: list[ObjectAnnotations] | None = None

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Evaluate; see `Scorer`."""
        if self._annotations is None:
            self._annotations = [self._visible(self.dataset.annotations(index)) for index in self.indices]
        found = [detections.get(self.dataset.keys[index], nothing_found()) for index in self.indices]
        figures = evaluate_sweeps(self._annotations, found, self.dataset.class_names, self.overlaps)
        return Score(figures, _headline(figures, {n.lower(): f"3d@{o[-1]}" for n, o in self.overlaps.items()}))

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write one text file for each sweep: class x y z length width height yaw score, in the sensor's frame."""
        for index in self.indices:
            key = self.dataset.keys[index]
            found = detections.get(key, nothing_found())
            path = folder / f"{key}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = torch.cat([found.boxes.as_tensor(), found.scores[:, None]], 1).tolist()
            labels = [self.dataset.class_names[label] for label in found.boxes.label.tolist()]
            lines = [" ".join([n, *(f"{v:.4f}" for v in row)]) for n, row in zip(labels, rows, strict=True)]
            path.write_text("".join(f"{line}\n" for line in lines))

    def _visible(self, annotations: ObjectAnnotations) -> ObjectAnnotations:
        inside = self.grid.contains(annotations.boxes.center)
        difficulty = torch.where(inside, annotations.difficulty, TOO_HARD)
        return ObjectAnnotations(annotations.boxes, difficulty, annotations.num_points, annotations.occluded)


def _headline(figures: Mapping[str, Mapping[str, Any]], metric: Mapping[str, str]) -> float:
    values = [figures[name][metric[name]] for name in figures]
    return float(np.mean([0.0 if value is None else value["AP_R40"][MODERATE] for value in values]))
