"""The part of a labelled dataset that keeps its labels."""

import logging
from pathlib import Path
from typing import Any

from equilidar.data.protocols import LabelledDataset, PairDataset, provenance_of, require_labelled
from equilidar.data.sequences import sequences_of
from equilidar.data.subset_draw import label_subset
from equilidar.data.subset_lists import check_against
from equilidar.structures import LabelledSweep, SensorContract

_LOG = logging.getLogger(__name__)


class LabelledSubset:
    """The part of a labelled dataset that keeps its labels.

    Attributes:
        subset: the draw.
        listed: name of the published lists that the draw was checked against, None where there are none.
        dataset: the whole.
        indices: row of each sweep in the whole.
    """

    def __init__(
        self,
        dataset: LabelledDataset | PairDataset,
        fraction: float = 1.0,
        seed: int = 0,
        *,
        mode: str = "frame",
        sequences: str | Path | None = None,
        lists: str | Path = "auto",
    ) -> None:
        """Draw the subset, and compare it with the published one; see `label_subset`.

        Args:
            dataset: the whole.
            fraction: in (0, 1].
            seed: of the draw.
            mode: draw frames or whole sequences.
            sequences: file or folder that tells sequences apart where keys do not; see `sequences_of`.
            lists: "auto" compares with those published lists that were made from the same index, if there are any; a
                name or path of lists demands that the dataset is theirs.

        Raises:
            ValueError: the dataset has no labels, arguments are out of range, or the draw is not what the lists say;
                both hashes are named.
        """
        dataset = require_labelled(dataset, "finetuning")
        if mode not in ("frame", "sequence"):
            raise ValueError(f"labels.mode must be frame or sequence, got {mode!r}")
        of_keys = sequences_of(dataset.keys, sequences) if mode == "sequence" else None
        self.dataset = dataset
        self.subset = label_subset(dataset.keys, fraction, seed, of_keys)
        self.listed = check_against(str(lists), self.subset, dataset.keys, of_keys)
        chosen = set(self.subset.keys)
        self.indices = [i for i, key in enumerate(dataset.keys) if key in chosen]
        self.name: str = dataset.name
        self.class_names: tuple[str, ...] = dataset.class_names
        self.contract: SensorContract = dataset.contract
        self.keys = list(self.subset.keys)
        checked = f"as published in {self.listed}" if self.listed else "no published list of this index"
        _LOG.info(
            "labels: %d of %d sweeps (fraction %g, seed %d, by %s), hash %s, %s",
            len(self), len(dataset), fraction, seed, mode, self.subset.hash, checked,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> LabelledSweep:
        return self.dataset[self.indices[index]]

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data, the subset included."""
        labels = {**self.subset.identity(), "list": self.listed}
        return {**provenance_of(self.dataset), "num_samples": len(self), "labels": labels}
