"""Annotated sweeps of Argoverse 2 with their boxes. Pair readers may not import this module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from equilidar.data.accumulation import accumulated_contract
from equilidar.data.argoverse2 import Argoverse2Sweeps, find_logs, log_runs, read_ego_poses
from equilidar.data.feather import POSE_COLUMNS, read_feather, rigid_transforms
from equilidar.data.listing import files_hash
from equilidar.data.recordings import Run, read_sweep
from equilidar.data.track_ids import track_number
from equilidar.formats.argoverse2_annotations import CATEGORIES, EVALUATED_CATEGORIES
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep

_LONGEST_STEP = 0.35  # seconds between two annotations of a track that its velocity may be taken from


@dataclass(frozen=True)
class Argoverse2Objects:
    """Annotations of one log, or of one sweep, row by row.

    Attributes:
        timestamp_ns: (M,) time of the sweep.
        category: (M,) names.
        track: (M,) number of the track's uuid.
        size: (M, 3) length, width, height, metres.
        ego_T_object: (M, 4, 4) in the ego frame of the sweep's time.
        velocity: (M, 3) metres per second over ground, axes of the ego frame; NaN where a track has no neighbour.
        num_points: (M,) LiDAR points in the box, as annotated.
    """

    timestamp_ns: NDArray[np.int64]
    category: NDArray[np.object_]
    track: NDArray[np.int64]
    size: NDArray[np.float64]
    ego_T_object: NDArray[np.float64]
    velocity: NDArray[np.float64]
    num_points: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.timestamp_ns)

    @classmethod
    def read(cls, log: Path) -> "Argoverse2Objects":
        """Read `annotations.feather` and the ego poses that velocities need.

        Raises:
            FileNotFoundError: one of the tables does not exist.
            ValueError: a table cannot be read, or names a category that Argoverse 2 does not have.
        """
        path = log / "annotations.feather"
        sizes = ("length_m", "width_m", "height_m")
        names = ("timestamp_ns", "track_uuid", "category", *sizes, *POSE_COLUMNS, "num_interior_pts")
        table = read_feather(path, names)
        unknown = sorted(set(table["category"]) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"{path}: unknown category {', '.join(map(repr, unknown))}; Argoverse 2 has no such class")
        uuids, rows = np.unique(table["track_uuid"].astype(str), return_inverse=True)
        track = np.array([track_number(uuid) for uuid in uuids.tolist()], dtype=np.int64)[rows]
        poses = rigid_transforms(table, path)
        times = table["timestamp_ns"].astype(np.int64)
        return cls(
            times,
            table["category"],
            track,
            np.stack([table[name] for name in sizes], 1),
            poses,
            _velocities(times, track, poses, read_ego_poses(log / "city_SE3_egovehicle.feather")),
            table["num_interior_pts"].astype(np.int64),
        )

    def select(self, rows: NDArray) -> "Argoverse2Objects":
        """Return some of the rows."""
        return Argoverse2Objects(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def boxes(self, class_names: tuple[str, ...]) -> Boxes3D:
        """Return the objects as boxes in the ego frame; every category must be one of `class_names`."""
        rotation = self.ego_T_object[:, :3, :3]
        return Boxes3D.make(
            torch.from_numpy(self.ego_T_object[:, :3, 3]).float(),
            torch.from_numpy(self.size).float(),
            torch.from_numpy(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])).float(),
            label=torch.tensor([class_names.index(name) for name in self.category], dtype=torch.int64),
            velocity=torch.from_numpy(self.velocity).float(),
            track=torch.from_numpy(self.track),
        )


class Argoverse2Labelled:
    """Annotated sweeps with boxes, velocities (from the annotations before and after) and track numbers.

    Attributes:
        frames: of annotated sweeps: log, run and position in it.
        class_names: classes that are kept, in the order of their label index.
        min_points: boxes with fewer annotated LiDAR points are left out.

    Raises:
        FileNotFoundError: there is no log, or one has no annotations.
        ValueError: the settings do not fit, or no sweep is annotated.
    """

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("train",),
        logs: list[str] | tuple[str, ...] | None = None,
        class_names: list[str] | tuple[str, ...] = EVALUATED_CATEGORIES,
        min_points: int = 1,
        channels: list[str] | tuple[str, ...] = ("intensity",),
        scales: list[float] | tuple[float, ...] = (255.0,),
        accumulate: int = 1,
    ) -> None:
        """List the sweeps.

        Args:
            root: see `Argoverse2`.
            splits: see `Argoverse2`.
            logs: see `Argoverse2`.
            class_names: of the categories.
            min_points: 1 is what the official evaluation asks for.
            channels: see `Argoverse2Sweeps`.
            scales: see `PointFormat`.
            accumulate: see `RecordedPairs`.
        """
        unknown = [name for name in class_names if name not in CATEGORIES]
        if unknown or not class_names or len(set(class_names)) != len(class_names):
            raise ValueError(
                f"dataset.class_names must name Argoverse 2 categories, each once, got {list(class_names)}"
            )
        self.name = "argoverse2"
        self.class_names = tuple(class_names)
        self.min_points = min_points
        self._reader = Argoverse2Sweeps(tuple(channels), tuple(scales))
        single = self._reader.contract
        self.contract: SensorContract = single if accumulate == 1 else accumulated_contract(single)
        self._accumulate = accumulate
        self._log_in_memory: tuple[Path, Argoverse2Objects] | None = None
        logs_found = find_logs(Path(root), splits, logs)
        self.frames = [entry for log in logs_found for entry in _annotated_frames(log)]
        self.keys = [run.frames[place].key for _, run, place in self.frames]
        if not self.frames:
            raise ValueError(
                f"none of the sweeps of {len(logs_found)} logs under {root} is annotated; set dataset.root"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with the boxes of `class_names`."""
        return LabelledSweep(self.sweep(index), self.objects(index).boxes(self.class_names))

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index`."""
        _, run, place = self.frames[index]
        return read_sweep(run, place, self._reader, self._accumulate)

    def objects(self, index: int) -> Argoverse2Objects:
        """Return the annotations of sweep `index` that become boxes, with their point counts."""
        log, run, place = self.frames[index]
        if self._log_in_memory is None or self._log_in_memory[0] != log:
            self._log_in_memory = (log, Argoverse2Objects.read(log))
        objects = self._log_in_memory[1]
        kept = (objects.timestamp_ns == run.frames[place].number) & (objects.num_points >= self.min_points)
        return objects.select(kept & np.isin(objects.category.astype(str), self.class_names))

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers names and sizes of sweeps and annotations."""
        tables = dict.fromkeys(log / "annotations.feather" for log, _, _ in self.frames)
        sweeps = [run.frames[place].path for _, run, place in self.frames]
        return {
            "name": self.name,
            "num_samples": len(self),
            "class_names": list(self.class_names),
            "min_points": self.min_points,
            "accumulate": self._accumulate,
            "hash": files_hash(self.keys, [*sweeps, *tables]),
        }


def _annotated_frames(log: Path) -> list[tuple[Path, Run, int]]:
    times = set(read_feather(log / "annotations.feather", ("timestamp_ns",))["timestamp_ns"].tolist())
    return [(log, run, i) for run in log_runs(log) for i, frame in enumerate(run.frames) if frame.number in times]


def _velocities(
    times: NDArray[np.int64],
    track: NDArray[np.int64],
    ego_T_object: NDArray[np.float64],
    city_T_ego: dict[int, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return (M, 3): from the annotation before to the one after, over ground, turned into each sweep's ego frame."""
    velocity = np.full((len(times), 3), np.nan)
    if not all(time in city_T_ego for time in np.unique(times).tolist()):
        return velocity
    poses = np.stack([city_T_ego[time] for time in times.tolist()]) if len(times) else np.zeros((0, 4, 4))
    position = np.einsum("nij,nj->ni", poses, ego_T_object[:, :, 3])[:, :3]
    order = np.lexsort((times, track))
    # An annotation with no near one of its track on a side stands for itself there.
    step = np.diff(times[order]) * 1e-9
    near = (np.diff(track[order]) == 0) & (step <= _LONGEST_STEP)
    before, after = np.arange(len(order)), np.arange(len(order))
    before[1:] -= near
    after[:-1] += near
    seconds = (times[order[after]] - times[order[before]]) * 1e-9
    known = seconds > 0
    over_ground = (position[order[after]] - position[order[before]])[known] / seconds[known, None]
    velocity[order[known]] = np.einsum("nji,nj->ni", poses[order[known], :3, :3], over_ground)
    return velocity
