"""Waymo frames with their boxes. No pair reader imports this."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from equilidar.data.accumulation import accumulated_contract
from equilidar.data.faults import FaultySweepError
from equilidar.data.listing import content_hash, files_hash
from equilidar.data.recordings import Frame, Run, frame_sweep, read_sweep
from equilidar.data.waymo import WaymoPoints
from equilidar.data.waymo_labels import CLASS_NAMES, LASER_LABELS, NO_LABEL_ZONES, TYPES, WaymoObjects
from equilidar.data.waymo_range_images import LIDARS, NO_LABEL_ZONE, LidarReturn
from equilidar.data.waymo_records import (
    CONTEXT,
    LASERS,
    POSE,
    TIMESTAMP,
    find_segments,
    list_segments,
    read_message,
)
from equilidar.structures import LabelledSweep, SensorContract, Sweep


class _PointsOutsideZones(WaymoPoints):
    """Reads points, those in no-label zones left out: nobody has looked for objects there."""

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "drop_no_label_zones": True}

    def points(self, found: Sequence[LidarReturn]) -> tuple[Tensor, Tensor]:
        xyz, features = super().points(found)
        kept = torch.from_numpy(np.concatenate([part.values[:, NO_LABEL_ZONE] for part in found]) <= 0)
        return xyz[kept], features[kept]


class WaymoLabelled:
    """Frames (10 Hz) with boxes in the vehicle frame.

    Attributes:
        keys: of the frames.
        class_names: classes that are kept, in the order of their label index.
        left_out: segments that cannot be used, and why.

    Raises:
        FileNotFoundError: a folder does not exist, or no segment is in it.
        ValueError: settings are wrong, two files hold the same segment, or no segment can be used.
        ImportError: Waymo's protobuf modules are not installed.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "training",
        segments: Sequence[str] | None = None,
        class_names: Sequence[str] = CLASS_NAMES,
        every: int = 1,
        min_points: int = 1,
        drop_no_label_zones: bool = False,
        accumulate: int = 1,
        channels: Sequence[str] = ("intensity", "elongation"),
        lidars: Sequence[str] = tuple(LIDARS),
        returns: Sequence[int] = (1, 2),
        cache_dir: str | Path | None = None,
    ) -> None:
        """List the frames.

        Args:
            root: folder that holds `training`, `validation`, `testing`.
            split: see `Waymo`.
            segments: see `Waymo`.
            class_names: of Vehicle, Pedestrian, Sign, Cyclist, in the order of their label index.
            every: keep every n-th frame of each segment, its first one included.
            min_points: boxes with fewer points are not given; the evaluation leaves out those without any.
            drop_no_label_zones: leave out the points that lie in zones which were not labelled.
            accumulate: see `Waymo`.
            channels: see `WaymoPoints`.
            lidars: see `WaymoPoints`.
            returns: see `WaymoPoints`.
            cache_dir: see `Waymo`.
        """
        unknown = [name for name in class_names if name not in TYPES]
        if unknown or not class_names or len(set(class_names)) != len(class_names):
            raise ValueError(f"dataset.class_names must be of {', '.join(TYPES)}, got {list(class_names)}")
        for name, value in (("every", every), ("accumulate", accumulate)):
            if value < 1:
                raise ValueError(f"dataset.{name} must be at least 1, got {value}")
        self.name = "waymo"
        self.class_names = tuple(class_names)
        self.min_points = min_points
        self.accumulate = accumulate
        points = _PointsOutsideZones if drop_no_label_zones else WaymoPoints
        self._reader = points(tuple(channels), tuple(lidars), tuple(returns))
        single = self._reader.contract
        self.contract: SensorContract = single if accumulate == 1 else accumulated_contract(single)
        listed, self.left_out = list_segments(find_segments(Path(root), split, segments), cache_dir)
        self._runs = [Run(frames, poses) for frames, poses in listed]
        self._places = [(r, i) for r, run in enumerate(self._runs) for i in range(0, len(run.frames), every)]
        self.keys = [self._frame(index).key for index in range(len(self._places))]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return frame `index` with the boxes of `class_names`; raises FaultySweepError if it cannot be used."""
        run, place = self._places[index]
        frame = self._frame(index)
        message = read_message(frame, (CONTEXT, TIMESTAMP, POSE, LASERS, LASER_LABELS, NO_LABEL_ZONES))
        objects = _objects(message, frame)
        boxes = objects.boxes(self._pose(index), self.class_names, self.min_points, self._segment(index))
        points = self._reader.points(self._reader.measure(message, frame))
        single = frame_sweep(self._runs[run], place, self._reader.contract, *points)
        sweep = read_sweep(self._runs[run], place, self._reader, self.accumulate, known={place: single})
        return LabelledSweep(sweep, boxes)

    def sweep(self, index: int) -> Sweep:
        """Return frame `index`, those before it included if they are accumulated."""
        run, place = self._places[index]
        return read_sweep(self._runs[run], place, self._reader, self.accumulate)

    def objects(self, index: int) -> WaymoObjects:
        """Return every laser label of frame `index`, as the evaluator wants them.

        Raises:
            FaultySweepError: the record or a label is corrupt.
        """
        frame = self._frame(index)
        return _objects(read_message(frame, (CONTEXT, TIMESTAMP, POSE, LASER_LABELS, NO_LABEL_ZONES)), frame)

    def in_no_label_zone(self, index: int) -> Bool[np.ndarray, " N"]:
        """Tell which of the single sweep's points lie in zones that were not labelled, in the order of the points."""
        frame = self._frame(index)
        message = read_message(frame, (CONTEXT, TIMESTAMP, POSE, LASERS))
        found = self._reader.measure(message, frame)
        return np.concatenate([part.values[:, NO_LABEL_ZONE] for part in found]) > 0

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers names, sizes of files and settings."""
        files = files_hash(self.keys, dict.fromkeys(run.frames[0].path for run in self._runs))
        settings = [self._reader.settings, self.accumulate, self.min_points, self.class_names]
        return {
            "name": self.name,
            "num_samples": len(self),
            "num_segments": len(self._runs),
            "accumulate": self.accumulate,
            "class_names": list(self.class_names),
            "left_out": self.left_out,
            "hash": content_hash([files, settings]),
        }

    def _frame(self, index: int) -> Frame:
        run, place = self._places[index]
        return self._runs[run].frames[place]

    def _segment(self, index: int) -> str:
        return self._frame(index).key.split("/")[1]

    def _pose(self, index: int) -> np.ndarray:
        run, place = self._places[index]
        poses = self._runs[run].world_T_sensor
        assert poses is not None
        return poses[place]


def _objects(message: Any, frame: Frame) -> WaymoObjects:
    try:
        return WaymoObjects.from_frame(message)
    except FaultySweepError as error:
        raise FaultySweepError(f"{frame.path}, {frame.key}: {error}") from error
