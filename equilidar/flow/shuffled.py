"""Flow that belongs to other points: a control."""

from dataclasses import dataclass
from typing import Any

from equilidar.flow.protocol import FlowEstimator, settings_of
from equilidar.structures import FlowField, SweepPairBatch
from equilidar.structures.seeding import random_keys

STREAM_SHUFFLE = 300


@dataclass(frozen=True)
class ShuffledFlow:
    """Deals another estimator's flow anew among the points of each sweep.

    A control: displacements, their number and their sizes stay, only which point moves how is lost. What pretraining
    gains with the estimator beyond what it gains with this is due to the flow.

    Attributes:
        estimator: whose flow is dealt.
        allow_labels: the user's leave, where the estimator's flow is from labels.
    """

    estimator: FlowEstimator
    allow_labels: bool = False

    @property
    def name(self) -> str:
        return f"shuffled_{self.estimator.name}"

    @property
    def from_labels(self) -> bool:
        return self.estimator.from_labels

    @property
    def settings(self) -> dict[str, Any]:
        return {"estimator": self.estimator.name, **settings_of(self.estimator)}

    def check(self, pairs: Any) -> None:
        """Let the estimator refuse pairs."""
        check = getattr(self.estimator, "check", None)
        if check is not None:
            check(pairs)

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the estimator's flow, permuted within each item by the sample's seed."""
        field = self.estimator(batch)
        keys = random_keys(batch.source.offsets, len(field.valid), batch.seeds, STREAM_SHUFFLE)
        order = keys.argsort()
        dealt = order[batch.source.batch_index[order].argsort(stable=True)]
        return FlowField(field.flow[dealt], field.valid[dealt], field.confidence[dealt])
