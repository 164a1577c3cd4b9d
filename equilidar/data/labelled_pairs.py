"""Pairs whose flow is known, for measuring; pretraining never sees them. No pair reader imports this."""

from typing import Any, Protocol, runtime_checkable

from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.data.argoverse2_labelled_pairs import Argoverse2LabelledPairs
from equilidar.data.kitti_raw_labelled_pairs import KittiRawLabelledPairs
from equilidar.data.simulator.dataset import SimulatedPairs
from equilidar.data.simulator.labelled_pairs import SimulatedLabelledPairs
from equilidar.structures import LabelledPair


@runtime_checkable
class LabelledPairs(Protocol):
    """Pairs of sweeps with true flow and whose points are whose.

    Attributes:
        name: of the data set.
        keys: one per pair, in index order.
        pairs: the dataset of the same sweeps without truth, for estimators that read more of it than a pair.
    """

    name: str
    keys: list[str]
    pairs: Any

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledPair:
        """Return pair `index`.

        Raises:
            FaultySweepError: one of its sweeps cannot be used.
        """
        ...


def labelled_pairs(dataset: Any) -> LabelledPairs:
    """Return a dataset's pairs with the truth about them.

    Raises:
        ValueError: there is none for this dataset.
    """
    if isinstance(dataset, SimulatedPairs):
        return SimulatedLabelledPairs(dataset)
    if isinstance(dataset, Argoverse2Flow):
        return Argoverse2LabelledPairs(dataset)
    if isinstance(dataset, KittiRawLabelledPairs):
        return dataset
    raise ValueError(
        f"dataset {getattr(dataset, 'name', type(dataset).__name__)} has no true flow to measure against; take "
        "dataset=simulator, dataset=argoverse2_flow or dataset=kitti_raw_flow"
    )
