"""Packs a dataset into a store: parallel, resumable, nothing ever half-written."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from equilidar.atomic_file import atomic_file
from equilidar.data.faults import Fault, FaultBudget
from equilidar.data.packed_index import (
    INDEX_FILE,
    PLAN_FILE,
    SCHEMA_VERSION,
    SEQUENCES,
    SWEEPS_FILE,
    SWEEPS_SCHEMA,
    PackedFile,
    PackedIndex,
    check_version,
    hash_bytes,
    read_index,
    read_json,
    rebuild_command,
)
from equilidar.data.packing_estimate import Estimate
from equilidar.data.packing_plan import PackingSource, PackingUnit, differing, spread
from equilidar.data.packing_progress import Progress, size_text, time_text
from equilidar.data.packing_workers import PackingError, errors_of_workers, make_pool, measure, pack_unit, write_report
from equilidar.data.protocols import LabelledDataset, PairDataset

_MEASURED = 8


class Packing:
    """Packs one dataset into one folder.

    A file of the store counts as finished when the report beside it is there; finished ones are not made again,
    whatever ended the last attempt. `index.json` is written last: a store without it is not finished, and no reader
    opens it.

    Raises:
        ValueError: settings out of range, a folder that holds something else, or a store of another version, kind or
            settings.
    """

    def __init__(
        self,
        dataset: PairDataset | LabelledDataset,
        output: Path,
        command: str,
        *,
        num_workers: int = 2,
        max_memory_gb: float = 2.0,
        sweeps_per_file: int = 500,
        faults: FaultBudget | None = None,
        overwrite: bool = False,
        verify: bool = False,
    ) -> None:
        """Look at what there is; nothing is written yet.

        Args:
            dataset: pairs, or labelled sweeps.
            output: folder of the store.
            command: what the user typed, without `overwrite`; error messages repeat it.
            num_workers: reading processes.
            max_memory_gb: 1e9 bytes, of all processes together; where `num_workers` would need more, fewer read.
            sweeps_per_file: longer sequences are cut. A file is what is done anew after a crash.
            faults: how many sweeps may be faulty.
            overwrite: remove the store that is there, of whatever version and settings.
            verify: read finished files again; those that are damaged count as unfinished.
        """
        for name, value in (("num_workers", num_workers), ("sweeps_per_file", sweeps_per_file)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not max_memory_gb > 0:
            raise ValueError(f"max_memory_gb must be positive, got {max_memory_gb}")
        self.source, self.output, self._command = PackingSource(dataset), output, command
        self._num_workers, self._max_memory = num_workers, max_memory_gb * 1e9
        self._overwrite, self._verify = overwrite, verify
        self._budget = faults or FaultBudget()
        self._plan = self.source.plan(sweeps_per_file)
        self.units = self.source.units(sweeps_per_file)
        self._folder = output / SEQUENCES
        self._check_output()
        self.todo = self.units if overwrite else [unit for unit in self.units if self._report(unit) is None]

    @property
    def is_finished(self) -> bool:
        """Whether the store is whole, so that there is nothing to do."""
        return not self._overwrite and not self.todo and (self.output / INDEX_FILE).is_file()

    def finished(self) -> PackedIndex:
        """Return the index of the finished store."""
        return read_index(self.output, self.source.kind)

    def estimate(self) -> Estimate:
        """Read a few sweeps in a process of their own, and extrapolate."""
        indices = [index for unit in self.todo for index in unit.indices]
        if not indices:
            return Estimate(0, 0, 0, 0.0, self._num_workers, 0)
        pool, _ = make_pool(self.source, 1)
        with pool, errors_of_workers():
            chosen = [indices[i] for i in spread(len(indices), _MEASURED)]
            found = pool.submit(measure, chosen, _existing(self.output)).result()
        if found.num_read == 0:
            raise PackingError(f"none of {len(chosen)} sweeps can be read, the first is {self.source.keys[chosen[0]]}")
        return Estimate.of(found, len(indices), len(self.todo), self._num_workers, self._max_memory)

    def describe(self, estimate: Estimate) -> str:
        """Return what will be done, in lines for the user."""
        done = len(self.units) - len(self.todo)
        already = f" ({done} of {len(self.units)} are there already)" if done else ""
        free = shutil.disk_usage(_existing(self.output)).free
        fewer = (
            f" instead of {self._num_workers}: each takes {size_text(estimate.worker_memory)}, all together may take "
            f"max_memory_gb={self._max_memory / 1e9:g}"
        )
        return (
            f"{self._plan['name']} ({self.source.kind}): {estimate.num_sweeps} sweeps to pack into "
            f"{estimate.num_files} file(s){already}\n"
            f"about {size_text(estimate.num_bytes)} in {self.output} ({size_text(free)} are free), "
            f"about {time_text(estimate.seconds)} with {estimate.num_workers} worker(s)"
            f"{fewer if estimate.num_workers < min(self._num_workers, estimate.num_files) else ''}"
        )

    def check_space(self, estimate: Estimate) -> None:
        """Raise OSError where the disk cannot hold what is to be packed."""
        free = shutil.disk_usage(_existing(self.output)).free
        if estimate.num_bytes > free:
            raise OSError(
                f"output {self.output} needs about {size_text(estimate.num_bytes)}, but only {size_text(free)} are "
                "free there: free some, or choose another output"
            )

    def run(self, num_workers: int | None = None) -> PackedIndex:
        """Pack what is not yet packed, then write the index.

        Args:
            num_workers: reading processes, as `estimate` tells; None for as many as this object was given.

        Raises:
            PackingError: a sweep or file could not be read or written, or another process is packing into the folder.
            TooManyFaultsError: more faulty sweeps than allowed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.output):
            self._clear()
            about = {"version": SCHEMA_VERSION, "kind": self.source.kind, "command": self._command, "plan": self._plan}
            write_report(self.output / PLAN_FILE, about)
            (self.output / INDEX_FILE).unlink(missing_ok=True)
            reports = {unit.name: self._report(unit) or {} for unit in self.units if unit not in self.todo}
            for report in reports.values():
                self._observe(report)
            self._pack(reports, num_workers or self._num_workers)
            return self._write_index(reports)

    def _pack(self, reports: dict[str, dict[str, Any]], num_workers: int) -> None:
        """Write the files that are not there yet and add their reports."""
        if not self.todo:
            return
        pool, counter = make_pool(self.source, min(num_workers, len(self.todo)))
        names: dict[Future[dict[str, Any]], str] = {}
        try:
            with Progress(sum(len(unit.indices) for unit in self.todo)) as bar, errors_of_workers():
                names = {pool.submit(pack_unit, unit, self._folder): unit.name for unit in self.todo}
                waiting = set(names)
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    bar.show(counter.value)
                    for future in done:
                        reports[names[future]] = report = future.result()
                        self._observe(report)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _observe(self, report: dict[str, Any]) -> None:
        faults = [Fault(key, reason) for key, reason in report["faults"]]
        for fault in self._budget.observe(len(report["indices"]) + len(faults), faults):
            print(f"skipped {fault.key}: {fault.reason}", flush=True)

    def _write_index(self, reports: dict[str, dict[str, Any]]) -> PackedIndex:
        files = [
            PackedFile(f"{unit.name}.arrow", unit.sequence, reports[unit.name]["num_bytes"], reports[unit.name]["hash"])
            for unit in self.units
        ]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, SWEEPS_SCHEMA) as writer:
            writer.write_table(self._sweeps([reports[unit.name] for unit in self.units]))
        content = sink.getvalue().to_pybytes()
        with atomic_file(self.output / SWEEPS_FILE) as file:
            file.write(content)
        faults = [list(fault) for unit in self.units for fault in reports[unit.name]["faults"]]
        stamp = files, hash_bytes(content), len(self.source.indices) - len(faults), faults
        index = PackedIndex(self.output, self.source.kind, self._plan, self._command, *stamp)
        write_report(self.output / INDEX_FILE, index.to_json())
        (self.output / PLAN_FILE).unlink(missing_ok=True)
        return index

    def _sweeps(self, reports: list[dict[str, Any]]) -> pa.Table:
        """Return the table of `sweeps.arrow`, in the order of the dataset."""
        places, keys = self.source.places(), self.source.keys
        indices = np.array([index for report in reports for index in report["indices"]], dtype=np.int64)
        columns = {
            "key": [keys[index] for index in indices],
            "timestamp": [value for report in reports for value in report["timestamps"]],
            "num_points": [value for report in reports for value in report["num_points"]],
            "file": [number for number, report in enumerate(reports) for _ in report["indices"]],
            "row": [row for report in reports for row in range(len(report["indices"]))],
            "run": [places[index][0] for index in indices],
            "position": [places[index][1] for index in indices],
            "has_pose": [value for report in reports for value in report["has_pose"]],
            "is_target": [self.source.is_target[index] for index in indices],
        }
        return pa.table(columns, SWEEPS_SCHEMA).take(np.argsort(indices, kind="stable")).combine_chunks()

    def _report(self, unit: PackingUnit) -> dict[str, Any] | None:
        """Return the report of a unit whose file is finished and whole."""
        path = self._folder / f"{unit.name}.arrow"
        report = read_json(path.with_suffix(".json"))
        if report is None or report.get("unit") != unit.hash or not path.is_file():
            return None
        if path.stat().st_size != report["num_bytes"]:
            return None
        if self._verify and hash_bytes(path.read_bytes()) != report["hash"]:
            return None
        return report

    def _check_output(self) -> None:
        """Raise ValueError where the folder holds something else than (the beginning of) this store."""
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"output {self.output} is a file; choose a folder")
        if not self.output.is_dir() or not any(self.output.iterdir()):
            return
        found = [name for name in (INDEX_FILE, PLAN_FILE) if (self.output / name).is_file()]
        if not found:
            raise ValueError(f"output {self.output} holds files that are no packed store; choose another folder")
        if self._overwrite:
            return
        content = read_json(self.output / found[0])
        if content is None:
            raise ValueError(
                f"{self.output / found[0]} is damaged; rebuild the store: {rebuild_command(None, self.output)}"
            )
        check_version(content, self.output / found[0], self.output)
        other = ["kind"] if content.get("kind") != self.source.kind else differing(self._plan, content["plan"])
        if other:
            raise ValueError(
                f"output {self.output} was packed with other settings ({', '.join(other[:6])}); give the same ones "
                "(or the same data), choose another output, or add overwrite=true"
            )

    def _clear(self) -> None:
        """Remove what an interrupted attempt left and, to overwrite, the store; never a file of another kind."""
        for leftover in [*self._folder.glob(".*.arrow.*"), *self._folder.glob(".*.json.*")]:
            leftover.unlink(missing_ok=True)
        if not self._overwrite:
            return
        for name in (INDEX_FILE, SWEEPS_FILE, PLAN_FILE):
            (self.output / name).unlink(missing_ok=True)
        for path in [*self._folder.glob("*.json"), *self._folder.glob("*.arrow")]:
            path.unlink()


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let no other process pack into the folder. The lock goes with this process, however it ends."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PackingError(f"another process is packing into {folder}; wait for it") from None
        yield
