"""The files of a packed store: Arrow IPC, one record batch of one row for each sweep, read through a memory map."""

import hashlib
import mmap
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.data.faults import FaultySweepError
from equilidar.structures import SensorContract, Sweep

# Private: a write in place goes to the process's own copy of a page, never to the file. Without reservation: a map
# larger than the free memory is no error. Python names the flag from 3.13 on.
_RESERVE_NOTHING = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_PLAIN_COLUMNS = ("key", "timestamp", "world_T_sensor", "xyz", "features")
_MAX_OPEN = 64


def sweep_schema(contract: SensorContract, labels: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the columns of a file of sweeps.

    Args:
        contract: of the sweeps.
        labels: further columns, in stores with labels alone.
    """
    points = [pa.field("xyz", pa.list_(pa.list_(pa.float32(), 3)))]
    if contract.channels:
        points.append(pa.field("features", pa.list_(pa.list_(pa.float32(), len(contract.channels)))))
    plain = [("key", pa.string()), ("timestamp", pa.float64()), ("world_T_sensor", pa.list_(pa.float64(), 16))]
    about = {"channels": ",".join(contract.channels), "scales": str(contract.scales), "frame": contract.frame}
    return pa.schema([*(pa.field(*column) for column in plain), *points, *labels], metadata=about)


def sweep_row(sweep: Sweep) -> dict[str, pa.Array]:
    """Return a sweep as a row; the points are not copied."""
    pose = None if sweep.world_T_sensor is None else sweep.world_T_sensor.flatten().tolist()
    row = {
        "key": pa.array([sweep.key]),
        "timestamp": pa.array([sweep.timestamp], pa.float64()),
        "world_T_sensor": pa.array([pose], pa.list_(pa.float64(), 16)),
        "xyz": _points_column(sweep.xyz),
    }
    return {**row, "features": _points_column(sweep.features)} if sweep.contract.channels else row


def _points_column(points: Float[Tensor, "N C"]) -> pa.Array:
    num, width = points.shape
    rows = pa.FixedSizeListArray.from_arrays(pa.array(points.float().contiguous().numpy().reshape(-1)), width)
    return pa.ListArray.from_arrays(pa.array([0, num], pa.int32()), rows)


def write_rows(file: IO[bytes], schema: pa.Schema, rows: Iterable[dict[str, pa.Array]]) -> str:
    """Write rows one at a time into an open file; return the hash of what was written."""
    hashing = _HashingFile(file)
    with pa.ipc.new_file(pa.PythonFile(hashing, mode="w"), schema) as writer:
        for row in rows:
            writer.write_batch(pa.record_batch([row[name] for name in schema.names], schema=schema))
    return hashing.hash.hexdigest()


class _HashingFile:
    """A binary file for Arrow that hashes what goes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.blake2b(digest_size=16)
        self.closed = False

    def write(self, content: bytes | pa.Buffer) -> int:
        self.hash.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True  # the file itself is closed by who opened it


class MappedFile:
    """A file of sweeps in memory, page by page as it is read.

    Args:
        path: of the file.
        labels: columns that it may hold besides those of a sweep.

    Raises:
        ValueError: no whole Arrow file, or one with other columns: pretraining reads no file with boxes.
    """

    def __init__(self, path: Path, labels: Sequence[str] = ()) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                flags, access = mmap.MAP_PRIVATE | _RESERVE_NOTHING, mmap.PROT_READ | mmap.PROT_WRITE
                self._map = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
            self._start = pa.py_buffer(self._map).address
            self._file = pa.ipc.open_file(pa.py_buffer(self._map))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no whole file of packed sweeps ({error}); run prepare again") from None
        unknown = [name for name in self._file.schema.names if name not in (*_PLAIN_COLUMNS, *labels)]
        if unknown:
            raise ValueError(f"{path} holds the column {unknown[0]!r}, which this reader may not see")

    def row(self, number: int, key: str) -> pa.RecordBatch:
        """Return row `number`.

        Raises:
            FaultySweepError: it cannot be read, or is not sweep `key`.
        """
        try:
            row = self._file.get_batch(number)
            held = row.column("key")[0].as_py()
        except (ValueError, pa.ArrowException) as error:
            raise FaultySweepError(f"{self._path}: row {number} is damaged ({error})") from None
        if held != key:
            raise FaultySweepError(f"{self._path}: row {number} is {held}, not {key}; run prepare with verify=true")
        return row

    def sweep(self, row: pa.RecordBatch, contract: SensorContract) -> Sweep:
        """Return the sweep of a row; its points lie in the map."""
        xyz = self._points(row, "xyz", 3)
        channels = len(contract.channels)
        features = self._points(row, "features", channels) if channels else xyz.new_zeros(len(xyz), 0)
        pose = row.column("world_T_sensor")
        matrix = None if pose.null_count else torch.from_numpy(pose.values.to_numpy().reshape(4, 4).copy())
        return Sweep(xyz, features, contract, row.column("key")[0].as_py(), row.column("timestamp")[0].as_py(), matrix)

    def _points(self, row: pa.RecordBatch, name: str, width: int) -> Float[Tensor, "N C"]:
        values = row.column(name).values.values
        # An array that Arrow makes is read-only, of which torch warns; the map itself may be written to.
        offset = values.buffers()[1].address - self._start if len(values) else 0
        flat = np.frombuffer(self._map, np.float32, len(values), offset)
        return torch.from_numpy(flat).view(-1, width)


class PackedFiles:
    """The files of a store, mapped when first needed; the last ones used stay mapped.

    Workers map anew: a pickled object holds paths alone.
    """

    def __init__(self, paths: list[Path], labels: Sequence[str] = ()) -> None:
        self.paths, self._labels = paths, tuple(labels)
        self._maps: OrderedDict[int, MappedFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": OrderedDict()}

    def __getitem__(self, number: int) -> MappedFile:
        """Return file `number`; tensors that were read keep their map alive."""
        if number not in self._maps:
            self._maps[number] = MappedFile(self.paths[number], self._labels)
            if len(self._maps) > _MAX_OPEN:
                self._maps.popitem(last=False)
        self._maps.move_to_end(number)
        return self._maps[number]
