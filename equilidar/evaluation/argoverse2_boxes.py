"""Boxes of the Argoverse 2 sensor data set in columns."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.formats.argoverse2_annotations import EVALUATED_CATEGORIES

COMPETITION_CATEGORIES = tuple(sorted(EVALUATED_CATEGORIES))
"""What the detection benchmark evaluates."""

Sweep = tuple[str, int]
"""Log id and time stamp in nanoseconds."""


@dataclass(slots=True)
class Argoverse2Boxes:
    """Boxes in the egovehicle's frame of their sweep, metres, in the order of their file.

    Attributes:
        sweeps: the sweeps that occur, sorted.
        sweep: (N,) index into `sweeps`.
        label: (N,) index into CATEGORIES.
        center: (N, 3) center of the box.
        size: (N, 3) length, width, height.
        rotation: (N, 4) quaternion w, x, y, z.
        score: (N,) confidence; NaN for ground truth.
        num_points: (N,) LiDAR points inside; -1 for detections.
        row: (N,) number of the row in its file.
    """

    sweeps: tuple[Sweep, ...]
    sweep: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    center: Float64[np.ndarray, "N 3"]
    size: Float64[np.ndarray, "N 3"]
    rotation: Float64[np.ndarray, "N 4"]
    score: Float64[np.ndarray, " N"]
    num_points: Int64[np.ndarray, " N"]
    row: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.label)

    def select(self, rows: Bool[np.ndarray, " N"] | Int64[np.ndarray, " M"]) -> "Argoverse2Boxes":
        """Return some of the boxes, of the same sweeps."""
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "sweeps"}
        return type(self)(sweeps=self.sweeps, **columns)

    def renumbered(self, sweeps: tuple[Sweep, ...]) -> "Argoverse2Boxes":
        """Return the same boxes as rows of other sweeps; those of sweeps that are not among them are dropped."""
        place = {sweep: index for index, sweep in enumerate(sweeps)}
        number = np.array([place.get(sweep, -1) for sweep in self.sweeps], dtype=np.int64)
        kept = self.select(number[self.sweep] >= 0) if len(self) else self
        kept.sweep = number[kept.sweep] if len(kept) else kept.sweep
        kept.sweeps = sweeps
        return kept
