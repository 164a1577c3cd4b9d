"""Boxes of the nuScenes detection benchmark in columns, and the official filter.

Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020; configuration detection_cvpr_2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.evaluation.quaternions import rotation_of

CLASS_RANGE = {
    "car": 50.0,
    "truck": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "construction_vehicle": 50.0,
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
"""Metres around the ego vehicle, seen from above, within which a class is evaluated."""

CLASSES = tuple(CLASS_RANGE)
ATTRIBUTES = (
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "cycle.with_rider",
    "cycle.without_rider",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)
NO_ATTRIBUTE = -1
UNKNOWN_POINTS = -1
_IN_RACKS = ("bicycle", "motorcycle")


@dataclass(slots=True)
class NuscenesBoxes:
    """Boxes of S samples in the order of their file, sample by sample. Global frame, metres.

    Attributes:
        samples: tokens of the samples.
        sample: (N,) index into `samples`.
        label: (N,) index into CLASSES.
        center: (N, 3) center of the box.
        size: (N, 3) width, length, height: nuScenes' order.
        rotation: (N, 4) quaternion w, x, y, z.
        velocity: (N, 2) metres per second, NaN where unknown.
        ego_offset: (N, 2) center minus position of the ego vehicle, seen from above, global axes.
        num_points: (N,) LiDAR and radar points inside, UNKNOWN_POINTS for detections.
        score: (N,) confidence, -1 for ground truth.
        attribute: (N,) index into ATTRIBUTES or NO_ATTRIBUTE.
    """

    samples: tuple[str, ...]
    sample: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    center: Float64[np.ndarray, "N 3"]
    size: Float64[np.ndarray, "N 3"]
    rotation: Float64[np.ndarray, "N 4"]
    velocity: Float64[np.ndarray, "N 2"]
    ego_offset: Float64[np.ndarray, "N 2"]
    num_points: Int64[np.ndarray, " N"]
    score: Float64[np.ndarray, " N"]
    attribute: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.label)

    def select(self, rows: Bool[np.ndarray, " N"] | Int64[np.ndarray, " M"]) -> "NuscenesBoxes":
        """Return some of the boxes of the same samples."""
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "samples"}
        return type(self)(samples=self.samples, **columns)

    @classmethod
    def concatenate(cls, parts: "Sequence[NuscenesBoxes]") -> "NuscenesBoxes":
        """Return the boxes of all samples of at least one part, which share none."""
        names = [field.name for field in fields(cls) if field.name not in ("samples", "sample")]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        first = np.cumsum([0, *(len(part.samples) for part in parts)])
        sample = np.concatenate([part.sample + start for part, start in zip(parts, first[:-1], strict=True)])
        return cls(samples=tuple(token for part in parts for token in part.samples), sample=sample, **columns)


@dataclass(slots=True)
class BikeRacks:
    """Annotated bicycle racks: bicycles in them are annotated in part only, so none there counts.

    Attributes:
        sample: (R,) index of the sample.
        center: (R, 3) global frame, metres.
        size: (R, 3) width, length, height.
        rotation: (R, 4) quaternion w, x, y, z.
    """

    sample: Int64[np.ndarray, " R"]
    center: Float64[np.ndarray, "R 3"]
    size: Float64[np.ndarray, "R 3"]
    rotation: Float64[np.ndarray, "R 4"]

    @classmethod
    def none(cls) -> "BikeRacks":
        """Return no racks, for ground truth that says nothing about them."""
        three = np.zeros((0, 3))
        return cls(np.zeros(0, np.int64), three, three, np.zeros((0, 4)))


def filter_boxes(boxes: NuscenesBoxes, racks: BikeRacks) -> NuscenesBoxes:
    """Return the boxes that are evaluated: in their class's range, not without points, not in a bicycle rack."""
    reach = np.array(list(CLASS_RANGE.values()))[boxes.label]
    x, y = boxes.ego_offset.T
    kept = boxes.select((np.sqrt(x * x + y * y) < reach) & (boxes.num_points != 0))
    return kept.select(~_in_rack(kept, racks))


def _in_rack(boxes: NuscenesBoxes, racks: BikeRacks) -> Bool[np.ndarray, " N"]:
    inside = np.zeros(len(boxes), np.bool_)
    order = np.argsort(boxes.sample, kind="stable")
    first = np.searchsorted(boxes.sample[order], racks.sample, "left")
    last = np.searchsorted(boxes.sample[order], racks.sample, "right")
    rotation = rotation_of(racks.rotation)
    for rack in range(len(racks.sample)):
        rows = order[first[rack] : last[rack]]
        along, across, up = ((boxes.center[rows] - racks.center[rack]) @ rotation[rack]).T
        width, length, height = racks.size[rack]
        inside[rows] |= (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (np.abs(up) <= height / 2)
    return inside & np.isin(boxes.label, [CLASSES.index(name) for name in _IN_RACKS])
