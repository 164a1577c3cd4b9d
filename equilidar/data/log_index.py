"""What a log holds: the times of its sweeps and every pose in it, found in one pass and kept on disk."""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from equilidar.data.atomic_file import atomic_file
from equilidar.data.ego_motion import default_cache
from equilidar.data.faults import FaultySweepError
from equilidar.data.listing import content_hash
from equilidar.data.pointcloud2 import cloud_columns, is_return
from equilidar.data.ros_bags import CLOUD, ODOMETRY, POSE, TRANSFORMS, Bag, bag_files
from equilidar.data.transform_tree import Motion, TransformTree

_LOG = logging.getLogger(__name__)
_VERSION = 1


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


def load_index(path: Path, topic: str | None, cache_dir: Path | None) -> LogIndex:
    """Return the index of a log, from the cache where the same files were indexed before.

    Args:
        path: file or folder of the log.
        topic: of the sweeps; None where there is only one.
        cache_dir: None for the user's cache folder.

    Raises:
        ValueError: the log is damaged, or has no such topic (the message lists those that it has).
    """
    files = [[str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns] for p in bag_files(path)]
    folder = cache_dir or default_cache().with_name("logs")
    cache = folder / f"{content_hash([_VERSION, files, topic])}.npz"
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as content:
            return _unpack(dict(content))
    bag = Bag(path)
    try:
        index = _scan(bag, _choose_topic(bag, topic))
    finally:
        bag.close()
    with atomic_file(cache) as file:
        np.savez(file, allow_pickle=False, **_pack(index))
    return index


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


def _scan(bag: Bag, topic: str) -> LogIndex:
    frame_ids: dict[str, None] = {}
    sweeps: list[tuple[int, int, int, int]] = []
    static: dict[str, tuple[str, NDArray[np.float64]]] = {}
    # (parent, child) -> times and transforms, by where they are from: tf ("") or a topic.
    timed: dict[str, dict[tuple[str, str], list[tuple[int, NDArray[np.float64]]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    transforms = bag.topics_of(*TRANSFORMS)
    topics = [topic, *transforms, *bag.topics_of(ODOMETRY, POSE)]
    for name, log_time, message in bag.messages(topics):
        if name == topic:
            frame_ids[_clean(message.header.frame_id)] = None
            sweeps.append((log_time, _nanoseconds(message.header.stamp), *_count(message, f"{bag.path}, {topic}")))
        elif name in transforms:
            for entry in message.transforms:
                parent, child = _clean(entry.header.frame_id), _clean(entry.child_frame_id)
                matrix = _matrix(entry.transform.translation, entry.transform.rotation, bag.path)
                if name.rstrip("/").endswith("tf_static"):
                    static[child] = (parent, matrix)
                else:
                    timed[""][parent, child].append((_nanoseconds(entry.header.stamp), matrix))
        else:
            has_child = hasattr(message, "child_frame_id")
            pose = message.pose.pose if has_child else message.pose
            child = _clean(message.child_frame_id) if has_child else ""
            matrix = _matrix(pose.position, pose.orientation, bag.path)
            timed[name][_clean(message.header.frame_id), child].append((_nanoseconds(message.header.stamp), matrix))
    if len(frame_ids) > 1:
        raise ValueError(f"{bag.path}: topic {topic} changes its frame: {', '.join(frame_ids)}; set dataset.topic")
    moving, still = _motions(timed.pop("", {}))
    tracks = {}
    for name, edges in timed.items():
        (parent, child), entries = max(edges.items(), key=lambda item: len(item[1]))
        tracks[name] = (child, _motion(parent, entries))
    table = np.array(sweeps, dtype=np.int64).reshape(-1, 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    log_times, stamps, points, missing = table.T
    if not (np.diff(stamps) > 0).all():
        _LOG.warning("%s: the stamps of %s do not rise; the times of recording are used", bag.path, topic)
        stamps = log_times
        if not (np.diff(stamps) > 0).all():
            raise ValueError(f"{bag.path}: neither stamps nor times of recording of {topic} rise; record it again")
    tree = TransformTree(
        {**still, **static}, {child: motion for child, motion in moving.items() if child not in static}
    )
    return LogIndex(topic, next(iter(frame_ids), ""), log_times, stamps, points, missing, tree, tracks)


def _motions(
    edges: dict[tuple[str, str], list[tuple[int, NDArray[np.float64]]]],
) -> tuple[dict[str, Motion], dict[str, tuple[str, NDArray[np.float64]]]]:
    """Tell apart what moves from what is only published again and again."""
    moving, still = {}, {}
    for (parent, child), entries in edges.items():
        first = entries[0][1]
        if all(np.abs(matrix - first).max() < 1e-9 for _, matrix in entries):
            still[child] = (parent, first)
        else:
            moving[child] = _motion(parent, entries)
    return moving, still


def _motion(parent: str, entries: list[tuple[int, NDArray[np.float64]]]) -> Motion:
    times = np.array([time for time, _ in entries], dtype=np.int64)
    return Motion.sorted(parent, times, np.stack([matrix for _, matrix in entries]))


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


def _matrix(position: Any, rotation: Any, path: Path) -> NDArray[np.float64]:
    quaternion = np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    matrix = np.eye(4)
    matrix[:3, 3] = position.x, position.y, position.z
    if not np.isfinite(matrix).all() or not np.isfinite(quaternion).all() or np.linalg.norm(quaternion) < 1e-3:
        raise ValueError(f"{path}: a pose or transform is not finite, or its quaternion has no length")
    matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    return matrix


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
