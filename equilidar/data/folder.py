"""Anyone's own log: folders of point files, with a pose file or without."""

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.listing import last_number, point_files, require_folder
from equilidar.data.point_files import SUFFIXES, PointFormat
from equilidar.data.poses import read_poses
from equilidar.data.recordings import Frame, PointFileReader, RecordedPairs, Run, split_runs

_POSE_FILES = ("poses.txt", "poses.tum", "poses.csv")

# Epoch seconds have 10 digits until the year 2286; longer file names are milli-, micro- or nanoseconds.
_STAMP_UNITS = ((1e18, 1e-9), (1e15, 1e-6), (1e12, 1e-3), (1e9, 1.0))


class FolderPairs(RecordedPairs):
    """Pairs from a folder of .bin, .npy, .pcd or .ply files; sub-folders are sequences of their own.

    Files are ordered by name, numbers in it by value. A pair is made of neighbours only: where the last number in the
    names rises by more than one and a half times its usual (median) step, a sweep is missing and the sequence is cut.
    Names without a number are taken to be complete.

    Poses are of the SENSOR whose coordinates the files hold: a file `poses.txt` (or .tum, .csv) in the sequence's
    folder, KITTI 3x4 rows or TUM rows, one for each sweep in order, or TUM rows whose times are the sweeps' names.
    Without one, KISS-ICP estimates them.

    Raises:
        FileNotFoundError: the folder does not exist or holds no point files.
        ValueError: settings or pose file do not fit, or no pair is left.
    """

    def __init__(
        self,
        root: str | Path,
        columns: list[str] | tuple[str, ...] = ("x", "y", "z", "intensity"),
        channels: list[str] | tuple[str, ...] = ("intensity",),
        scales: list[float] | tuple[float, ...] = (1.0,),
        frame: Literal["sensor", "ego"] = "sensor",
        drop_invalid: bool = False,
        poses: str | None = "auto",
        period: float = 0.1,
        gap: int = 1,
        cache_dir: str | Path | None = None,
        accumulate: int = 1,
    ) -> None:
        """List the pairs.

        Args:
            root: the folder.
            columns: see `PointFormat`.
            channels: see `PointFormat`.
            scales: see `PointFormat`.
            frame: see `PointFormat`.
            drop_invalid: see `PointFormat`.
            poses: name of the pose file in each sequence's folder; "auto" uses one if it is there, None never does.
            period: seconds from sweep to sweep, where neither poses nor names tell the time.
            gap: sweeps from source to target.
            cache_dir: for estimated poses; see `EgoMotion`.
            accumulate: see `RecordedPairs`.
        """
        self.root = require_folder(Path(root), "point files", "dataset.root")
        if period <= 0:
            raise ValueError(f"dataset.period must be positive, got {period}")
        point_format = PointFormat(tuple(columns), tuple(channels), tuple(scales), frame, drop_invalid)
        folders = [self.root, *sorted(path for path in self.root.rglob("[!.]*") if path.is_dir())]
        sequences = [(folder, files) for folder in folders if (files := point_files(folder, SUFFIXES))]
        if not sequences:
            raise FileNotFoundError(f"no {', '.join(SUFFIXES)} files in {self.root} or below; set dataset.root")
        runs = [run for folder, files in sequences for run in self._runs(folder, files, poses, period)]
        ego_motion = EgoMotion(cache_dir)
        super().__init__("folder", runs, PointFileReader(point_format), gap, ego_motion, accumulate=accumulate)

    def _runs(self, folder: Path, files: list[Path], poses_name: str | None, period: float) -> list[Run]:
        sequence = self.root.name if folder == self.root else folder.relative_to(self.root).as_posix()
        numbers = _numbers(files)
        times = _times(numbers, period)
        poses = None
        path = _pose_file(folder, poses_name)
        if path is not None:
            times, poses = _match_poses(path, times)
        frames = [
            Frame(f"folder/{sequence}/{file.stem}", file, number, time)
            for file, number, time in zip(files, numbers, times, strict=True)
        ]
        usual = float(np.median(np.diff(numbers))) if len(numbers) > 1 else 1.0
        return split_runs(frames, poses, max_step=1.5 * usual)


def _numbers(files: list[Path]) -> list[int]:
    """Return rising frame numbers or time stamps; positions where the names do not give such."""
    numbers = [last_number(path.stem) for path in files]
    known = [number for number in numbers if number is not None]
    if len(known) == len(files) and all(a < b for a, b in itertools.pairwise(known)):
        return known
    return list(range(len(files)))


def _times(numbers: list[int], period: float) -> list[float]:
    """Return seconds: of names that are epoch time stamps, else `period` for each usual step."""
    for smallest, unit in _STAMP_UNITS:
        if numbers[0] >= smallest:
            return [number * unit for number in numbers]
    usual = float(np.median(np.diff(numbers))) if len(numbers) > 1 else 1.0
    return [number / usual * period for number in numbers]


def _pose_file(folder: Path, name: str | None) -> Path | None:
    if name is None:
        return None
    if name == "auto":
        return next((folder / known for known in _POSE_FILES if (folder / known).is_file()), None)
    if not (folder / name).is_file():
        raise FileNotFoundError(f"no pose file {folder / name}; set dataset.poses to auto or null")
    return folder / name


def _match_poses(path: Path, times: list[float]) -> tuple[list[float], NDArray[np.float64]]:
    """Return times and a pose for each sweep: row by row, or TUM rows by time stamp (within a millisecond)."""
    stamps, poses = read_poses(path)
    if len(poses) == len(times):
        return (times if stamps is None else stamps.tolist()), poses
    if stamps is not None and len(stamps):
        order = np.argsort(stamps)
        after = np.searchsorted(stamps[order], times).clip(1, len(stamps) - 1) if len(stamps) > 1 else np.zeros(1, int)
        candidates = np.stack([order[after - 1], order[after]])
        nearest = candidates[np.abs(stamps[candidates] - np.asarray(times)).argmin(0), np.arange(len(times))]
        if np.abs(stamps[nearest] - np.asarray(times)).max() < 1e-3:
            return stamps[nearest].tolist(), poses[nearest]
    raise ValueError(
        f"{path}: {len(poses)} poses for {len(times)} sweeps; give one for each sweep in order, or TUM rows whose "
        "times are the sweeps' names (epoch seconds, milli-, micro- or nanoseconds)"
    )
