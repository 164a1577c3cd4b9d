"""Flow of a world in which only the sensor moves."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from equilidar.structures import FlowField, SweepPairBatch


@dataclass(frozen=True)
class RigidFlow:
    """The ego motion's flow: `target_T_source(x) - x`. Right for whatever stands still; label-free, from poses."""

    name: ClassVar[str] = "rigid"
    from_labels: ClassVar[bool] = False

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow; every point is valid."""
        xyz = batch.source.xyz
        flow = batch.target_T_source.apply(xyz, batch.source.offsets) - xyz
        return FlowField(flow, torch.ones_like(xyz[:, 0], dtype=torch.bool), torch.ones_like(xyz[:, 0]))
