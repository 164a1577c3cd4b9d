"""What a source of scene flow is, and the rule that pretraining sees no labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from equilidar.structures import FlowField, SweepPairBatch


@runtime_checkable
class FlowEstimator(Protocol):
    """Gives the scene flow of the source points of a batch (see `equilidar.structures.sweeps` for the convention).

    Attributes:
        name: how caches and reports call it.
        from_labels: whether annotations went into it, if only through another's hands.
    """

    @property
    def name(self) -> str: ...

    @property
    def from_labels(self) -> bool: ...

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return flow, validity and confidence for each point of `batch.source`, on its device."""
        ...


def check_label_free(estimator: FlowEstimator, allow_labels: bool = False) -> None:
    """Refuse a flow that came from labels, unless that is asked for.

    Args:
        estimator: the source of flow.
        allow_labels: the user's leave; an estimator's own `allow_labels` counts as well.

    Raises:
        ValueError: the flow is from labels and there is no leave.
    """
    if estimator.from_labels and not (allow_labels or getattr(estimator, "allow_labels", False)):
        raise ValueError(
            f"flow={estimator.name} is derived from labels, so what is pretrained with it is not label-free; choose "
            "flow=nearest or flow=rigid, or set flow.allow_labels=true (stamped on the checkpoint and the report)"
        )


def check_teacher(estimator: FlowEstimator, pairs: Any) -> None:
    """Refuse a source of flow that may not teach, or cannot teach from these pairs, before a run begins.

    Args:
        estimator: the source of flow; where it has a method `check(pairs)`, that is asked.
        pairs: what is trained on: `keys`, and pairs by index.

    Raises:
        FileNotFoundError: a cache that lacks pairs.
        ValueError: the flow is from labels and there is no leave, or belongs to other sweeps.
    """
    check_label_free(estimator)
    check = getattr(estimator, "check", None)
    if check is not None:
        check(pairs)


def settings_of(estimator: FlowEstimator) -> dict[str, Any]:
    """Return the settings that decide an estimator's output, as JSON holds them.

    Raises:
        ValueError: it is neither a dataclass nor has an attribute `settings`.
    """
    stated = getattr(estimator, "settings", None)
    if isinstance(stated, Mapping):
        return dict(stated)
    if dataclasses.is_dataclass(estimator) and not isinstance(estimator, type):
        return dataclasses.asdict(estimator)
    raise ValueError(f"flow {estimator.name}: cannot tell its settings; make it a dataclass or give it `settings`")
