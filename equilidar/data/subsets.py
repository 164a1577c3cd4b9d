"""Label fractions: nested, seeded subsets of a labelled dataset, with a hash of what they hold."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.data.atomic_file import atomic_file
from equilidar.data.listing import content_hash
from equilidar.data.protocols import LabelledDataset, provenance_of
from equilidar.structures import LabelledSweep, SensorContract


@dataclass(frozen=True)
class Subset:
    """Which sweeps keep their labels.

    Attributes:
        keys: in the order of the full list.
        hash: of the sorted keys; whatever is built from the labels (a gt-sampling database) carries the same one.
        fraction: of the full list.
        seed: of the draw.
    """

    keys: tuple[str, ...]
    hash: str
    fraction: float
    seed: int

    def save(self, path: Path) -> None:
        """Write the list as JSON, atomically."""
        with atomic_file(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Subset":
        """Read a list that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the hash does not fit the keys: the file was edited.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no label subset {path}")
        content = json.loads(path.read_text())
        subset = cls(tuple(content["keys"]), content["hash"], content["fraction"], content["seed"])
        if subset.hash != content_hash(sorted(subset.keys)):
            raise ValueError(f"{path}: hash {subset.hash} is not that of its keys; the list was edited")
        return subset


def label_subset(keys: Sequence[str], fraction: float, seed: int) -> Subset:
    """Draw round(fraction * len(keys)) keys, at least one.

    The keys are put into one seeded order and its beginning is taken: for one seed 5 % lie inside 10 % inside 20 %. The
    draw depends on the set of keys, not on their order.

    Args:
        keys: names of all labelled sweeps, each once.
        fraction: in (0, 1].
        seed: of the draw.

    Raises:
        ValueError: the fraction is out of range, there are no keys, or one is twice in the list.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"labels.fraction must lie in (0, 1], got {fraction}")
    ordered = sorted(keys)
    if not ordered or len(set(ordered)) != len(ordered):
        raise ValueError(f"label subset: {len(ordered)} keys, {len(ordered) - len(set(ordered))} of them repeated")
    count = max(1, round(fraction * len(ordered)))
    drawn = np.random.default_rng(seed).permutation(len(ordered))[:count]
    chosen = {ordered[i] for i in drawn}
    return Subset(tuple(key for key in keys if key in chosen), content_hash(sorted(chosen)), fraction, seed)


class LabelledSubset:
    """The part of a labelled dataset that keeps its labels.

    Attributes:
        subset: the draw.
        dataset: the whole.
        indices: row of each sweep in the whole.
    """

    def __init__(self, dataset: LabelledDataset, fraction: float = 1.0, seed: int = 0) -> None:
        """Draw the subset; see `label_subset`."""
        self.dataset = dataset
        self.subset = label_subset(dataset.keys, fraction, seed)
        chosen = set(self.subset.keys)
        self.indices = [i for i, key in enumerate(dataset.keys) if key in chosen]
        self.name: str = dataset.name
        self.class_names: tuple[str, ...] = dataset.class_names
        self.contract: SensorContract = dataset.contract
        self.keys = list(self.subset.keys)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> LabelledSweep:
        return self.dataset[self.indices[index]]

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data, the subset included."""
        subset = {"fraction": self.subset.fraction, "seed": self.subset.seed, "hash": self.subset.hash}
        return {**provenance_of(self.dataset), "num_samples": len(self), "labels": subset}
