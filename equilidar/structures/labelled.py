"""Sweeps with boxes, and boxes that were found. Pretraining code may not import this module."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.structures.boxes import Boxes3D
from equilidar.structures.moving import Movable
from equilidar.structures.points import PointCloudBatch
from equilidar.structures.sweeps import Sweep, SweepPair


@dataclass(slots=True)
class LabelledSweep:
    """A sweep and its boxes (a batch of one), in the sweep's frame.

    Attributes:
        sweep: what was measured.
        boxes: to be learned.
        obstacles: labelled objects of other classes, no target; nothing may be pasted onto them. None: none are known.
    """

    sweep: Sweep
    boxes: Boxes3D
    obstacles: Boxes3D | None = None

    @property
    def key(self) -> str:
        return self.sweep.key


@dataclass(slots=True)
class LabelledPair:
    """Two sweeps whose scene flow is known, with what an evaluator needs to know of each source point.

    Attributes:
        pair: the sweeps, with `flow` and `flow_valid`.
        rest: (N, 3) metres: the flow that the point would have if it stood still over ground.
        dynamic: (N,) bool: it moves over ground at more than 0.5 m/s.
        category: (N,) int64 index of Argoverse 2's scene-flow benchmark (from 1 on), 0 for background.
        instance: (N,) int64 number of the object in its recording, -1 for background.
        ground: (N,) bool: lies on the ground; None where that is not known.
    """

    pair: SweepPair
    rest: Float[Tensor, "N 3"]
    dynamic: Bool[Tensor, " N"]
    category: Int64[Tensor, " N"]
    instance: Int64[Tensor, " N"]
    ground: Bool[Tensor, " N"] | None = None

    @property
    def key(self) -> str:
        return self.pair.key


@dataclass(slots=True)
class LabelledBatch(Movable):
    """B labelled sweeps.

    Attributes:
        points: the clouds.
        boxes: their boxes, `boxes.offsets` over the same items.
        seeds: (B,) int64, each sample's own seed.
        keys: sweep keys.
    """

    points: PointCloudBatch
    boxes: Boxes3D
    seeds: Int64[Tensor, " B"]
    keys: tuple[str, ...]

    @property
    def batch_size(self) -> int:
        return len(self.keys)

    @classmethod
    def collate(
        cls,
        items: list[LabelledSweep],
        seeds: list[int] | None = None,
        concatenate: Callable[[list[Tensor]], Tensor] = torch.cat,
    ) -> "LabelledBatch":
        """Concatenate, points by `concatenate`; `seeds` default to 0, 1, 2 ..."""
        return cls(
            PointCloudBatch.collate([item.sweep.points() for item in items], concatenate),
            Boxes3D.collate([item.boxes for item in items]),
            torch.tensor(range(len(items)) if seeds is None else seeds, dtype=torch.int64),
            tuple(item.key for item in items),
        )

    def split(self) -> "list[LabelledBatch]":
        """Return the items as batches of one; the inverse of `collate`. Reads the offsets on the host."""
        parts = zip(self.points.split(), self.boxes.split(), self.seeds.split(1), self.keys, strict=True)
        return [LabelledBatch(points, boxes, seed, (key,)) for points, boxes, seed, key in parts]


@dataclass(slots=True)
class ObjectAnnotations(Movable):
    """Everything that an evaluator needs to know of one sweep's objects (simulator and own logs).

    Attributes:
        boxes: ground truth (a batch of one).
        difficulty: (M,) int64: 0 easy, 1 moderate, 2 hard, 3 too hard to count (may be found, need not be).
        num_points: (M,) int64 returns on the object.
        occluded: (M,) 0..1 fraction of the object hidden by others.
    """

    boxes: Boxes3D
    difficulty: Int64[Tensor, " M"]
    num_points: Int64[Tensor, " M"]
    occluded: Float[Tensor, " M"]


@dataclass(slots=True)
class Detections(Movable):
    """Boxes found by a detector.

    Attributes:
        boxes: oriented boxes, `label` the class index.
        scores: (M,) confidence in 0..1.
        finite: (B,) bool, whether all that the detector said of a sweep was finite: where it was not, that nothing was
            found says nothing. None: nobody looked.
    """

    boxes: Boxes3D
    scores: Float[Tensor, " M"]
    finite: Bool[Tensor, " B"] | None = None

    @property
    def offsets(self) -> Int64[Tensor, " B1"]:
        return self.boxes.offsets
