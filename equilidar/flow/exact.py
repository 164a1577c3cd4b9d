"""Flow that came with the data: the simulator's own, or a benchmark's annotation."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from equilidar.structures import FlowField, SweepPairBatch


@dataclass(frozen=True)
class ExactFlow:
    """Passes on `batch.flow`. It is from labels: pretraining refuses it unless `allow_labels` is set.

    Attributes:
        allow_labels: the user's leave to pretrain with it.
    """

    allow_labels: bool = False
    name: ClassVar[str] = "exact"
    from_labels: ClassVar[bool] = True

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the given flow.

        Raises:
            ValueError: the batch has none.
        """
        if batch.flow is None or batch.flow_valid is None:
            raise ValueError(
                f"flow=exact: the pairs {', '.join(batch.keys)} carry no flow; use a dataset that gives it (the "
                "simulator) or a label-free source (flow=nearest, flow=rigid)"
            )
        valid = batch.flow_valid & batch.flow.isfinite().all(1)
        flow = torch.where(valid[:, None], batch.flow, 0.0)
        return FlowField(flow, valid, valid.to(flow.dtype))
