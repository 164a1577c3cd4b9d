"""Waymo's laser labels, and their boxes in the package's convention. Pair readers may not import this module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError
from equilidar.data.track_ids import track_number
from equilidar.structures import Boxes3D
from equilidar.structures.boxes import wrap_angle

# Of dataset.proto's Frame.
LASER_LABELS, NO_LABEL_ZONES = 6, 7
# Label.Type of label.proto; 0 is unknown.
TYPES = {"Vehicle": 1, "Pedestrian": 2, "Sign": 3, "Cyclist": 4}
CLASS_NAMES = ("Vehicle", "Pedestrian", "Cyclist")
# Up to this many points in its box, an object that the labellers gave no level is of level 2.
_FEW_POINTS = 5


@dataclass(frozen=True)
class WaymoObjects:
    """Laser labels of one frame, in the vehicle frame.

    Attributes:
        ids: names of the objects, unique in their segment.
        types: (M,) 1 vehicle, 2 pedestrian, 3 sign, 4 cyclist, 0 unknown.
        box: (M, 7) center x, y, z, length, width, height, heading.
        velocity: (M, 3) metres per second over ground, along the GLOBAL axes, NaN where unknown.
        num_points: (M,) LiDAR points in the box.
        labelled_difficulty: (M,) level as labelled, 0 where none is.
        no_label_zones: polygons (P, 2) in the GLOBAL frame.
    """

    ids: tuple[str, ...]
    types: NDArray[np.int64]
    box: NDArray[np.float64]
    velocity: NDArray[np.float64]
    num_points: NDArray[np.int64]
    labelled_difficulty: NDArray[np.int64]
    no_label_zones: tuple[NDArray[np.float64], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def difficulty(self) -> NDArray[np.int64]:
        """(M,) level that the evaluation uses: 1 or 2; 0 for boxes without points, which it leaves out.

        Sun et al., CVPR 2020: level 2 has at most five points or is labelled so.
        """
        by_points = np.where(self.num_points > _FEW_POINTS, 1, 2)
        level = np.where(self.labelled_difficulty > 0, self.labelled_difficulty, by_points)
        return np.where(self.num_points > 0, level, 0)

    @classmethod
    def from_frame(cls, frame: Any) -> "WaymoObjects":
        """Take the labels out of a frame's message.

        Raises:
            FaultySweepError: a box holds a number that is not finite, or has no size.
        """
        labels = list(frame.laser_labels)
        numbers = [
            (b.center_x, b.center_y, b.center_z, b.length, b.width, b.height, b.heading)
            for b in (label.box for label in labels)
        ]
        box = np.array(numbers, dtype=np.float64).reshape(-1, 7)
        bad = ~(np.isfinite(box).all(1) & (box[:, 3:6] > 0).all(1))
        if bad.any():
            raise FaultySweepError(f"label {labels[int(bad.argmax())].id} has no valid box: {box[int(bad.argmax())]}")
        return cls(
            tuple(label.id for label in labels),
            np.array([label.type for label in labels], dtype=np.int64),
            box,
            np.array([_velocity(label.metadata) for label in labels], dtype=np.float64).reshape(-1, 3),
            np.array([label.num_lidar_points_in_box for label in labels], dtype=np.int64),
            np.array([label.detection_difficulty_level for label in labels], dtype=np.int64),
            tuple(np.stack([zone.x, zone.y], 1) for zone in frame.no_label_zones),
        )

    def boxes(
        self, world_T_vehicle: NDArray[np.float64], class_names: tuple[str, ...], min_points: int = 0, segment: str = ""
    ) -> Boxes3D:
        """Return the objects of `class_names` as boxes in the vehicle frame; all others are dropped.

        Args:
            world_T_vehicle: (4, 4) pose, for the velocities.
            class_names: of `TYPES`.
            min_points: boxes with fewer points are dropped.
            segment: name of the recording, part of the objects' identity.
        """
        wanted = [TYPES[name] for name in class_names]
        kept = np.flatnonzero(np.isin(self.types, wanted) & (self.num_points >= min_points))
        box = torch.from_numpy(self.box[kept])
        return Boxes3D.make(
            box[:, :3].float(),
            box[:, 3:6].float(),
            wrap_angle(box[:, 6]).float(),
            label=torch.tensor([wanted.index(self.types[i]) for i in kept], dtype=torch.int64),
            velocity=torch.from_numpy(self.velocity[kept] @ world_T_vehicle[:3, :3]).float(),
            track=torch.tensor([track_number(f"{segment}/{self.ids[i]}") for i in kept], dtype=torch.int64),
        )


def _velocity(metadata: Any) -> tuple[float, float, float]:
    if not metadata.HasField("speed_x") or not metadata.HasField("speed_y"):
        return (np.nan, np.nan, np.nan)
    return (metadata.speed_x, metadata.speed_y, metadata.speed_z)
