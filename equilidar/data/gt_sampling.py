"""Gt-sampling: objects of other labelled sweeps are pasted into a sweep (SECOND, Yan et al., Sensors 2018).

As in OpenPCDet an object keeps its place and heading relative to the sensor, so that its points stay as dense as
distance made them; here its height follows the ground that the sweep itself shows under it, without a file of planes.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from equilidar.data.gt_database import UNKNOWN_DIFFICULTY, GtDatabase
from equilidar.data.local_ground import LocalGround
from equilidar.data.protocols import provenance_of
from equilidar.data.subsets import LabelledSubset
from equilidar.ops.points_in_boxes import points_in_boxes
from equilidar.ops.rotated_iou import bev_iou
from equilidar.structures import Boxes3D, LabelledSweep, Sweep

_LOG = logging.getLogger(__name__)

# Uses of one sample's seed are told apart by number; the augmentations take 0 to 3.
STREAM_GT_SAMPLING = 4
_TOUCHING = 1e-9  # an IoU below is rounding, not overlap


def no_gt_sampling(train: LabelledSubset) -> None:
    """Paste nothing."""


class GtSampling:
    """Pastes objects of a database into labelled sweeps; what a sample gets follows from its seed alone.

    Raises:
        FileNotFoundError: there is no such database.
        ValueError: it was built from other labels or another kind of points, or a setting does not fit.
    """

    def __init__(
        self,
        train: LabelledSubset,
        *,
        database: str | Path,
        counts: Mapping[str, int],
        fill: bool = True,
        min_points: int = 5,
        max_difficulty: int | None = 2,
        extra_size: Sequence[float | int] = (0.0, 0.0, 0.0),
        on_ground: bool = True,
    ) -> None:
        """Choose the objects that may be pasted.

        Args:
            train: the labels that may be used; the database must be built from these.
            database: file of `tools/gt_database.py`.
            counts: objects to draw for each class; what would overlap is dropped.
            fill: draw so many less as the sweep holds already (OpenPCDet's LIMIT_WHOLE_SCENE).
            min_points: objects with fewer are left out.
            max_difficulty: harder ones are left out (2: all that count for an official figure); None for data without
                difficulty levels.
            extra_size: metres by which boxes are enlarged in length, width and height where the sweep's points are
                removed (OpenPCDet's REMOVE_EXTRA_WIDTH).
            on_ground: stand objects on the local ground and leave out those under which none is seen; otherwise they
                keep their height.
        """
        self.database = GtDatabase(database)
        self.counts, self.fill, self.on_ground = dict(counts), fill, on_ground
        self.extra_size = np.array([float(v) for v in extra_size], dtype=np.float32)
        self._check(train, min_points, max_difficulty)
        self._label = {name: train.class_names.index(name) for name in counts}
        suits = self.database.num_points >= min_points
        if max_difficulty is not None:
            suits &= self.database.difficulty <= max_difficulty
        of_class = {name: self.database.label == self.database.class_names.index(name) for name in counts}
        self._pool = {name: np.flatnonzero(suits & own) for name, own in of_class.items()}
        _LOG.info(
            "gt sampling from labels %s: %s",
            self.database.hash,
            ", ".join(f"{name} {len(pool)} of {int(of_class[name].sum())}" for name, pool in self._pool.items()),
        )

    def __call__(self, item: LabelledSweep, seed: int) -> LabelledSweep:
        """Return the sweep with objects pasted into it.

        Args:
            item: a labelled sweep of the training set.
            seed: the sample's own.
        """
        rows = self._draw(item, seed)
        rows = rows[self._is_free(rows, item)]
        boxes = self.database.box[rows].copy()
        if self.on_ground and len(rows):
            ground = self._ground(item).heights(boxes[:, :2])
            rows, boxes, ground = (value[np.isfinite(ground)] for value in (rows, boxes, ground))
            boxes[:, 2] = ground + boxes[:, 5] / 2
        return self._paste(item, rows, boxes) if len(rows) else item

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the objects that are pasted."""
        return {**self.database.provenance(), "usable": {name: len(pool) for name, pool in self._pool.items()}}

    def _check(self, train: LabelledSubset, min_points: int, max_difficulty: int | None) -> None:
        database = self.database
        if database.hash != train.subset.hash:
            raise ValueError(
                f"gt_sampling.database: {database.path} was built from label subset {database.hash} "
                f"({_describe(database.labels)}), this run trains on {train.subset.hash} "
                f"({_describe(train.subset.identity())}); build it from the same labels"
            )
        if database.data.get("hash") != provenance_of(train).get("hash"):
            _LOG.warning(
                "gt sampling: %s has the right labels, but its sweeps were read from other files", database.path
            )
        if database.contract != train.contract:
            raise ValueError(
                f"gt_sampling.database: {database.path} holds points of {database.contract}, the dataset gives "
                f"{train.contract}"
            )
        for name, count in self.counts.items():
            if name not in train.class_names or name not in database.class_names:
                raise ValueError(f"gt_sampling.counts has {name!r}; the classes are {', '.join(train.class_names)}")
            if count < 0:
                raise ValueError(f"gt_sampling.counts.{name} must not be negative, got {count}")
        if len(self.extra_size) != 3 or (self.extra_size < 0).any():
            raise ValueError(f"gt_sampling.extra_size must be three lengths >= 0, got {self.extra_size.tolist()}")
        if min_points < 1:
            raise ValueError(f"gt_sampling.min_points must be at least 1, got {min_points}")
        if max_difficulty is not None and (database.difficulty == UNKNOWN_DIFFICULTY).any():
            raise ValueError(
                f"gt_sampling.max_difficulty is {max_difficulty}, but the objects of {database.path} have no "
                "difficulty level: set it to null"
            )

    def _draw(self, item: LabelledSweep, seed: int) -> Int64[np.ndarray, " M"]:
        """Return rows of the database, class after class; none of the sweep's own objects."""
        drawn = [np.zeros(0, dtype=np.int64)]
        for name, count in self.counts.items():
            present = int((item.boxes.label == self._label[name]).sum()) if self.fill else 0
            pool = self._pool[name]
            rng = np.random.default_rng([seed, STREAM_GT_SAMPLING, self._label[name]])
            rows = rng.permutation(pool)[: max(count - present, 0)]
            drawn.append(np.array([row for row in rows if self.database.keys[row] != item.key], dtype=np.int64))
        return np.concatenate(drawn)

    def _is_free(self, rows: Int64[np.ndarray, " M"], item: LabelledSweep) -> np.ndarray:
        """Tell which objects overlap nothing seen from above: no labelled object, and none drawn before them."""
        boxes = torch.from_numpy(self.database.box[rows])
        free = (bev_iou(boxes, _known_boxes(item)) <= _TOUCHING).all(1).numpy()
        overlaps = (bev_iou(boxes, boxes) > _TOUCHING).numpy()
        for row in range(len(rows)):
            free[row] &= not (overlaps[row, :row] & free[:row]).any()
        return free

    @staticmethod
    def _ground(item: LabelledSweep) -> LocalGround:
        on_objects = _in_any(item.sweep.xyz, _known_boxes(item))
        return LocalGround.of_points(item.sweep.xyz[~on_objects].numpy())

    def _paste(
        self, item: LabelledSweep, rows: Int64[np.ndarray, " M"], boxes: Float32[np.ndarray, "M 7"]
    ) -> LabelledSweep:
        clouds = [self.database.points(int(row)).copy() for row in rows]
        for cloud, row, box in zip(clouds, rows, boxes, strict=True):
            cloud[:, 2] += box[2] - self.database.box[row, 2]
        cloud = torch.from_numpy(np.concatenate(clouds))
        cleared = boxes.copy()
        cleared[:, 3:6] += self.extra_size
        sweep = item.sweep
        kept = ~_in_any(sweep.xyz, torch.from_numpy(cleared))
        names = [self.database.class_names[label] for label in self.database.label[rows]]
        pasted = Boxes3D.make(
            torch.from_numpy(boxes[:, :3]),
            torch.from_numpy(boxes[:, 3:6]),
            torch.from_numpy(boxes[:, 6]),
            label=torch.tensor([self._label[name] for name in names]),
            velocity=torch.from_numpy(self.database.velocity[rows]),
        )
        both = Boxes3D.collate([item.boxes, pasted])
        return LabelledSweep(
            Sweep(
                torch.cat([sweep.xyz[kept], cloud[:, :3]]),
                torch.cat([sweep.features[kept], cloud[:, 3:]]),
                sweep.contract,
                sweep.key,
                sweep.timestamp,
                sweep.world_T_sensor,
            ),
            Boxes3D.make(both.center, both.size, both.yaw, label=both.label, velocity=both.velocity, track=both.track),
            item.obstacles,
        )


def _in_any(xyz: Float32[torch.Tensor, "N 3"], boxes: Float32[torch.Tensor, "M 7"]) -> Bool[torch.Tensor, " N"]:
    """Tell which points lie in one of the boxes."""
    first, _ = points_in_boxes(xyz, torch.tensor([0, len(xyz)]), boxes, torch.tensor([0, len(boxes)]))
    return first >= 0


def _known_boxes(item: LabelledSweep) -> Float32[torch.Tensor, "M 7"]:
    """Return all labelled objects of a sweep, of whatever class."""
    own = item.boxes.as_tensor()
    return own if item.obstacles is None else torch.cat([own, item.obstacles.as_tensor()])


def _describe(labels: Mapping[str, Any]) -> str:
    return f"fraction {labels['fraction']:g}, seed {labels['seed']}, by {labels['mode']}"
