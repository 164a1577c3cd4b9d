"""Files of scene flow: Argoverse 2's annotations and submissions (folders or a zip of feather files), and .npz.

Annotations LOG/STAMP.feather have category_indices, is_close, is_dynamic, is_valid, flow_tx_m, flow_ty_m, flow_tz_m
for each point; submissions have flow_tx_m, flow_ty_m, flow_tz_m, is_dynamic under the same names. An .npz holds both
sides of examples 0 to n_examples - 1: category_indices_I, is_close_I, is_dynamic_I, is_valid_I, gt_flow_I and
pred_flow_I, pred_dynamic_I.
"""

import abc
import io
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.feather

from equilidar.evaluation.scene_flow import CATEGORY_TO_INDEX, FlowExample

_FLOW = ("flow_tx_m", "flow_ty_m", "flow_tz_m")
_TRUTH = ("category_indices", "is_close", "is_dynamic", "is_valid")


@runtime_checkable
class FlowSource(Protocol):
    """Examples by name, with the arrays of one side."""

    def names(self) -> list[str]:
        """Return the names of the examples."""
        ...

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of an example: `flow` (N, 3) float64 and the flags of this side."""
        ...


def open_flow(path: Path, *, is_estimate: bool) -> FlowSource:
    """Open one side.

    Raises:
        FileNotFoundError: there is no such file or folder, or nothing in it.
    """
    if path.is_dir():
        return _Folder(path, is_estimate)
    if not path.is_file():
        raise FileNotFoundError(f"no file or folder {path}")
    return _Npz(path, is_estimate) if path.suffix == ".npz" else _Zip(path, is_estimate)


def read_truth(source: FlowSource, name: str) -> FlowExample:
    """Return an example with no estimate yet (NaN).

    Raises:
        ValueError: arrays differ in length, a category is unknown, or the flow of a valid point is not finite.
    """
    arrays = source.arrays(name)
    num = len(arrays["flow"])
    for key in _TRUTH:
        if arrays[key].shape != (num,):
            raise ValueError(f"example {name}: {key} has shape {arrays[key].shape}, the flow has {num} points")
    category = arrays["category_indices"].astype(np.int64)
    if ((category < 0) | (category >= len(CATEGORY_TO_INDEX))).any():
        bad = category[(category < 0) | (category >= len(CATEGORY_TO_INDEX))][0]
        raise ValueError(f"example {name}: unknown class {bad}, known are 0 to {len(CATEGORY_TO_INDEX) - 1}")
    close, dynamic, valid = (arrays[key].astype(np.bool_) for key in _TRUTH[1:])
    _check_finite(arrays["flow"], valid, name, "true")
    nothing, unknown = np.full((num, 3), np.nan), np.zeros(num, np.bool_)
    return FlowExample(name, category, close, dynamic, valid, arrays["flow"], np.zeros((num, 3)), nothing, unknown)


def read_examples(truth: FlowSource, estimate: FlowSource, at_rest: FlowSource | None = None) -> Iterator[FlowExample]:
    """Yield the examples with their estimates, one at a time.

    Args:
        truth: the ground truth.
        estimate: of the same examples.
        at_rest: flow of a world at rest, in the form of an estimate; None: flows hold no ego motion.

    Raises:
        ValueError: as `read_truth`; an estimate has another number of points, or is not finite at a valid one.
    """
    for name in truth.names():
        example = read_truth(truth, name)
        if at_rest is not None:
            example.rest = at_rest.arrays(name)["flow"]
            if len(example.rest) != len(example.flow):
                got, wanted = len(example.rest), len(example.flow)
                raise ValueError(f"example {name}: ego motion of {got} points, the ground truth has {wanted}")
            _check_finite(example.rest, example.is_valid, name, "ego")
        arrays = estimate.arrays(name)
        num = len(example.flow)
        for key, got in (("flow", len(arrays["flow"])), ("is_dynamic", len(arrays["is_dynamic"]))):
            if got != num:
                raise ValueError(f"example {name}: {key} of {got} points is estimated, the ground truth has {num}")
        _check_finite(arrays["flow"], example.is_valid, name, "estimated")
        example.estimate, example.estimated_dynamic = arrays["flow"], arrays["is_dynamic"].astype(np.bool_)
        yield example


def check_same_examples(truth: FlowSource, estimate: FlowSource) -> None:
    """Raise ValueError where one side has examples that the other lacks (the official tool passes over them)."""
    wanted, given = truth.names(), estimate.names()
    if absent := sorted(set(wanted) - set(given)):
        raise ValueError(f"no estimate for {len(absent)} of {len(wanted)} examples ({', '.join(absent[:3])}, ...)")
    if extra := sorted(set(given) - set(wanted)):
        raise ValueError(f"estimates for {len(extra)} examples without ground truth ({', '.join(extra[:3])}, ...)")


def _check_finite(flow: np.ndarray, valid: np.ndarray, name: str, kind: str) -> None:
    bad = valid & ~np.isfinite(flow).all(1)
    if bad.any():
        raise ValueError(f"example {name}: the {kind} flow of point {int(np.argmax(bad))} is not finite")


class _Npz:
    def __init__(self, path: Path, is_estimate: bool) -> None:
        self._path, self._is_estimate = path, is_estimate
        try:
            self._file = np.load(path)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file: {error}") from None

    def names(self) -> list[str]:
        key = "pred_flow_" if self._is_estimate else "gt_flow_"
        present = sorted((name.removeprefix(key) for name in self._file if name.startswith(key)), key=_numerically)
        stated = int(self._get("n_examples"))
        if absent := [str(number) for number in range(stated) if str(number) not in present]:
            raise ValueError(f"{self._path} states {stated} examples, {key}{absent[0]} is missing")
        return present[:stated] if len(present) > stated and not self._is_estimate else present

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        if self._is_estimate:
            columns = {"flow": self._get(f"pred_flow_{name}"), "is_dynamic": self._get(f"pred_dynamic_{name}")}
        else:
            columns = {key: self._get(f"{key}_{name}") for key in _TRUTH} | {"flow": self._get(f"gt_flow_{name}")}
        if columns["flow"].ndim != 2 or columns["flow"].shape[1] != 3:
            raise ValueError(f"{self._path}: flow of example {name} has shape {columns['flow'].shape}, expected (N, 3)")
        return columns | {"flow": columns["flow"].astype(np.float64)}

    def _get(self, name: str) -> np.ndarray:
        if name not in self._file:
            raise ValueError(f"{self._path} has no array {name}")
        return self._file[name]


class _Feathers(abc.ABC):
    """Feather files by relative name."""

    def __init__(self, path: Path, is_estimate: bool) -> None:
        self._path = path
        self._columns = ("is_dynamic",) if is_estimate else _TRUTH

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        try:
            table = pyarrow.feather.read_table(self._source(name))
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            raise ValueError(f"{self._path}: {name} cannot be read as a feather file: {error}") from None
        if missing := [column for column in (*_FLOW, *self._columns) if column not in table.column_names]:
            raise ValueError(f"{self._path}: {name} has {len(table.column_names)} columns without {', '.join(missing)}")
        flow = np.stack([table[column].to_numpy().astype(np.float64) for column in _FLOW], 1)
        return {column: table[column].to_numpy() for column in self._columns} | {"flow": flow}

    @abc.abstractmethod
    def _source(self, name: str) -> str | io.BytesIO:
        """Return where pyarrow reads the file of that name from."""


class _Folder(_Feathers):
    def names(self) -> list[str]:
        files = sorted(self._path.rglob("*.feather"))
        if not files:
            raise FileNotFoundError(f"no feather file in {self._path}: expected LOG/STAMP.feather")
        return [file.relative_to(self._path).as_posix() for file in files]

    def _source(self, name: str) -> str:
        return str(self._path / name)


class _Zip(_Feathers):
    def __init__(self, path: Path, is_estimate: bool) -> None:
        super().__init__(path, is_estimate)
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise ValueError(f"{path} is neither a folder, an .npz nor a zip of LOG/STAMP.feather") from None

    def names(self) -> list[str]:
        names = sorted(name for name in self._archive.namelist() if name.endswith(".feather"))
        if not names:
            raise FileNotFoundError(f"no feather file in {self._path}: expected LOG/STAMP.feather")
        for one, other in itertools.pairwise(names):
            if one == other:
                raise ValueError(f"{self._path}: example {one} is duplicated")
        return names

    def _source(self, name: str) -> io.BytesIO:
        return io.BytesIO(self._archive.read(name))


def _numerically(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)
