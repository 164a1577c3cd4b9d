"""Waymo: AP and APH of detections in a dataset of frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from equilidar.data.protocols import LabelledDataset
from equilidar.data.waymo_labels import TYPES, WaymoObjects
from equilidar.evaluation.waymo import evaluate_waymo, prepare_ground_truth, waymo_curves
from equilidar.evaluation.waymo_boxes import LEVELS, WaymoBoxes
from equilidar.evaluation.waymo_files import write_detections
from equilidar.structures import Detections
from equilidar.training.score import Score, nothing_found


@runtime_checkable
class WaymoLike(LabelledDataset, Protocol):
    """Waymo frames."""

    def objects(self, index: int) -> WaymoObjects:
        """Return every laser label of frame `index`."""
        ...

    def in_no_label_zone(self, index: int) -> np.ndarray:
        """Tell which points of frame `index` lie in zones that were not labelled."""
        ...


class WaymoScorer:
    """The official protocol over the given frames; the headline is the mean APH of level 2 in percent.

    No detection is declared to lie in a no-label zone, as OpenPCDet has it.
    """

    has_cliff = False

    def __init__(self, dataset: WaymoLike, indices: Sequence[int], classes: Sequence[str]) -> None:
        self.dataset, self.indices, self.classes = dataset, list(indices), list(classes)
        # Read at the first use and kept: the same frames are scored again and again.
        self._truth: WaymoBoxes | None = None

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Evaluate; see `Scorer`."""
        if self._truth is None:
            self._truth = prepare_ground_truth(self._read_truth())
        official = evaluate_waymo(waymo_curves(self._truth, self._boxes(detections)))
        figures: dict[str, dict[str, Any]] = {
            name.lower(): {
                f"{metric}_L{level}": official[metric][f"OBJECT_TYPE_TYPE_{name.upper()}_LEVEL_{level}"]
                for level in LEVELS
                for metric in ("AP", "APH")
            }
            for name in self.classes
        }
        metrics = list(next(iter(figures.values())))
        figures["mean"] = {
            f"m{metric}": float(np.mean([figures[name.lower()][metric] for name in self.classes])) for metric in metrics
        }
        return Score(figures, 100 * figures["mean"]["mAPH_L2"], "mAPH L2")

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write detections.bin, as the official tool takes it."""
        write_detections(folder / "detections.bin", self._boxes(detections))

    def _frames(self) -> tuple[str, ...]:
        """Return context/time stamp of each frame: a key without the dataset's name."""
        return tuple(self.dataset.keys[index].split("/", 1)[1] for index in self.indices)

    def _read_truth(self) -> WaymoBoxes:
        objects = [self.dataset.objects(index) for index in self.indices]
        lengths = [len(item) for item in objects]
        return WaymoBoxes(
            self._frames(),
            np.repeat(np.arange(len(lengths)), lengths),
            np.concatenate([item.types for item in objects]),
            np.concatenate([item.box for item in objects]),
            np.ones(sum(lengths), np.float32),
            np.concatenate([item.labelled_difficulty for item in objects]),
            np.concatenate([item.num_points for item in objects]),
            np.linalg.norm(np.nan_to_num(np.concatenate([item.velocity for item in objects]))[:, :2], axis=1),
            np.zeros(sum(lengths), np.bool_),
        )

    def _boxes(self, detections: Mapping[str, Detections]) -> WaymoBoxes:
        found = [detections.get(self.dataset.keys[index], nothing_found()) for index in self.indices]
        lengths = [len(item.scores) for item in found]
        kinds = np.array([TYPES[name] for name in self.dataset.class_names])
        none = np.zeros(sum(lengths), np.int64)
        return WaymoBoxes(
            self._frames(),
            np.repeat(np.arange(len(lengths)), lengths),
            kinds[np.concatenate([item.boxes.label.numpy() for item in found])],
            np.concatenate([item.boxes.as_tensor().double().numpy() for item in found]),
            np.concatenate([item.scores.float().clamp(0, 1).numpy() for item in found]),
            *(none, none, none.astype(np.float64), none.astype(np.bool_)),
        )
