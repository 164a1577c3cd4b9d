"""What a log holds: the times of its sweeps and every pose in it, found in one pass and kept on disk."""

import json
import logging
from array import array
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from equilidar.data.faults import FaultySweepError
from equilidar.data.file_cache import cache_path, kept_arrays
from equilidar.data.pointcloud2 import cloud_columns, is_return
from equilidar.data.ros_bags import CLOUD, ODOMETRY, POSE, TRANSFORMS, Bag, bag_files
from equilidar.data.transform_tree import Motion, TransformTree

_LOG = logging.getLogger(__name__)
_VERSION = 1
_TIMED, _STATIC = "tf", "tf static"  # no topics: those begin with a slash


@dataclass(frozen=True)
class LogIndex:
    """Times and poses of a log.

    Attributes:
        topic: of the sweeps.
        frame_id: frame of their coordinates.
        log_times: (F,) nanoseconds of recording, by which a message is found again.
        stamps: (F,) nanoseconds, of the messages' headers; of recording where those do not rise.
        num_points: (F,) points of each sweep, missing returns included; -1 where it cannot be decoded.
        num_missing: (F,) missing returns of each.
        tree: frames as tf knows them.
        tracks: by topic of odometry or stamped poses: name of the frame that moves ("" if it is not told), and how.
    """

    topic: str
    frame_id: str
    log_times: NDArray[np.int64]
    stamps: NDArray[np.int64]
    num_points: NDArray[np.int64]
    num_missing: NDArray[np.int64]
    tree: TransformTree
    tracks: dict[str, tuple[str, Motion]]


def load_index(path: Path, topic: str | None, cache_dir: str | Path | None) -> LogIndex:
    """Return the index of a log, from the cache where the same files were indexed before.

    Args:
        path: file or folder of the log.
        topic: of the sweeps; None where there is only one.
        cache_dir: None for the user's cache folder.

    Raises:
        ValueError: the log is damaged, or has no such topic (the message lists those that it has).
    """

    def make() -> dict[str, NDArray]:
        bag = Bag(path)
        try:
            return _pack(_scan(bag, _choose_topic(bag, topic)))
        finally:
            bag.close()

    return _unpack(kept_arrays(cache_path(bag_files(path), [_VERSION, topic], "logs", cache_dir), make))


def _choose_topic(bag: Bag, topic: str | None) -> str:
    clouds = bag.topics_of(CLOUD)
    if topic in clouds or (topic is None and len(clouds) == 1):
        return topic or clouds[0]
    if clouds:
        listed = ", ".join(f"{name} ({bag.topics[name][1]} messages)" for name in clouds)
        wanted = f"no PointCloud2 topic {topic}" if topic else f"{len(clouds)} PointCloud2 topics"
        raise ValueError(f"{bag.path}: {wanted}; set dataset.topic to one of: {listed}")
    listed = ", ".join(f"{name} ({kind})" for name, (kind, _) in sorted(bag.topics.items())) or "none"
    raise ValueError(f"{bag.path}: no PointCloud2 messages; its topics are: {listed}")


class _Poses:
    """Times and transforms of one moving frame, as they are met: 64 bytes each."""

    def __init__(self) -> None:
        self.times, self.numbers = array("q"), array("d")

    def add(self, stamp: Any, position: Any, rotation: Any) -> None:
        self.times.append(_nanoseconds(stamp))
        self.numbers.extend((position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w))

    def matrices(self, path: Path) -> NDArray[np.float64]:
        """Return (K, 4, 4).

        Raises:
            ValueError: a number is not finite, or a quaternion has no length.
        """
        table = np.frombuffer(self.numbers, dtype=np.float64).reshape(-1, 7)
        if not np.isfinite(table).all() or np.linalg.norm(table[:, 3:], axis=1).min() < 1e-3:
            raise ValueError(f"{path}: a pose or transform is not finite, or its quaternion has no length")
        matrices = np.tile(np.eye(4), (len(table), 1, 1))
        matrices[:, :3, :3] = Rotation.from_quat(table[:, 3:]).as_matrix()
        matrices[:, :3, 3] = table[:, :3]
        return matrices


def _scan(bag: Bag, topic: str) -> LogIndex:
    frame_ids: dict[str, None] = {}
    sweeps: list[tuple[int, int, int, int]] = []
    # By where they are from (tf, tf_static, or a topic) and (parent, child).
    found: dict[str, dict[tuple[str, str], _Poses]] = defaultdict(lambda: defaultdict(_Poses))
    transforms = bag.topics_of(*TRANSFORMS)
    for name, log_time, message in bag.messages([topic, *transforms, *bag.topics_of(ODOMETRY, POSE)]):
        if name == topic:
            frame_ids[_clean(message.header.frame_id)] = None
            sweeps.append((log_time, _nanoseconds(message.header.stamp), *_count(message, f"{bag.path}, {topic}")))
        elif name in transforms:
            origin = _STATIC if name.endswith("tf_static") else _TIMED
            for entry in message.transforms:
                frames = _clean(entry.header.frame_id), _clean(entry.child_frame_id)
                found[origin][frames].add(entry.header.stamp, entry.transform.translation, entry.transform.rotation)
        else:
            has_child = hasattr(message, "child_frame_id")
            pose = message.pose.pose if has_child else message.pose
            frames = _clean(message.header.frame_id), _clean(message.child_frame_id) if has_child else ""
            found[name][frames].add(message.header.stamp, pose.position, pose.orientation)
    if len(frame_ids) > 1:
        raise ValueError(f"{bag.path}: topic {topic} changes its frame: {', '.join(frame_ids)}; set dataset.topic")
    tree = _tree(found.pop(_TIMED, {}), found.pop(_STATIC, {}), bag.path)
    tracks = {}
    for name, edges in found.items():
        (parent, child), poses = max(edges.items(), key=lambda item: len(item[1].times))
        tracks[name] = (child, Motion.sorted(parent, np.array(poses.times), poses.matrices(bag.path)))
    log_times, stamps, points, missing = _times(sweeps, f"{bag.path}, {topic}")
    return LogIndex(topic, next(iter(frame_ids), ""), log_times, stamps, points, missing, tree, tracks)


def _tree(timed: dict[tuple[str, str], _Poses], static: dict[tuple[str, str], _Poses], path: Path) -> TransformTree:
    """Tell apart what moves from what is only published again and again."""
    tree = TransformTree()
    for (parent, child), poses in timed.items():
        matrices = poses.matrices(path)
        if np.abs(matrices - matrices[0]).max() < 1e-9:
            tree.fixed[child] = (parent, matrices[0])
        else:
            tree.moving[child] = Motion.sorted(parent, np.array(poses.times), matrices)
    for (parent, child), poses in static.items():
        tree.fixed[child] = (parent, poses.matrices(path)[-1])
        tree.moving.pop(child, None)
    return tree


def _times(
    sweeps: list[tuple[int, int, int, int]], source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return times of recording, stamps, points and missing returns, by time."""
    table = np.array(sweeps, dtype=np.int64).reshape(-1, 4)
    log_times, stamps, points, missing = table[np.argsort(table[:, 0], kind="stable")].T
    if not (np.diff(stamps) > 0).all():
        _LOG.warning("%s: the stamps of the headers do not rise; the times of recording are used", source)
        stamps = log_times
        if not (np.diff(stamps) > 0).all():
            raise ValueError(f"{source}: neither stamps nor times of recording rise; record it again")
    return log_times, stamps, points, missing


def _count(message: Any, source: str) -> tuple[int, int]:
    try:
        columns = cloud_columns(message, source)
        if not {"x", "y", "z"} <= set(columns):
            raise ValueError(f"{source}: points without x, y, z; they have {', '.join(columns)}")
        returns = is_return(columns)
    except FaultySweepError as error:
        _LOG.warning("%s", error)
        return -1, 0
    return len(returns), int((~returns).sum())


def _clean(frame_id: str) -> str:
    return frame_id.lstrip("/")


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _pack(index: LogIndex) -> dict[str, NDArray]:
    """Return the index as arrays; names go into one of them as JSON."""
    arrays: dict[str, NDArray] = {
        "log_times": index.log_times,
        "stamps": index.stamps,
        "num_points": index.num_points,
        "num_missing": index.num_missing,
    }
    moving = [("", child, motion) for child, motion in index.tree.moving.items()]
    moving += [(topic, child, motion) for topic, (child, motion) in index.tracks.items()]
    for i, (_, _, motion) in enumerate(moving):
        arrays[f"times_{i}"], arrays[f"poses_{i}"] = motion.times_ns, motion.parent_T_child
    names = {
        "topic": index.topic,
        "frame_id": index.frame_id,
        "fixed": [[child, parent, matrix.tolist()] for child, (parent, matrix) in index.tree.fixed.items()],
        "moving": [[topic, child, motion.parent] for topic, child, motion in moving],
    }
    return {**arrays, "names": np.array(json.dumps(names))}


def _unpack(arrays: dict[str, NDArray]) -> LogIndex:
    names = json.loads(str(arrays["names"]))
    tree = TransformTree({child: (parent, np.array(matrix)) for child, parent, matrix in names["fixed"]})
    tracks = {}
    for i, (topic, child, parent) in enumerate(names["moving"]):
        motion = Motion(parent, arrays[f"times_{i}"], arrays[f"poses_{i}"])
        if topic:
            tracks[topic] = (child, motion)
        else:
            tree.moving[child] = motion
    return LogIndex(
        names["topic"],
        names["frame_id"],
        arrays["log_times"],
        arrays["stamps"],
        arrays["num_points"],
        arrays["num_missing"],
        tree,
        tracks,
    )
