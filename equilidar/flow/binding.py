"""Estimators that read more than the batch: they are given the dataset first."""

from typing import Protocol, runtime_checkable

from equilidar.flow.protocol import FlowEstimator


@runtime_checkable
class BindsToDataset(Protocol):
    """An estimator that needs the dataset which its batches come from."""

    def bound_to(self, dataset: object, /) -> FlowEstimator:
        """Return the estimator for pairs of a dataset; raises ValueError where it cannot work with it."""
        ...


def bound(estimator: FlowEstimator, dataset: object) -> FlowEstimator:
    """Give an estimator the dataset that its batches will come from, if it asks for one."""
    return estimator.bound_to(dataset) if isinstance(estimator, BindsToDataset) else estimator
