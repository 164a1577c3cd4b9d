"""Class-balanced resampling of labelled sweeps (CBGS: Zhu et al., arXiv:1908.09492, section 3.1), as OpenPCDet's.

For each class as many sweeps are drawn, with repetition, from those that hold the class: the sum over classes of the
sweeps that hold it, divided by the number of classes. A sweep without any box is never drawn.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from equilidar.data.protocols import LabelledDataset
from equilidar.data.subsets import LabelledSubset


@runtime_checkable
class KnowsLabels(Protocol):
    """A dataset that tells the labels of a sweep without reading its points."""

    def labels(self, index: int) -> Int64[np.ndarray, " M"]:
        """Return the labels of the boxes of sweep `index`."""
        ...


def balanced_pool(dataset: LabelledDataset, seed: int) -> list[int]:
    """Return the indices of an epoch's sweeps, with repetitions; the draw follows from the seed alone.

    Args:
        dataset: labelled sweeps, or a subset of them. Without a method `labels` every sweep is read once.
        seed: of the run.

    Raises:
        ValueError: no sweep has a box of any class.
    """
    holds = np.zeros((len(dataset), len(dataset.class_names)), dtype=np.bool_)
    for index in range(len(dataset)):
        holds[index, _labels(dataset, index)] = True
    rows = [np.flatnonzero(column) for column in holds.T]
    with_class = [own for own in rows if len(own)]
    if not with_class:
        raise ValueError("loader.class_balanced: none of the labelled sweeps holds a box of any class")
    each = sum(len(own) for own in rows) // len(rows)
    rng = np.random.default_rng([seed, len(dataset)])
    return np.concatenate([rng.choice(own, max(each, 1)) for own in with_class]).tolist()


def _labels(dataset: LabelledDataset, index: int) -> Int64[np.ndarray, " M"]:
    if isinstance(dataset, LabelledSubset):
        return _labels(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, KnowsLabels):
        return dataset.labels(index)
    return dataset[index].boxes.label.numpy()
