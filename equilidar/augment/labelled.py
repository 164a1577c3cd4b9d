"""Augmentation of labelled sweeps: one transform on points and boxes."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.augment.group import SpatialGroup
from equilidar.structures import GridSpec, LabelledBatch, TransformDraw
from equilidar.structures.host_sync import constants
from equilidar.structures.seeding import uniform

# Uses of one sample's seed are told apart by number; the pretraining views take 0, 1 and 2, gt sampling 4.
STREAM_LABELLED = 3
STREAM_LABELLED_TURNS = 5


def _default_group() -> SpatialGroup:
    return SpatialGroup((-math.pi / 4, math.pi / 4), (0.95, 1.05), 0.5, (0.0, 0.0))


@dataclass(frozen=True)
class LabelledAugmentation:
    """Moves each sweep and its boxes by one drawn transform.

    Defaults as OpenPCDet trains on KITTI (DATA_AUGMENTOR in cfgs/kitti_models/second.yaml, without gt sampling):
    mirror y -> -y with probability 0.5, rotation within 45 degrees, scale 0.95 to 1.05. Where OpenPCDet mirrors x and
    y, each with probability 0.5 (nuScenes, Waymo), give a half turn the probability 0.5: x mirrored is y mirrored and
    half a turn.

    Attributes:
        grid: boxes whose center is outside of it afterwards are dropped: no detector could find them.
        group: the transforms.
        half_turn_probability: how often half a turn is added.
        translation_std: standard deviation of a shift along x, y and z that is added, metres.

    Raises:
        ValueError: a probability is none, or a standard deviation is negative.
    """

    grid: GridSpec
    group: SpatialGroup = field(default_factory=_default_group)
    half_turn_probability: float = 0.0
    translation_std: Sequence[float | int] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.half_turn_probability <= 1:
            raise ValueError(f"augment.half_turn_probability must be within 0..1, got {self.half_turn_probability}")
        if len(self.translation_std) != 3 or min(self.translation_std) < 0:
            raise ValueError(f"augment.translation_std must be 3 numbers of at least 0, got {self.translation_std}")

    def __call__(self, batch: LabelledBatch) -> LabelledBatch:
        """Return the moved batch; the draw follows from each sample's seed alone."""
        transform = self.draw(batch.seeds).affine()
        boxes = batch.boxes.transformed(transform, trusted=True)
        return LabelledBatch(
            batch.points.transformed(transform),
            boxes.select(self.grid.contains(boxes.center)),
            batch.seeds,
            batch.keys,
        )

    def draw(self, seeds: Tensor) -> TransformDraw:
        """Draw the transform of each sample from its seed."""
        draw = self.group.sample(seeds, STREAM_LABELLED)
        numbers = uniform(seeds, STREAM_LABELLED_TURNS, 7)
        half_turn = (numbers[:, 0] < self.half_turn_probability).float() * math.pi
        spread = constants(self.translation_std, device=seeds.device, dtype=torch.float32)
        shift = draw.translation + spread * _normal(numbers[:, 1:])
        return dataclasses.replace(draw, yaw=draw.yaw + half_turn, translation=shift)


def _normal(uniforms: Float[Tensor, "B 6"]) -> Float[Tensor, "B 3"]:
    """Return standard normal numbers from pairs of uniform ones of [0, 1) (Box & Muller 1958)."""
    radius = torch.sqrt(-2 * torch.log1p(-uniforms[:, :3]))
    return radius * torch.cos(2 * math.pi * uniforms[:, 3:])
