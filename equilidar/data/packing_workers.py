"""What the processes of packing do: write one file of sweeps, or measure a few."""

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from equilidar.atomic_file import atomic_file
from equilidar.data.faults import FaultySweepError
from equilidar.data.packed_file import write_rows
from equilidar.data.packing_estimate import Measurement, peak_memory
from equilidar.data.packing_plan import PackingSource, PackingUnit


class PackingError(RuntimeError):
    """Packing stopped; what was finished stays, and the same command goes on."""


# Of this process, set by `_start`.
_source: PackingSource
_done: Any


def make_pool(source: PackingSource, num_workers: int) -> tuple[ProcessPoolExecutor, Any]:
    """Return processes that pack, and a shared count of the sweeps that they have done.

    They are forked where that is safe: they share the dataset's lists and the loaded libraries with this process, which
    itself reads no sweep.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start, initargs=(source, counter, os.getpid()))
    return pool, counter


@contextlib.contextmanager
def errors_of_workers() -> Iterator[None]:
    """Make what the processes of a pool raise, and their sudden end, a `PackingError` of this process."""
    try:
        yield
    except PackingError as error:
        # Raised anew: to the command line, what a process of the pool raised looks like no error of ours.
        raise PackingError(str(error)) from error
    except BrokenProcessPool as error:
        raise PackingError(
            "a reading process died (was it killed for its memory?); run again to go on, with fewer num_workers"
        ) from error


def _start(source: PackingSource, counter: Any, parent: int) -> None:
    global _source, _done
    _source, _done = source, counter
    torch.set_num_threads(1)
    gc.freeze()  # collections that went over the inherited objects would copy their pages: 40 MB a process
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once and without a traceback
    threading.Thread(target=die_with, args=(parent,), daemon=True).start()


def die_with(parent: int) -> None:
    """End this process when its parent is gone: after SIGKILL nobody else tells it to."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def pack_unit(unit: PackingUnit, folder: Path) -> dict[str, Any]:
    """Write the file of a unit and then, beside it, the report by which it counts as finished. Return the report.

    Raises:
        PackingError: a sweep cannot be read for another reason than a broken file, or the disk is full.
    """
    report: dict[str, Any] = {"unit": unit.hash, "indices": [], "num_points": [], "timestamps": [], "has_pose": []}
    report["faults"] = []
    path = folder / f"{unit.name}.arrow"
    try:
        with atomic_file(path) as file:
            report["hash"] = write_rows(file, _source.schema, _rows(unit, report))
            report["num_bytes"] = file.tell()
        write_report(path.with_suffix(".json"), report)
    except OSError as error:
        raise PackingError(f"{path} cannot be written ({error.strerror or error}); run again to go on") from error
    return report


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as file:
        file.write(json.dumps(report).encode())


def _rows(unit: PackingUnit, report: dict[str, Any]) -> Iterator[dict[str, pa.Array]]:
    for index in unit.indices:
        row = None
        try:
            row = _read(index)
        except FaultySweepError as error:
            report["faults"].append([_source.keys[index], str(error)])
        with _done.get_lock():
            _done.value += 1
        if row is None:
            continue
        report["indices"].append(index)
        report["num_points"].append(len(row["xyz"].values))
        report["timestamps"].append(row["timestamp"][0].as_py())
        report["has_pose"].append(row["world_T_sensor"].null_count == 0)
        yield row


def _read(index: int) -> dict[str, pa.Array]:
    try:
        return _source.row(index)
    except FaultySweepError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise PackingError(f"{_source.keys[index]}: {error}") from error


def measure(indices: list[int], folder: Path) -> Measurement:
    """Pack some sweeps into a file without a name, which leaves nothing behind.

    Args:
        indices: of the sweeps. One is read before the clock runs as well: that loads libraries.
        folder: on the disk that will hold the store.

    Raises:
        PackingError: a sweep cannot be read for another reason than a broken file, or the folder not be written to.
    """
    next(_readable(indices), None)
    num_read = 0

    def rows() -> Iterator[dict[str, pa.Array]]:
        nonlocal num_read
        for row in _readable(indices):
            num_read += 1
            yield row

    begin = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            write_rows(file, _source.schema, rows())
            file.flush()
            os.fsync(file.fileno())
            return Measurement(file.tell(), time.perf_counter() - begin, num_read, peak_memory())
    except OSError as error:
        raise PackingError(f"output {folder} cannot be written to ({error.strerror or error})") from error


def _readable(indices: list[int]) -> Iterator[dict[str, pa.Array]]:
    for index in indices:
        with contextlib.suppress(FaultySweepError):
            yield _read(index)
