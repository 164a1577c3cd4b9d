"""Augmentation of labelled sweeps: one transform on points and boxes."""

import math
from dataclasses import dataclass, field

from equilidar.augment.group import SpatialGroup
from equilidar.structures import GridSpec, LabelledBatch

# Uses of one sample's seed are told apart by number; the pretraining views take 0, 1 and 2.
STREAM_LABELLED = 3


def _default_group() -> SpatialGroup:
    return SpatialGroup((-math.pi / 4, math.pi / 4), (0.95, 1.05), 0.5, (0.0, 0.0))


@dataclass(frozen=True)
class LabelledAugmentation:
    """Moves each sweep and its boxes by one drawn transform.

    Defaults as OpenPCDet trains on KITTI (DATA_AUGMENTOR in cfgs/kitti_models/second.yaml, without gt sampling):
    mirror y -> -y with probability 0.5, rotation within 45 degrees, scale 0.95 to 1.05.

    Attributes:
        grid: boxes whose center is outside of it afterwards are dropped: no detector could find them.
        group: the transforms.
    """

    grid: GridSpec
    group: SpatialGroup = field(default_factory=_default_group)

    def __call__(self, batch: LabelledBatch) -> LabelledBatch:
        """Return the moved batch; the draw follows from each sample's seed alone."""
        transform = self.group.sample(batch.seeds, STREAM_LABELLED).affine()
        boxes = batch.boxes.transformed(transform, trusted=True)
        return LabelledBatch(
            batch.points.transformed(transform),
            boxes.select(self.grid.contains(boxes.center)),
            batch.seeds,
            batch.keys,
        )
