"""Objects cut out of exactly one label subset, in one memory-mapped file that carries the subset's hash.

One Arrow IPC file instead of a file per object: loader workers share its pages, and start without reading it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Int64

from equilidar.atomic_file import atomic_file
from equilidar.data.faults import Fault, FaultySweepError
from equilidar.data.protocols import provenance_of
from equilidar.data.subsets import LabelledSubset
from equilidar.ops.points_in_boxes import membership
from equilidar.structures import LabelledSweep, SensorContract

_FORMAT = "equilidar-gt-database-1"
_META = b"equilidar"
_OBJECTS_PER_BATCH = 512
UNKNOWN_DIFFICULTY = -1
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int16()),
        ("difficulty", pa.int8()),
        ("box", pa.list_(pa.float32(), 7)),
        ("velocity", pa.list_(pa.float32(), 3)),
        ("points", pa.list_(pa.float32())),
    ]
)


@runtime_checkable
class HasDifficulties(Protocol):
    """A labelled dataset that knows how hard its objects are."""

    def difficulties(self, index: int) -> Int64[torch.Tensor, " M"]:
        """Return 0 easy, 1 moderate, 2 hard, 3 too hard to count, for each box of sweep `index`."""
        ...


@dataclass(frozen=True)
class BuiltDatabase:
    """What was written.

    Attributes:
        counts: objects by class.
        faults: sweeps that could not be read.
    """

    path: Path
    counts: dict[str, int]
    faults: list[Fault]


def build_gt_database(subset: LabelledSubset, path: Path) -> BuiltDatabase:
    """Cut every object with at least one point out of the sweeps of a label subset and write them to one file.

    Args:
        subset: whose labels may be used.
        path: the file; it appears whole or not at all.

    Raises:
        ValueError: the subset holds no object.
    """
    meta = {
        "format": _FORMAT,
        "labels": subset.subset.identity(),
        "class_names": subset.class_names,
        "contract": asdict(subset.contract),
        "data": provenance_of(subset),
    }
    schema = _SCHEMA.with_metadata({_META: json.dumps(meta, sort_keys=True).encode()})
    counts = dict.fromkeys(subset.class_names, 0)
    faults: list[Fault] = []
    rows: list[dict[str, Any]] = []
    with atomic_file(path) as file, pa.ipc.new_file(file, schema) as writer:
        for index in range(len(subset)):
            try:
                item = subset[index]
            except FaultySweepError as error:
                faults.append(Fault(subset.keys[index], str(error)))
                continue
            for row in _objects(item, _difficulties(subset, index, len(item.boxes))):
                counts[subset.class_names[row["label"]]] += 1
                rows.append(row)
            if len(rows) >= _OBJECTS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
        if not sum(counts.values()):
            raise ValueError(
                f"gt database: the {len(subset)} sweeps of subset {subset.subset.hash} hold no object with a point"
            )
    return BuiltDatabase(path, counts, faults)


def _objects(item: LabelledSweep, difficulty: Int64[torch.Tensor, " M"]) -> Iterator[dict[str, Any]]:
    boxes = item.boxes.as_tensor().float()
    cloud = torch.cat([item.sweep.xyz, item.sweep.features], 1)
    for row, inside in enumerate(membership(item.sweep.xyz, boxes)):
        if bool(inside.any()):
            yield {
                "key": item.key,
                "label": int(item.boxes.label[row]),
                "difficulty": int(difficulty[row]),
                "box": boxes[row].numpy(),
                "velocity": item.boxes.velocity[row].numpy(),
                "points": cloud[inside].reshape(-1).numpy(),
            }


def _difficulties(subset: LabelledSubset, index: int, num: int) -> Int64[torch.Tensor, " M"]:
    if isinstance(subset.dataset, HasDifficulties):
        return subset.dataset.difficulties(subset.indices[index])
    return torch.full((num,), UNKNOWN_DIFFICULTY, dtype=torch.int64)


class GtDatabase:
    """An open database. Small columns are in memory, points are mapped; a copy in another process opens the file anew.

    Attributes:
        labels: fraction, seed, mode and hash of the subset that it was built from.
        class_names: of the labels.
        contract: meaning of the points' columns.
        keys: sweep of each object.
        label: (M,) class index.
        difficulty: (M,) 0 easy to 3 too hard, -1 where the dataset does not say.
        box: (M, 7) float32 x, y, z of the center, length, width, height, yaw, in the sensor's frame.
        velocity: (M, 3) float32, NaN where unknown.
        num_points: (M,) points in each box.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no gt database.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"no gt database {self.path}: build it from the same labels with python tools/gt_database.py "
                "dataset=... name=... labels.fraction=... labels.seed=..., which says where it writes; "
                "or set gt_sampling.database, or gt_sampling=none"
            )
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
            meta = json.loads((reader.schema.metadata or {})[_META])
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            if meta["format"] != _FORMAT:
                raise KeyError(meta["format"])
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise ValueError(f"{self.path} is no whole gt database ({type(error).__name__}: {error})") from error
        self.labels: dict[str, Any] = meta["labels"]
        self.data: dict[str, Any] = meta["data"]
        self.class_names = tuple(meta["class_names"])
        contract = meta["contract"]
        self.contract = SensorContract(tuple(contract["channels"]), tuple(contract["scales"]), contract["frame"])
        table = pa.Table.from_batches(batches)
        self.keys: list[str] = table["key"].to_pylist()
        self.label = table["label"].to_numpy().astype(np.int64)
        self.difficulty = table["difficulty"].to_numpy().astype(np.int64)
        self.box = _flat(table, "box").reshape(-1, 7)
        self.velocity = _flat(table, "velocity").reshape(-1, 3)
        # Values and offsets of each batch's points: views of the file.
        self._points = [(batch.column("points").values.to_numpy(), _offsets(batch)) for batch in batches]
        self._first = np.cumsum([0, *[len(batch) for batch in batches]])
        counts = [np.diff(offsets) for _, offsets in self._points]
        self.num_points: np.ndarray = np.concatenate(counts) // (3 + len(self.contract.channels))

    @property
    def hash(self) -> str:
        """Of the label subset that it was built from."""
        return self.labels["hash"]

    def __len__(self) -> int:
        return len(self.label)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def points(self, row: int) -> Float32[np.ndarray, "N C"]:
        """Return x, y, z and the features of an object's points, in the sensor's frame; read-only."""
        batch = int(np.searchsorted(self._first, row, side="right")) - 1
        values, offsets = self._points[batch]
        start, stop = offsets[row - self._first[batch] : row - self._first[batch] + 2]
        return values[start:stop].reshape(-1, 3 + len(self.contract.channels))

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the database."""
        counts = np.bincount(self.label, minlength=len(self.class_names)).tolist()
        return {"labels": self.labels, "num_objects": dict(zip(self.class_names, counts, strict=True))}


def _flat(table: pa.Table, name: str) -> np.ndarray:
    return np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table[name].chunks])


def _offsets(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column("points").offsets.to_numpy()
