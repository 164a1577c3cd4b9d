"""nuScenes: NDS and mAP of detections in a dataset of key frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch

from equilidar.data.protocols import LabelledDataset
from equilidar.evaluation.nuscenes import ERRORS, evaluate_nuscenes
from equilidar.evaluation.nuscenes_boxes import CLASSES, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import write_submission
from equilidar.evaluation.nuscenes_rows import to_nuscenes_boxes
from equilidar.evaluation.nuscenes_tables import NuscenesTruth, read_tables
from equilidar.evaluation.text_table import without_nan
from equilidar.structures import Detections
from equilidar.training.score import Score, nothing_found


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
        write_submission(folder / "results_nusc.json", [self._boxes(detections)])

    def _boxes(self, detections: Mapping[str, Detections]) -> NuscenesBoxes:
        names, keys, tokens = self.dataset.class_names, self.dataset.keys, self.dataset.sample_tokens
        return NuscenesBoxes.concatenate(
            [
                to_nuscenes_boxes(
                    tokens[index],
                    detections.get(keys[index], nothing_found()),
                    names,
                    self.dataset.world_T_sensor(index).double().numpy(),
                )
                for index in self.indices
            ]
        )


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
