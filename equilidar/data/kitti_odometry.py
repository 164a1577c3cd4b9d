"""KITTI odometry, and whatever has its layout: sequences of consecutive sweeps with poses, no labels."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equilidar.data.guarded_pairs import GuardedPairs
from equilidar.data.kitti_calibration import matrix, read_matrices, rigid_4x4
from equilidar.data.kitti_drives import odometry_recording
from equilidar.data.listing import last_number, point_files, require_folder
from equilidar.data.point_files import SUFFIXES
from equilidar.data.poses import read_kitti_poses
from equilidar.data.recordings import Frame, Run, split_runs

_PERIOD = 0.1


class KittiOdometry(GuardedPairs):
    """Pairs from `sequences/NN/velodyne`, with poses of `sequences/NN/poses.txt` or `poses/NN.txt`.

    Pose rows are poses of the left camera: with the calibration's `Tr` (velodyne -> camera 0), sweep `source` goes to
    sweep `target` by inv(Tr) inv(P_target) P_source Tr. Sequences without poses get KISS-ICP's.

    Raises:
        FileNotFoundError: a folder or the calibration does not exist.
        ValueError: no pair is left, or pose rows do not reach to the last sweep.
    """

    dataset_name: ClassVar[str] = "kitti_odometry"

    def __init__(
        self,
        root: str | Path,
        sequences: list[str] | tuple[str, ...] | None = None,
        **options: Any,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `sequences/`.
            sequences: names ("00"); None for all.
            options: gap, accumulation, poses and what may be used; see `GuardedPairs`.
        """
        self.root = require_folder(Path(root), "KITTI odometry data", "dataset.root")
        above = require_folder(self.root / "sequences", "KITTI odometry data", "dataset.root")
        names = sorted(p.name for p in above.iterdir() if p.is_dir()) if sequences is None else [*map(str, sequences)]
        drives = {name: odometry_recording(name) for name in names}
        super().__init__(self.dataset_name, drives, lambda name: self._runs(above / name), **options)

    def _runs(self, folder: Path) -> list[Run]:
        scans = point_files(require_folder(folder / "velodyne", "KITTI odometry sweeps", "dataset.root"), SUFFIXES)
        numbers = [last_number(path.stem) or 0 for path in scans]
        times = _read_times(folder / "times.txt")
        frames = [
            Frame(
                f"{self.dataset_name}/{folder.name}/{path.stem}",
                path,
                number,
                times[number] if number < len(times) else number * _PERIOD,
            )
            for path, number in zip(scans, numbers, strict=True)
        ]
        return split_runs(frames, self._poses(folder, numbers), max_step=1.0)

    def _poses(self, folder: Path, numbers: list[int]) -> NDArray[np.float64] | None:
        candidates = (folder / "poses.txt", self.root / "poses" / f"{folder.name}.txt")
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            return None
        camera = read_kitti_poses(path)
        if numbers and max(numbers) >= len(camera):
            raise ValueError(
                f"{path}: {len(camera)} poses, but there is a sweep {max(numbers)}; download it again, or remove the "
                "file to have poses estimated"
            )
        camera_T_velo = _read_velodyne_calibration(folder)
        return np.linalg.inv(camera_T_velo) @ camera[numbers] @ camera_T_velo


def _read_velodyne_calibration(folder: Path) -> NDArray[np.float64]:
    path = next((p for p in (folder / "calib.txt", folder / "calib_Tr.txt") if p.is_file()), folder / "calib.txt")
    return rigid_4x4(matrix(read_matrices(path), "Tr", (3, 4), path))


def _read_times(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()] if path.is_file() else []
