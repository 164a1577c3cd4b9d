"""Point files on disk: .bin, .npy, .pcd and .ply to coordinates and named channels. Nothing is ever unpickled."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from equilidar.data.faults import FaultySweepError
from equilidar.data.pcd import read_pcd
from equilidar.data.ply import read_ply
from equilidar.structures import SensorContract

SUFFIXES = (".bin", ".npy", ".pcd", ".ply")

# Beyond any LiDAR: such coordinates mean that another column was read as one.
_LARGEST_COORDINATE = 1e4

ALIASES = {
    "intensity": ("intensity", "reflectance", "reflectivity", "scalar_intensity", "scalar_Intensity", "i"),
    "time": ("time", "t", "timestamp", "time_stamp", "offset_time", "time_offset"),
    "ring": ("ring", "line", "channel", "laser_number"),
}


@dataclass(frozen=True)
class PointFormat:
    """How the point files of a data set are read.

    Attributes:
        columns: the columns of files that do not name them (.bin, plain .npy), in order; float32 in .bin. Those
            columns that are not read need a name as well.
        channels: columns that become features; coordinates are always read.
        scales: per channel, the raw value that is stored as 1.0 (255.0 for intensity of 0..255).
        frame: origin of the coordinates.
        drop_invalid: leave out points that are not finite (organised clouds mark missing returns so); otherwise a sweep
            that holds one is faulty.

    Raises:
        ValueError: the settings do not fit one another.
    """

    columns: tuple[str, ...] = ("x", "y", "z", "intensity")
    channels: tuple[str, ...] = ("intensity",)
    scales: tuple[float, ...] = (1.0,)
    frame: Literal["sensor", "ego"] = "sensor"
    drop_invalid: bool = False

    def __post_init__(self) -> None:
        for name in ("columns", "channels", "scales"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if tuple(self.columns[:3]) != ("x", "y", "z") or len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns must start with x, y, z and name each once, got {list(self.columns)}")
        if len(self.channels) != len(self.scales):
            raise ValueError(f"{len(self.channels)} channels {list(self.channels)} but scales {list(self.scales)}")
        if any(scale == 0 for scale in self.scales):
            raise ValueError(f"scales divide the raw values and may not be 0, got {list(self.scales)}")

    @property
    def contract(self) -> SensorContract:
        """What the numbers of a sweep mean."""
        return SensorContract(self.channels, tuple(float(scale) for scale in self.scales), self.frame)

    def read(self, path: Path) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates (metres) and scaled channels.

        Raises:
            FaultySweepError: the file is missing, corrupt, truncated, empty, or holds values that are not finite.
            ValueError: the file has no such column: the settings are wrong, not the file.
        """
        return self.convert(read_columns(path, self.columns), path)

    def convert(
        self, columns: Mapping[str, NDArray], source: Path | str
    ) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Make coordinates (metres) and scaled channels of columns that something else has read.

        Args:
            columns: numbers by name; known other names of a channel are understood.
            source: where they are from, for errors.

        Raises:
            FaultySweepError: there are no points, or they hold values that are not finite or no coordinates.
            ValueError: there is no such column: the settings are wrong, not the data.
        """
        xyz = self._table(columns, ("x", "y", "z"), (1.0, 1.0, 1.0), source)
        features = self._table(columns, self.channels, self.scales, source)
        if len(xyz) and not (_is_finite(xyz) and _is_finite(features)):
            finite = xyz.isfinite().all(1) & features.isfinite().all(1)
            if not self.drop_invalid:
                raise FaultySweepError(f"{source}: {int((~finite).sum())} of {len(xyz)} points are not finite")
            xyz, features = xyz[finite], features[finite]
        if len(xyz) == 0:
            raise FaultySweepError(f"{source}: no points")
        if max(map(abs, _bounds(xyz))) > _LARGEST_COORDINATE:
            raise FaultySweepError(
                f"{source}: coordinates beyond {_LARGEST_COORDINATE:.0f} m; are its columns really "
                f"{list(self.columns)}?"
            )
        return xyz, features

    def _table(
        self, columns: Mapping[str, NDArray], names: tuple[str, ...], scales: tuple[float, ...], source: Path | str
    ) -> Float[Tensor, "N C"]:
        """Return columns side by side, divided by their scales in double precision and stored in single."""
        found = [columns[find_column(columns, name, source)] for name in names]
        table = np.empty((len(next(iter(columns.values()))), len(names)), dtype=np.float32)
        for place, (column, scale) in enumerate(zip(found, scales, strict=True)):
            table[:, place] = column if scale == 1 else np.divide(column, scale, dtype=np.float64)
        return torch.from_numpy(table)


def _bounds(values: Float[Tensor, "N C"]) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN if there is one."""
    lowest, highest = torch.aminmax(values)
    return float(lowest), float(highest)


def _is_finite(values: Float[Tensor, "N C"]) -> bool:
    """Tell it from two numbers: a mask of all values takes several times as long."""
    return values.numel() == 0 or all(map(math.isfinite, _bounds(values)))


def read_columns(path: Path, columns: tuple[str, ...]) -> dict[str, NDArray]:
    """Read the columns of a point file by its suffix.

    Args:
        path: .bin (float32, little-endian), .npy (two-dimensional or structured), .pcd or .ply.
        columns: names of the columns where the file does not name them.

    Raises:
        FaultySweepError: the file is missing, corrupt, truncated or empty.
        ValueError: the suffix is unknown.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: point files are {', '.join(SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise FaultySweepError(f"{path}: empty file")
        return _READERS[path.suffix](path, columns)
    except OSError as error:
        raise FaultySweepError(f"{path}: cannot be read ({error.strerror or error})") from error


def find_column(columns: Mapping[str, NDArray], name: str, source: Path | str) -> str:
    """Return the name under which `columns` hold a channel.

    Raises:
        ValueError: they do not.
    """
    for candidate in ALIASES.get(name, (name,)):
        if candidate in columns:
            return candidate
    raise ValueError(f"{source}: no column {name!r}, it has {list(columns)}; change the dataset's channels or columns")


def _read_bin(path: Path, columns: tuple[str, ...]) -> dict[str, NDArray]:
    content = path.read_bytes()
    if len(content) % (4 * len(columns)):
        raise FaultySweepError(
            f"{path}: {len(content)} bytes are no whole number of points of {len(columns)} float32 columns "
            f"{list(columns)}: truncated, or other columns"
        )
    table = np.frombuffer(content, dtype="<f4").reshape(-1, len(columns))
    return {name: table[:, i] for i, name in enumerate(columns)}


def _read_npy(path: Path, columns: tuple[str, ...]) -> dict[str, NDArray]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FaultySweepError(f"{path}: no readable .npy file ({error})") from error
    if not isinstance(array, np.ndarray):
        raise FaultySweepError(f"{path}: an archive of arrays under the name .npy")
    if array.dtype.names is not None:
        return {name: array[name].reshape(-1) for name in array.dtype.names}
    if array.ndim != 2 or array.shape[1] != len(columns) or array.dtype.kind not in "fiu":
        raise FaultySweepError(
            f"{path}: shape {array.shape} {array.dtype}, expected (points, {len(columns)}) numbers {list(columns)}"
        )
    return {name: array[:, i] for i, name in enumerate(columns)}


_READERS = {
    ".bin": _read_bin,
    ".npy": _read_npy,
    ".pcd": lambda path, columns: read_pcd(path),
    ".ply": lambda path, columns: read_ply(path),
}
