"""Labelled sweeps from a packed store, and the columns that hold their boxes. No pair reader imports this."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from equilidar.data.listing import content_hash
from equilidar.data.packed_file import PackedFiles
from equilidar.data.packed_index import read_index
from equilidar.structures import Boxes3D, LabelledSweep, ObjectAnnotations, SensorContract

BOXES, ANNOTATIONS = "boxes", "annotations"
_FLOATS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy", "vz")
_INTEGERS = ("label", "track")
_BOX = [*((name, pa.float32()) for name in _FLOATS), *((name, pa.int64()) for name in _INTEGERS)]
_JUDGED = [("difficulty", pa.int64()), ("num_points", pa.int64()), ("occluded", pa.float32())]


def label_fields(with_annotations: bool) -> list[pa.Field]:
    """Return the columns of labels: boxes to learn from and, where a dataset has them, all objects for evaluation."""
    boxes = pa.field(BOXES, pa.list_(pa.struct(_BOX)))
    return [boxes, pa.field(ANNOTATIONS, pa.list_(pa.struct([*_BOX, *_JUDGED])))] if with_annotations else [boxes]


def boxes_column(boxes: Boxes3D) -> pa.Array:
    """Return one sweep's boxes as a column of one row."""
    return _column(_box_values(boxes), _BOX)


def annotations_column(annotations: ObjectAnnotations) -> pa.Array:
    """Return one sweep's objects as a column of one row."""
    judged = [annotations.difficulty, annotations.num_points, annotations.occluded]
    return _column([*_box_values(annotations.boxes), *(column.numpy() for column in judged)], [*_BOX, *_JUDGED])


def _box_values(boxes: Boxes3D) -> list[np.ndarray]:
    columns = torch.cat([boxes.as_tensor(), boxes.velocity], 1).float().numpy()
    return [*columns.T, boxes.label.numpy(), boxes.track.numpy()]


def _column(values: Sequence[np.ndarray], fields: Sequence[tuple[str, pa.DataType]]) -> pa.Array:
    arrays = [pa.array(np.ascontiguousarray(v), kind) for v, (_, kind) in zip(values, fields, strict=True)]
    rows = pa.StructArray.from_arrays(arrays, fields=[pa.field(name, kind) for name, kind in fields])
    return pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)


def _values(row: pa.RecordBatch, column: str) -> dict[str, np.ndarray]:
    rows = row.column(column).flatten()
    # Arrow's arrays cannot be written to; boxes are few.
    return {field.name: rows.field(field.name).to_numpy().copy() for field in rows.type}


def _boxes(values: dict[str, np.ndarray]) -> Boxes3D:
    table = torch.from_numpy(np.stack([values[name] for name in _FLOATS], 1))
    label, track = (torch.from_numpy(values[name]) for name in _INTEGERS)
    return Boxes3D.make(table[:, :3], table[:, 3:6], table[:, 6], label=label, velocity=table[:, 7:], track=track)


class PackedSweeps:
    """Labelled sweeps of a store, in the order of the dataset that was packed.

    Attributes:
        index: of the store.

    Raises:
        FileNotFoundError: no store, or one that is not finished.
        ValueError: a store of another kind or schema version, or a damaged one.
    """

    def __init__(self, root: str | Path) -> None:
        self.index = read_index(Path(root), "labelled")
        self.name: str = self.index.name
        self.class_names: tuple[str, ...] = tuple(self.index.plan["class_names"])
        self.contract: SensorContract = self.index.contract
        columns = self.index.sweeps()
        self.keys: list[str] = columns["key"].tolist()
        self._file, self._row = columns["file"], columns["row"]
        self._files = PackedFiles(self.index.paths, (BOXES, ANNOTATIONS))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with its boxes; raises FaultySweepError where it is damaged."""
        file = self._files[int(self._file[index])]
        row = file.row(int(self._row[index]), self.keys[index])
        return LabelledSweep(file.sweep(row, self.contract), _boxes(_values(row, BOXES)))

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers every byte of the store."""
        about = {"name": self.name, "num_samples": len(self), "class_names": list(self.class_names)}
        return {**about, "hash": content_hash([self.index.hash]), **self.index.provenance()}


class PackedAnnotatedSweeps(PackedSweeps):
    """Labelled sweeps of a store whose source judges its objects for evaluation, as the simulator does."""

    def annotations(self, index: int) -> ObjectAnnotations:
        """Return what an evaluator needs: all objects of sweep `index`, with difficulty, points and occlusion."""
        row = self._files[int(self._file[index])].row(int(self._row[index]), self.keys[index])
        values = _values(row, ANNOTATIONS)
        return ObjectAnnotations(_boxes(values), *(torch.from_numpy(values[name]) for name, _ in _JUDGED))


def open_labelled(root: str | Path) -> PackedSweeps:
    """Open a labelled store: with annotations for an evaluator, if it holds such."""
    has_annotations = read_index(Path(root), "labelled").plan["annotations"]
    return PackedAnnotatedSweeps(root) if has_annotations else PackedSweeps(root)
