"""No flow: a control."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from equilidar.structures import FlowField, SweepPairBatch


@dataclass(frozen=True)
class ZeroFlow:
    """Each point stays where its sensor saw it, ego motion ignored.

    A control: the temporal branch then asks for invariance over time, as STRL (Huang et al., ICCV 2021) does.
    """

    name: ClassVar[str] = "zero"
    from_labels: ClassVar[bool] = False

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return zeros; every point is valid."""
        xyz = batch.source.xyz
        return FlowField(
            torch.zeros_like(xyz), torch.ones_like(xyz[:, 0], dtype=torch.bool), torch.ones_like(xyz[:, 0])
        )
