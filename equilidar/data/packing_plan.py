"""What is to be packed: the sweeps of a dataset, dealt into files, and the settings that a store is stamped with."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from equilidar.data.listing import content_hash
from equilidar.data.packed_file import sweep_row, sweep_schema
from equilidar.data.packed_index import SCHEMA_VERSION, StoreKind
from equilidar.data.packed_labelled import ANNOTATIONS, BOXES, annotations_column, boxes_column, label_fields
from equilidar.data.protocols import HasSweeps, LabelledDataset, PairDataset, provenance_of
from equilidar.structures.boxes import BOX_CONVENTION


@dataclass(frozen=True, slots=True)
class PackingUnit:
    """A file to be written: sweeps of one sequence.

    Attributes:
        name: of the file, without suffix.
        sequence: "dataset/sequence".
        indices: of the sweeps in the dataset.
    """

    name: str
    sequence: str
    indices: tuple[int, ...]

    @property
    def hash(self) -> str:
        """Tells whether a file is of these sweeps."""
        return content_hash([SCHEMA_VERSION, self.name, self.sequence, self.indices])


class PackingSource:
    """A dataset as packing sees it: sweeps by index, of pairs without labels or of a labelled dataset with its boxes.

    Attributes:
        kind: of store.
        keys: of the sweeps.
        indices: of those that are packed: where not every sweep may be the target of a pair, those that are in one.
        is_target: for every sweep.
        schema: of the files.

    Raises:
        ValueError: the dataset gives no sweeps, or flow that comes from labels.
    """

    def __init__(self, dataset: PairDataset | LabelledDataset) -> None:
        self.dataset = dataset
        self.annotated = hasattr(dataset, "annotations")
        if isinstance(dataset, LabelledDataset):
            self.kind: StoreKind = "labelled"
            self.keys, self.runs, self.gap = list(dataset.keys), [range(len(dataset))], 0
            self.indices, self.is_target = list(range(len(dataset))), [False] * len(dataset)
            self.schema = sweep_schema(dataset.contract, label_fields(self.annotated))
            return
        if not isinstance(dataset, HasSweeps):
            raise ValueError(f"dataset {dataset.name} cannot be packed: it does not give its sweeps one by one")
        if getattr(dataset, "from_labels", False):
            raise ValueError(
                f"dataset {dataset.name} gives flow that comes from labels, and a store for pretraining holds none: "
                "pack it without (dataset.exact_flow=false, or the dataset of the same name without flow)"
            )
        self.kind = "pairs"
        self.keys, self.runs, self.gap = dataset.sweep_keys, dataset.sweep_runs(), dataset.sweep_gap
        self.is_target = [dataset.is_target(index) for index in range(len(self.keys))]
        self.indices = list(range(len(self.keys))) if all(self.is_target) else self._in_pairs()
        self.schema = sweep_schema(dataset.contract)

    def _in_pairs(self) -> list[int]:
        targets = [index for run in self.runs for index in run[self.gap :] if self.is_target[index]]
        return sorted({*targets, *(index - self.gap for index in targets)})

    def row(self, index: int) -> dict[str, pa.Array]:
        """Return sweep `index` as a row of a file; raises FaultySweepError where it cannot be used."""
        if isinstance(self.dataset, LabelledDataset):
            item = self.dataset[index]
            row = {**sweep_row(item.sweep), BOXES: boxes_column(item.boxes)}
            if self.annotated:
                row[ANNOTATIONS] = annotations_column(self.dataset.annotations(index))  # pyright: ignore
            return row
        assert isinstance(self.dataset, HasSweeps)
        return sweep_row(self.dataset.sweep(index))

    def units(self, sweeps_per_file: int) -> list[PackingUnit]:
        """Deal the sweeps into files: by sequence, long ones cut."""
        sequences: dict[str, list[int]] = {}
        for index in self.indices:
            sequences.setdefault(self.keys[index].rpartition("/")[0], []).append(index)
        parts = [
            (sequence, tuple(indices[start : start + sweeps_per_file]))
            for sequence, indices in sequences.items()
            for start in range(0, len(indices), sweeps_per_file)
        ]
        return [PackingUnit(f"{n:05d}-{_plain(name)}", name, indices) for n, (name, indices) in enumerate(parts)]

    def places(self) -> list[tuple[int, int]]:
        """Return run and position in it of each sweep."""
        return [(number, position) for number, run in enumerate(self.runs) for position in range(len(run))]

    def plan(self, sweeps_per_file: int) -> dict[str, Any]:
        """Return everything that decides what is in the store, as JSON gives it back."""
        contract, labelled = self.dataset.contract, isinstance(self.dataset, LabelledDataset)
        plan = {
            "name": self.dataset.name,
            "contract": {"channels": contract.channels, "scales": contract.scales, "frame": contract.frame},
            "class_names": self.dataset.class_names if isinstance(self.dataset, LabelledDataset) else None,
            "box_convention": BOX_CONVENTION if labelled else None,
            "annotations": labelled and self.annotated,
            "gap": self.gap,
            "sweeps_per_file": sweeps_per_file,
            "source": provenance_of(self.dataset),
        }
        return json.loads(json.dumps(plan, default=str))


def differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the values that two plans do not share."""
    names: list[str] = []
    for name in sorted({*one, *other}):
        left, right = one.get(name), other.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            names += differing(left, right, f"{prefix}{name}.")
        elif left != right:
            names.append(prefix + name)
    return names


def _plain(sequence: str) -> str:
    """Return the last part of a sequence's name as it may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", sequence.rpartition("/")[2])[:80]


def spread(number: int, wanted: int) -> Sequence[int]:
    """Return up to `wanted` indices, evenly over `number` of them."""
    return sorted({round(i * (number - 1) / max(wanted - 1, 1)) for i in range(min(wanted, number))})
