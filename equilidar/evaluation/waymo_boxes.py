"""Boxes of the Waymo Open Dataset in columns."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

TYPES = ("VEHICLE", "PEDESTRIAN", "SIGN", "CYCLIST")
"""Names of the object types 1 to 4; type 0 is unknown and never evaluated."""

LEVELS = (1, 2)


@dataclass(slots=True)
class WaymoBoxes:
    """Objects in the vehicle's frame (x forward, y left, z up) of their frame, metres, in the order of their file.

    Attributes:
        frames: names of the frames that occur: context and time stamp, or a number.
        frame: (N,) index into `frames`.
        kind: (N,) type, 1 to 4 as in TYPES, 0 unknown.
        box: (N, 7) center x, y, z, length, width, height, heading.
        score: (N,) confidence, single precision as the official tool compares it; 1 for ground truth.
        difficulty: (N,) 1 or 2, 0 where that was not labelled.
        num_points: (N,) LiDAR points inside, of ground truth.
        speed: (N,) metres per second over ground, of ground truth.
        in_no_label_zone: (N,) the detection overlaps a zone without labels.
    """

    frames: tuple[str, ...]
    frame: Int64[np.ndarray, " N"]
    kind: Int64[np.ndarray, " N"]
    box: Float64[np.ndarray, "N 7"]
    score: Float32[np.ndarray, " N"]
    difficulty: Int64[np.ndarray, " N"]
    num_points: Int64[np.ndarray, " N"]
    speed: Float64[np.ndarray, " N"]
    in_no_label_zone: Bool[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.kind)

    def select(self, rows: Bool[np.ndarray, " N"] | Int64[np.ndarray, " M"]) -> "WaymoBoxes":
        """Return some of the boxes, of the same frames."""
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "frames"}
        return type(self)(frames=self.frames, **columns)

    def renumbered(self, frames: tuple[str, ...]) -> "WaymoBoxes":
        """Return the same boxes as rows of other frames, among which theirs must be."""
        place = {frame: index for index, frame in enumerate(frames)}
        number = np.array([place[frame] for frame in self.frames], dtype=np.int64)
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**(columns | {"frames": frames, "frame": number[self.frame]}))
