"""What a dataset must offer; any class of this shape can be named in a config."""

from typing import Any, Protocol, runtime_checkable

from equilidar.data.listing import content_hash
from equilidar.structures import LabelledSweep, SensorContract, Sweep, SweepPair


@runtime_checkable
class PairDataset(Protocol):
    """Pairs of sweeps for pretraining. Implementations may not be able to reach labels.

    Attributes:
        name: of the data set, first part of each key.
        contract: what the numbers mean.
        keys: one per pair, in index order.
    """

    name: str
    contract: SensorContract
    keys: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SweepPair:
        """Return pair `index`.

        Raises:
            FaultySweepError: one of its sweeps cannot be used.
        """
        ...


@runtime_checkable
class HasSweeps(Protocol):
    """A dataset of pairs that gives its sweeps one by one as well, which packing needs.

    Attributes:
        sweep_keys: "dataset/sequence/frame" of each sweep, in index order.
        sweep_gap: sweeps of a run from a pair's source to its target.
    """

    @property
    def sweep_keys(self) -> list[str]: ...

    @property
    def sweep_gap(self) -> int: ...

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index`, without labels.

        Raises:
            FaultySweepError: it cannot be used.
        """
        ...

    def sweep_runs(self) -> list[range]:
        """Return the indices of each run of consecutive sweeps: a pair lies within one."""
        ...

    def is_target(self, index: int) -> bool:
        """Tell whether sweep `index` may be the target of a pair, in datasets that choose among them."""
        ...


@runtime_checkable
class LabelledDataset(Protocol):
    """Sweeps with boxes, for finetuning and evaluation.

    Attributes:
        class_names: the class of each label index.
    """

    name: str
    class_names: tuple[str, ...]
    contract: SensorContract
    keys: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index`.

        Raises:
            FaultySweepError: it cannot be used.
        """
        ...


@runtime_checkable
class HasProvenance(Protocol):
    """A dataset that knows more of itself than its keys."""

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data: at least `name`, `num_samples`, `hash`."""
        ...


def require_labelled(dataset: PairDataset | LabelledDataset, purpose: str) -> LabelledDataset:
    """Return a dataset of labelled sweeps.

    Raises:
        ValueError: it yields pairs; the message says what `purpose` it was chosen for.
    """
    if not isinstance(dataset, LabelledDataset):
        raise ValueError(f"dataset yields no labelled sweeps but pairs: choose one for {purpose}, as *_labelled")
    return dataset


def provenance_of(dataset: PairDataset | LabelledDataset) -> dict[str, Any]:
    """Return what identifies the data: the dataset's own statement or, without one, a hash of its keys."""
    if isinstance(dataset, HasProvenance):
        return dataset.provenance()
    return {"name": dataset.name, "num_samples": len(dataset), "hash": content_hash(dataset.keys)}
