"""Feather files of Argoverse 2: annotations of logs, and detections.

A row has timestamp_ns, category, tx_m, ty_m, tz_m (center, egovehicle's frame), length_m, width_m, height_m, qw, qx,
qy, qz; annotations have num_interior_pts, detections score. Detections name their log in log_id; an annotation file
that does not lies in a folder that is named after the log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from equilidar.atomic_file import atomic_file
from equilidar.evaluation.argoverse2_boxes import Argoverse2Boxes, Sweep
from equilidar.formats.argoverse2_annotations import CATEGORIES

if TYPE_CHECKING:
    from jaxtyping import Float64

_BOX = ("tx_m", "ty_m", "tz_m", "length_m", "width_m", "height_m", "qw", "qx", "qy", "qz")
_ANNOTATIONS = "annotations.feather"


def read_annotations(path: Path) -> Argoverse2Boxes:
    """Read ground truth.

    Args:
        path: a file of annotations, the folder of a log, or a folder of logs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not in the format; the message names file, column or row and what is wrong.
    """
    return _join([_read_boxes(file, "num_interior_pts") for file in annotation_files(path)])


def read_detections(path: Path) -> Argoverse2Boxes:
    """Read detections: a feather file, or all of a folder; raises as `read_annotations`."""
    files = [path] if path.is_file() else sorted(path.rglob("*.feather"))
    if not files:
        raise FileNotFoundError(f"no feather file {path}, nor any in a folder of that name")
    return _join([_read_boxes(file, "score") for file in files])


def annotation_files(path: Path) -> list[Path]:
    """Return the annotation files that `path` stands for."""
    if path.is_file():
        return [path]
    files = [path / _ANNOTATIONS] if (path / _ANNOTATIONS).is_file() else sorted(path.glob(f"*/{_ANNOTATIONS}"))
    if not files:
        raise FileNotFoundError(f"no feather file {path}, nor {_ANNOTATIONS} in it or in folders of logs below it")
    return files


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Read some columns of a feather file.

    Args:
        path: the file.
        columns: what it must have.
        optional: what is read, too, if it is there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no feather file, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        table = pyarrow.feather.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no feather file: {error}") from None
    if missing := [name for name in columns if name not in table.column_names]:
        raise ValueError(
            f"{path} has {len(table.column_names)} columns without {', '.join(missing)}; it needs {', '.join(columns)}"
        )
    return table.select([*columns, *(name for name in optional if name in table.column_names)])


def numbers_of(table: pa.Table, names: Sequence[str], path: Path) -> "Float64[np.ndarray, 'N C']":
    """Return columns as float64; a row with a null or a number that is not finite is a ValueError."""
    values = np.empty((table.num_rows, len(names)))
    for index, name in enumerate(names):
        column = table[name]
        if not (
            pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
        ):
            raise ValueError(f"{path}: column {name} holds {column.type}, expected numbers")
        values[:, index] = column.to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        row, index = np.argwhere(~finite)[0]
        raise ValueError(f"{path}: row {row}: {names[index]} is {values[row, index]}")
    return values


def _read_boxes(path: Path, last: str) -> Argoverse2Boxes:
    is_annotation = last == "num_interior_pts"
    needed = ("timestamp_ns", "category", *_BOX, last)
    table = read_table(path, needed, optional=["log_id"]) if is_annotation else read_table(path, ("log_id", *needed))
    values = numbers_of(table, (*_BOX, last), path)
    if (values[:, 3:6] <= 0).any():
        row = int(np.argmax((values[:, 3:6] <= 0).any(1)))
        raise ValueError(f"{path}: row {row}: size {values[row, 3:6].tolist()} is negative or zero")
    if not values[:, 6:10].any(1).all():
        raise ValueError(f"{path}: row {int(np.argmin(values[:, 6:10].any(1)))}: the quaternion is zero")
    num = table.num_rows
    has_log = "log_id" in table.column_names
    log = table["log_id"] if has_log else pa.chunked_array([pa.array([path.resolve().parent.name] * num, pa.string())])
    sweeps, sweep = _number_sweeps(log, table["timestamp_ns"], path)
    return Argoverse2Boxes(
        sweeps,
        sweep,
        _labels(table["category"], path),
        *(values[:, :3], values[:, 3:6], values[:, 6:10]),
        np.full(num, np.nan) if is_annotation else values[:, 10],
        values[:, 10].astype(np.int64) if is_annotation else np.full(num, -1),
        np.arange(num),
    )


def _labels(category: pa.ChunkedArray, path: Path) -> np.ndarray:
    index = pc.index_in(category.cast(pa.string()), pa.array(CATEGORIES))  # pyright: ignore[reportAttributeAccessIssue]
    if index.null_count:
        row = index.to_numpy(zero_copy_only=False)
        place = int(np.argmax(np.isnan(row.astype(np.float64))))
        raise ValueError(
            f"{path}: row {place}: unknown class {category[place].as_py()!r}, known are {', '.join(CATEGORIES)}"
        )
    return index.to_numpy().astype(np.int64)


def _number_sweeps(log: pa.ChunkedArray, stamp: pa.ChunkedArray, path: Path) -> tuple[tuple[Sweep, ...], np.ndarray]:
    if log.null_count or stamp.null_count:
        raise ValueError(f"{path}: a row has no log_id or no timestamp_ns")
    encoded = log.cast(pa.string()).combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(names)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    stamps, which = np.unique(stamp.to_numpy().astype(np.int64), return_inverse=True)
    keys, sweep = np.unique(rank[encoded.indices.to_numpy()] * len(stamps) + which, return_inverse=True)
    log_of_key, stamp_of_key = np.divmod(keys, max(len(stamps), 1))
    sweeps = zip(names[order][log_of_key].tolist(), stamps[stamp_of_key].tolist(), strict=True)
    return tuple(sweeps), sweep.astype(np.int64)


def _join(parts: list[Argoverse2Boxes]) -> Argoverse2Boxes:
    if len(parts) == 1:
        return parts[0]
    sweeps = tuple(sorted({sweep for part in parts for sweep in part.sweeps}))
    parts = [part.renumbered(sweeps) for part in parts]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("sweep", "label", "center", "size", "rotation", "score", "num_points", "row")
    }
    return Argoverse2Boxes(sweeps=sweeps, **columns)


def write_detections(path: Path, boxes: Argoverse2Boxes) -> None:
    """Write detections as the official evaluation takes them."""
    log, stamp = zip(*(boxes.sweeps[index] for index in boxes.sweep.tolist()), strict=True) if len(boxes) else ((), ())
    columns = {
        "log_id": pa.array(log, pa.string()),
        "timestamp_ns": pa.array(stamp, pa.int64()),
        "category": pa.array([CATEGORIES[label] for label in boxes.label.tolist()], pa.string()),
        **dict(zip(_BOX, np.concatenate([boxes.center, boxes.size, boxes.rotation], 1).T, strict=True)),
        "score": boxes.score,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        pyarrow.feather.write_feather(pa.table(columns), file)
