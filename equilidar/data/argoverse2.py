"""Argoverse 2: logs of the Sensor and Lidar data sets as pairs of sweeps; annotations are never opened."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from equilidar.data.faults import FaultySweepError
from equilidar.data.feather import POSE_COLUMNS, read_feather, rigid_transforms
from equilidar.data.listing import point_files, require_folder
from equilidar.data.point_files import PointFormat
from equilidar.data.recordings import Frame, RecordedPairs, Run, split_runs
from equilidar.structures import SensorContract

_LOG = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")
_LONGEST_STEP = 1.5e8  # nanoseconds; sweeps are 0.1 s apart
_FILE_COLUMNS = {"intensity": "intensity", "ring": "laser_number", "time": "offset_ns"}
_DEPTHS = ("sensors/lidar", "*/sensors/lidar", "*/*/sensors/lidar", "*/*/*/sensors/lidar")


@dataclass(frozen=True)
class Argoverse2Sweeps:
    """Reads `sensors/lidar/<nanoseconds>.feather`: both LiDARs together, in the ego vehicle's frame.

    Attributes:
        channels: of "intensity" (0..255), "ring" (`laser_number`, 0..63) and "time" (`offset_ns`, given in seconds
            after the sweep's time stamp).
        scales: see `PointFormat`.
    """

    channels: tuple[str, ...] = ("intensity",)
    scales: tuple[float, ...] = (255.0,)
    _format: PointFormat = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.channels if name not in _FILE_COLUMNS]
        if unknown:
            raise ValueError(f"dataset.channels must be of {', '.join(_FILE_COLUMNS)}, got {list(self.channels)}")
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "_format", PointFormat(channels=self.channels, scales=self.scales, frame="ego"))

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return self._format.contract

    @property
    def settings(self) -> dict[str, Any]:
        """The channels and their scales."""
        return asdict(self._format)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates and channels; see `PointFormat.convert`."""
        try:
            columns = read_feather(frame.path, ("x", "y", "z", *(_FILE_COLUMNS[name] for name in self.channels)))
        except FileNotFoundError as error:
            raise FaultySweepError(str(error)) from error
        named: dict[str, NDArray] = {axis: columns[axis] for axis in "xyz"}
        for channel in self.channels:
            named[channel] = columns[_FILE_COLUMNS[channel]]
        if "time" in named:
            named["time"] = named["time"].astype(np.float64) * 1e-9
        return self._format.convert(named, frame.path)


class Argoverse2(RecordedPairs):
    """Pairs of consecutive sweeps, with the poses of `city_SE3_egovehicle.feather`.

    Attributes:
        logs: folders that are used.

    Raises:
        FileNotFoundError: there is no log, or one has no pose table.
        ValueError: no pair is left, or a pose table covers none of its sweeps.
    """

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("train",),
        logs: list[str] | tuple[str, ...] | None = None,
        gap: int = 1,
        channels: list[str] | tuple[str, ...] = ("intensity",),
        scales: list[float] | tuple[float, ...] = (255.0,),
        accumulate: int = 1,
    ) -> None:
        """List the pairs.

        Args:
            root: folder of logs, or of the splits' folders that hold them, or one log.
            splits: which of the folders train, val, test are used; logs in no such folder always are.
            logs: names of logs; None for all.
            gap: sweeps from source to target.
            channels: see `Argoverse2Sweeps`.
            scales: see `PointFormat`.
            accumulate: see `RecordedPairs`.
        """
        self.logs = find_logs(Path(root), splits, logs)
        runs = [run for log in self.logs for run in log_runs(log)]
        reader = Argoverse2Sweeps(tuple(channels), tuple(scales))
        super().__init__("argoverse2", runs, reader, gap, accumulate=accumulate)


def find_logs(root: Path, splits: list[str] | tuple[str, ...], names: list[str] | tuple[str, ...] | None) -> list[Path]:
    """Return the folders of logs, those of other splits left out, by name.

    Raises:
        FileNotFoundError: there is none, or not all of `names`.
        ValueError: a split is unknown.
    """
    if not isinstance(splits, list | tuple):
        raise ValueError(f"dataset.splits must be a list, of {', '.join(_SPLITS)}, got {splits}")
    unknown = [split for split in splits if split not in _SPLITS]
    if unknown:
        raise ValueError(f"dataset.splits must be of {', '.join(_SPLITS)}, got {list(splits)}")
    require_folder(root, "Argoverse 2 logs", "dataset.root")
    found: list[Path] = []
    for pattern in _DEPTHS:
        found = sorted(path.parent.parent for path in root.glob(pattern) if path.is_dir())
        if found:
            break
    if not found:
        raise FileNotFoundError(f"no log (a folder with sensors/lidar) under {root}; set dataset.root")
    used = [log for log in found if log.absolute().parent.name not in set(_SPLITS) - set(splits)]
    if not used:
        raise FileNotFoundError(
            f"all {len(found)} logs under {root} are of other splits than {list(splits)}; set dataset.splits"
        )
    if names is None:
        return used
    by_name = {log.name: log for log in used}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise FileNotFoundError(f"no log {', '.join(missing)} under {root}; there are {len(used)}: {used[0].name} ...")
    return [by_name[name] for name in names]


def log_frames(log: Path) -> list[Frame]:
    """Return the sweeps of a log, by time."""
    files = [path for path in point_files(log / "sensors" / "lidar", (".feather",)) if path.stem.isdigit()]
    return [Frame(f"argoverse2/{log.name}/{path.stem}", path, int(path.stem), int(path.stem) * 1e-9) for path in files]


def log_runs(log: Path) -> list[Run]:
    """Return the sweeps of a log that have a pose, cut where one is missing.

    Raises:
        FileNotFoundError: the log has no pose table.
        ValueError: it cannot be read, or covers none of the sweeps.
    """
    frames = log_frames(log)
    table = log / "city_SE3_egovehicle.feather"
    poses = read_ego_poses(table)
    posed = [frame for frame in frames if frame.number in poses]
    if not posed:
        raise ValueError(f"{table}: no pose at the time of any of the {len(frames)} sweeps; download it again")
    if len(posed) < len(frames):
        _LOG.warning("%s: %d of %d sweeps have no pose and are left out", table, len(frames) - len(posed), len(frames))
    return split_runs(posed, np.stack([poses[frame.number] for frame in posed]), max_step=_LONGEST_STEP)


def read_ego_poses(path: Path) -> dict[int, NDArray[np.float64]]:
    """Return (4, 4) city_T_ego by time stamp, nanoseconds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read.
    """
    columns = read_feather(path, ("timestamp_ns", *POSE_COLUMNS))
    return dict(zip(columns["timestamp_ns"].tolist(), rigid_transforms(columns, path), strict=True))
