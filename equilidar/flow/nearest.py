"""Flow from nearest neighbours, after the ego motion is taken out."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from equilidar.ops.neighbors import nearest
from equilidar.structures import FlowField, SweepPairBatch


@dataclass(frozen=True)
class NearestFlow:
    """Ego motion, then to the nearest point of the target sweep: crude, label-free, and quick.

    The residual to the ego motion is no longer than an object can move; below `min_speed` it is set to zero, for
    there it is rather the sensor's sampling than motion (the scene-flow field calls 0.5 m/s dynamic).

    Attributes:
        radius: how far the neighbour may be after the ego motion, metres; beyond, the flow is unknown.
        max_speed: metres per second at which the residual is clipped.
        min_speed: metres per second below which the residual is zero.
    """

    radius: float = 2.0
    max_speed: float = 30.0
    min_speed: float = 0.5
    name: ClassVar[str] = "nearest"
    from_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.radius <= 0 or not 0 <= self.min_speed <= self.max_speed:
            raise ValueError(
                "flow=nearest needs radius > 0 and 0 <= min_speed <= max_speed, got "
                f"radius={self.radius}, min_speed={self.min_speed}, max_speed={self.max_speed}"
            )

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow; confidence falls linearly with the neighbour's distance and is zero at the radius."""
        source, target = batch.source, batch.target
        moved = batch.target_T_source.apply(source.xyz, source.offsets)
        index, distance = nearest(moved, source.offsets, target.xyz, target.offsets, self.radius)
        valid = index >= 0
        if len(target.xyz):
            residual = torch.where(valid[:, None], target.xyz[index.clamp(min=0)] - moved, 0.0)
        else:
            residual = torch.zeros_like(moved)
        gap = batch.gap.abs()[source.batch_index]
        length = residual.norm(dim=1)
        factor = (self.max_speed * gap / length.clamp(min=1e-9)).clamp(max=1.0)
        factor = torch.where(length < self.min_speed * gap, 0.0, factor)
        flow = moved - source.xyz + residual * factor[:, None]
        confidence = torch.where(valid, 1 - distance / self.radius, 0.0)
        return FlowField(flow, valid, confidence)
