"""nuScenes: NDS and mAP of detections in a dataset of key frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from equilidar.data.protocols import LabelledDataset
from equilidar.evaluation.nuscenes import ERRORS, evaluate_nuscenes
from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, UNKNOWN_POINTS, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import MAX_BOXES, write_submission
from equilidar.evaluation.nuscenes_tables import NuscenesTruth, read_tables
from equilidar.evaluation.text_table import without_nan
from equilidar.structures import Detections
from equilidar.training.score import Score, nothing_found

# Which attribute a class has most often in the training split, and which one it has above MOVES metres per second:
# a LiDAR detector predicts none (as OpenPCDet's pcdet/datasets/nuscenes/nuscenes_utils.py).
_AT_REST = {
    "car": "vehicle.parked",
    "truck": "vehicle.parked",
    "construction_vehicle": "vehicle.parked",
    "trailer": "vehicle.parked",
    "bus": "vehicle.stopped",
    "motorcycle": "cycle.without_rider",
    "bicycle": "cycle.without_rider",
    "pedestrian": "pedestrian.standing",
}
_MOVING = {
    **dict.fromkeys(("car", "truck", "construction_vehicle", "trailer", "bus"), "vehicle.moving"),
    **dict.fromkeys(("motorcycle", "bicycle"), "cycle.with_rider"),
    "pedestrian": "pedestrian.moving",
}
MOVES = 0.2


@runtime_checkable
class NuScenesLike(LabelledDataset, Protocol):
    """nuScenes key frames."""

    tables: Path
    sample_tokens: list[str]

    def world_T_sensor(self, index: int) -> torch.Tensor:
        """Return the (4, 4) pose of key frame `index`."""
        ...


class NuScenesScorer:
    """The official protocol over the given key frames; the headline is NDS in percent."""

    has_cliff = False

    def __init__(self, dataset: NuScenesLike, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        # Read at the first use and kept: the same frames are scored again and again.
        self._truth: NuscenesTruth | None = None

    def __call__(self, detections: Mapping[str, Detections]) -> Score:
        """Evaluate; see `Scorer`."""
        if self._truth is None:
            tokens = tuple(self.dataset.sample_tokens[index] for index in self.indices)
            self._truth = _only(read_tables(self.dataset.tables), tokens)
        truth = self._truth
        found = self._boxes(detections)
        found.ego_offset = found.center[:, :2] - truth.ego[found.sample, :2]
        official = evaluate_nuscenes(truth.boxes, found, truth.racks)
        figures: dict[str, dict[str, Any]] = {
            name: {"AP": official["mean_dist_aps"][name], **official["label_tp_errors"][name]} for name in CLASSES
        }
        means = {error: official["tp_errors"][error] for error in ERRORS}
        figures["mean"] = {"mAP": official["mean_ap"], "NDS": official["nd_score"], **means}
        # Errors that are not defined (a cone's heading) are None.
        return Score(cast("dict[str, dict[str, Any]]", without_nan(figures)), 100 * official["nd_score"], "NDS")

    def write(self, folder: Path, detections: Mapping[str, Detections]) -> None:
        """Write results_nusc.json, a submission."""
        write_submission(folder / "results_nusc.json", self._boxes(detections))

    def _boxes(self, detections: Mapping[str, Detections]) -> NuscenesBoxes:
        parts = [
            self._of_frame(place, index, detections.get(self.dataset.keys[index], nothing_found()))
            for place, index in enumerate(self.indices)
        ]
        sample, label, center, size, rotation, velocity, score, attribute = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return NuscenesBoxes(
            tuple(self.dataset.sample_tokens[index] for index in self.indices),
            *(sample, label, center, size, rotation, velocity, np.full((len(label), 2), np.nan)),
            *(np.full(len(label), UNKNOWN_POINTS), score, attribute),
        )

    def _of_frame(self, place: int, index: int, found: Detections) -> tuple[np.ndarray, ...]:
        """Return the columns of one frame's best detections, in the global frame."""
        best = found.scores.argsort(descending=True, stable=True)[:MAX_BOXES]
        rows = found.boxes.as_tensor()[best].double().numpy()
        pose = self.dataset.world_T_sensor(index).double().numpy()
        turn = Rotation.from_matrix(pose[:3, :3])
        x, y, z, w = (turn * Rotation.from_euler("z", rows[:, 6:])).as_quat().reshape(-1, 4).T
        # A detector without velocities says that all stands still.
        velocity = found.boxes.velocity[best].nan_to_num().double().numpy()
        velocity = (velocity @ pose[:3, :3].T)[:, :2]
        names = [self.dataset.class_names[label] for label in found.boxes.label[best].tolist()]
        moves = (np.linalg.norm(velocity, axis=1) > MOVES).tolist()
        return (
            np.full(len(best), place),
            np.array([CLASSES.index(name) for name in names], dtype=np.int64),
            rows[:, :3] @ pose[:3, :3].T + pose[:3, 3],
            rows[:, [4, 3, 5]],
            np.stack([w, x, y, z], 1),
            velocity,
            found.scores[best].double().numpy(),
            np.array([_attribute(name, move) for name, move in zip(names, moves, strict=True)], dtype=np.int64),
        )


def _attribute(name: str, moves: bool) -> int:
    attribute = (_MOVING if moves else _AT_REST).get(name)
    return NO_ATTRIBUTE if attribute is None else ATTRIBUTES.index(attribute)


def _only(truth: NuscenesTruth, tokens: tuple[str, ...]) -> NuscenesTruth:
    """Return the ground truth of some samples, in their order."""
    place = {token: index for index, token in enumerate(tokens)}
    number = np.array([place.get(token, -1) for token in truth.boxes.samples], dtype=np.int64)
    boxes = truth.boxes.select(number[truth.boxes.sample] >= 0)
    boxes.samples, boxes.sample = tokens, number[boxes.sample]
    rows = np.empty(len(tokens), np.int64)
    rows[number[number >= 0]] = np.flatnonzero(number >= 0)
    racks = truth.racks
    kept = number[racks.sample] >= 0 if len(racks.sample) else np.zeros(0, np.bool_)
    racks = type(racks)(number[racks.sample[kept]], racks.center[kept], racks.size[kept], racks.rotation[kept])
    return NuscenesTruth(boxes, racks, truth.ego[rows], truth.ego_yaw[rows])
