"""Your own recordings: PointCloud2 in ROS 1 bags, ROS 2 bags and MCAP files, as pairs of sweeps."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.faults import FaultySweepError
from equilidar.data.log_index import LogIndex, load_index
from equilidar.data.log_poses import find_poses
from equilidar.data.point_files import PointFormat, find_column
from equilidar.data.pointcloud2 import TIME_UNITS, TimeUnit, cloud_columns, is_return, seconds_after
from equilidar.data.recordings import Frame, RecordedPairs, split_runs
from equilidar.data.ros_bags import bag_files, find_bags, opened
from equilidar.structures import SensorContract

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogSource:
    """What is read of a log.

    Attributes:
        topic: of the sweeps.
        num_bytes: size of its files: other ones are other data.
        base_T_sensor: sixteen numbers where points are moved into the base frame, else None.
    """

    topic: str
    num_bytes: int
    base_T_sensor: tuple[float, ...] | None


@dataclass(frozen=True)
class LogSweeps:
    """Decodes PointCloud2 messages of logs; missing returns are left out.

    Attributes:
        sources: by path of the log.
        point_format: channels and scales; coordinates are in the frame that it names.
        time_unit: see `seconds_after`; channel `time` is in seconds after the message's stamp.
    """

    sources: dict[str, LogSource]
    point_format: PointFormat
    time_unit: TimeUnit

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return self.point_format.contract

    @property
    def settings(self) -> dict[str, Any]:
        """Topics, sizes, channels, units, and the transforms into the base frame, wherever the logs lie."""
        return {
            "logs": [[Path(log).name, asdict(source)] for log, source in self.sources.items()],
            "points": asdict(self.point_format),
            "time_unit": self.time_unit,
        }

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates and channels; see `PointFormat.convert`."""
        log = self.sources[str(frame.path)]
        source = f"{frame.path}, {log.topic} at {frame.timestamp:.3f} s"
        columns = cloud_columns(self._message(frame, source), source)
        found = find_columns(columns, self.point_format.channels, source)
        returns = is_return(found)
        found = {name: column[returns] for name, column in found.items()}
        if "time" in found:
            found["time"] = seconds_after(found["time"], frame.number, source, self.time_unit)
        xyz, features = self.point_format.convert(found, source)
        if log.base_T_sensor is not None:
            base_T_sensor = torch.tensor(log.base_T_sensor, dtype=torch.float64).reshape(4, 4)
            xyz = (xyz.double() @ base_T_sensor[:3, :3].T + base_T_sensor[:3, 3]).float()
        return xyz, features

    def _message(self, frame: Frame, source: str) -> Any:
        """Find a message by its time of recording; of several at one time the one with the frame's stamp."""
        topic = self.sources[str(frame.path)].topic
        try:
            there = [m for _, _, m in opened(frame.path).messages([topic], frame.position, frame.position + 1)]
        except (ValueError, OSError) as error:
            raise FaultySweepError(str(error)) from error
        if not there:
            raise FaultySweepError(f"{source}: the message is no longer there; was the log changed?")
        stamps = [m.header.stamp.sec * 1_000_000_000 + m.header.stamp.nanosec for m in there]
        return there[stamps.index(frame.number)] if frame.number in stamps else there[0]


class LogPairs(RecordedPairs):
    """Pairs of sweeps of one topic, from one log or a folder of logs; each log is a sequence.

    Poses come from tf or a topic of odometry, interpolated to each sweep's stamp; sweeps outside their range are left
    out, and the log is cut there. Without any, KISS-ICP estimates them.

    Attributes:
        pose_sources: where the poses are from, by log.
        num_without_pose: sweeps that were left out.

    Raises:
        FileNotFoundError: there is no log.
        ImportError: rosbags is not installed.
        ValueError: a log is damaged, the topic or the poses asked for are not in it, or no pair is left.
    """

    def __init__(
        self,
        root: str | Path,
        topic: str | None = None,
        channels: list[str] | tuple[str, ...] = ("intensity",),
        scales: list[float] | tuple[float, ...] = (255.0,),
        time_unit: str = "auto",
        poses: str = "auto",
        fixed_frame: str | None = None,
        base_frame: str | None = None,
        pose_T_points: list[float] | tuple[float, ...] | None = None,
        gap: int = 1,
        accumulate: int = 1,
        cache_dir: str | Path | None = None,
    ) -> None:
        """List the pairs. The first time, each log is read through once; what is found is kept in the cache.

        Args:
            root: a .bag, .mcap or .db3 file, the folder of a ROS 2 bag, or a folder that holds such.
            topic: of the sweeps; None where each log has but one PointCloud2 topic.
            channels: "intensity" (or reflectivity), "ring" (or line), "time" (or t, timestamp, offset_time), or any
                field's own name.
            scales: see `PointFormat`.
            time_unit: of the point times; see `seconds_after`.
            poses: see `find_poses`.
            fixed_frame: see `find_poses`.
            base_frame: move the points into this frame (base_link), by the log's own fixed transforms; None leaves them
                in the sensor's.
            pose_T_points: x, y, z, qx, qy, qz, qw; see `find_poses`.
            gap: sweeps from source to target.
            accumulate: see `RecordedPairs`.
            cache_dir: for indices and estimated poses; None for the user's cache folder.
        """
        if time_unit not in TIME_UNITS:
            raise ValueError(f"dataset.time_unit must be one of {', '.join(TIME_UNITS)}, got {time_unit!r}")
        root = Path(root)
        bags = find_bags(root)
        indices = {bag: load_index(bag, topic, cache_dir) for bag in bags}
        frame = "sensor" if base_frame is None else "ego"
        reader = LogSweeps(
            {str(bag): log_source(bag, index, base_frame) for bag, index in indices.items()},
            PointFormat(channels=tuple(channels), scales=tuple(scales), frame=frame),
            cast(TimeUnit, time_unit),
        )
        self.pose_sources: dict[str, str] = {}
        self.num_without_pose = 0
        matrix = None if pose_T_points is None else _matrix(pose_T_points)
        runs = []
        for (bag, index), sequence in zip(indices.items(), sequence_names(root, bags), strict=True):
            found = find_poses(index, bag, poses, fixed_frame, base_frame or index.frame_id, matrix)
            self.pose_sources[sequence] = "estimated" if found is None else found.source
            kept = np.ones(len(index.stamps), dtype=bool) if found is None else found.known
            self.num_without_pose += int((~kept).sum())
            _report(sequence, index, kept)
            frames = log_frames(bag, sequence, index)
            step = 1.5 * float(np.median(np.diff(index.stamps))) if len(frames) > 1 else 1.0
            given = None if found is None else found.poses[kept]
            runs += split_runs([f for f, keep in zip(frames, kept, strict=True) if keep], given, step)
        super().__init__("own_log", runs, reader, gap, EgoMotion(cache_dir), accumulate=accumulate)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {
            **super().provenance(),
            "pose_sources": self.pose_sources,
            "num_without_pose": self.num_without_pose,
        }


def find_columns(columns: dict[str, NDArray], channels: tuple[str, ...], source: str) -> dict[str, NDArray]:
    """Return x, y, z and the channels under their own names.

    Raises:
        ValueError: the cloud has no such field.
    """
    return {name: columns[find_column(columns, name, source)] for name in ("x", "y", "z", *channels)}


def sequence_names(root: Path, bags: list[Path]) -> list[str]:
    """Return the logs' names without suffixes, or with them where two would be called the same."""
    whole = [bag.name if bag == root else bag.relative_to(root).as_posix() for bag in bags]
    short = [name.removesuffix(bag.suffix) if bag.is_file() else name for bag, name in zip(bags, whole, strict=True)]
    return short if len(set(short)) == len(short) else whole


def log_frames(bag: Path, sequence: str, index: LogIndex) -> list[Frame]:
    """Return the sweeps of a log."""
    return [
        Frame(f"own_log/{sequence}/{stamp}", bag, stamp, stamp * 1e-9, position)
        for stamp, position in zip(index.stamps.tolist(), index.log_times.tolist(), strict=True)
    ]


def _report(sequence: str, index: LogIndex, kept: NDArray[np.bool_]) -> None:
    points, missing = int(index.num_points.clip(0).sum()), int(index.num_missing.sum())
    if missing:
        _LOG.info("%s: %d of %d points are missing returns and are left out", sequence, missing, points)
    if not kept.all():
        _LOG.warning("%s: %d of %d sweeps have no pose and are left out", sequence, int((~kept).sum()), len(kept))


def log_source(bag: Path, index: LogIndex, base_frame: str | None) -> LogSource:
    """Return what is read of a log.

    Raises:
        ValueError: no fixed transform leads into the base frame.
    """
    num_bytes = sum(path.stat().st_size for path in bag_files(bag))
    if base_frame is None:
        return LogSource(index.topic, num_bytes, None)
    matrix = index.tree.static(index.frame_id, base_frame)
    if matrix is None:
        raise ValueError(
            f"{bag}: no fixed transform leads from the sensor's frame {index.frame_id} to {base_frame}; its frames "
            f"are: {', '.join(index.tree.frames()) or 'none'}; set dataset.base_frame to one of them, or null"
        )
    return LogSource(index.topic, num_bytes, tuple(matrix.reshape(-1).tolist()))


def _matrix(numbers: list[float] | tuple[float, ...]) -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if values.shape != (7,) or not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-3:
        raise ValueError(f"dataset.pose_T_points must be x, y, z, qx, qy, qz, qw, got {list(numbers)}")
    matrix = np.eye(4)
    matrix[:3, 3] = values[:3]
    matrix[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    return matrix
