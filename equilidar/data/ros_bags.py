"""ROS 1 bags, ROS 2 bags (sqlite3 or MCAP) and single .mcap and .db3 files, opened alike."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLOUD = "sensor_msgs/msg/PointCloud2"
ODOMETRY = "nav_msgs/msg/Odometry"
POSE = "geometry_msgs/msg/PoseStamped"
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")

SUFFIXES = (".bag", ".mcap", ".db3")
_REMEDIES = {
    ".bag": "try `rosbag reindex`",
    ".mcap": "try `mcap recover` (files must have the profile ros2)",
    ".db3": "try `ros2 bag reindex`",
    "": "try `ros2 bag reindex`",
}


def find_bags(root: Path) -> list[Path]:
    """Return the logs under `root`: files by suffix, folders of ROS 2 bags by their metadata.yaml.

    Raises:
        FileNotFoundError: there is none.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"no log {root}; set dataset.root to a .bag, .mcap or .db3 file, or a folder of logs")
    if (root / "metadata.yaml").is_file():
        return [root]
    folders = sorted(path.parent for path in root.rglob("metadata.yaml"))
    files = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    found = [*folders, *(path for path in files if not any(folder in path.parents for folder in folders))]
    if not found:
        raise FileNotFoundError(f"no ROS bag or MCAP file ({', '.join(SUFFIXES)}) under {root}; set dataset.root")
    return sorted(found)


def bag_files(bag: Path) -> list[Path]:
    """Return the files of a log."""
    return sorted(path for path in bag.iterdir() if path.is_file()) if bag.is_dir() else [bag]


class Bag:
    """An open log. Messages are decoded by the standard definitions of their types, not by those in the file.

    Attributes:
        path: of the file or folder.
        topics: message type and number of messages, by topic.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ImportError: rosbags is not installed.
            ValueError: it is no such file, or damaged.
        """
        self.path = path
        self._is_ros1 = path.suffix == ".bag"
        self._store = _typestore(self._is_ros1)
        with self._explained():
            self._reader = _open(path, self._is_ros1)
        self.topics: dict[str, tuple[str, int]] = {}
        for connection in self._reader.connections:
            before = self.topics.get(connection.topic, ("", 0))[1]
            self.topics[connection.topic] = (connection.msgtype, before + connection.msgcount)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def topics_of(self, *types: str) -> list[str]:
        """Return the topics of these message types that hold messages, by name."""
        return sorted(topic for topic, (kind, count) in self.topics.items() if kind in types and count)

    def messages(
        self, topics: list[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, time of recording (nanoseconds) and message, by time.

        Args:
            topics: whose messages.
            start: earliest time of recording.
            stop: time of recording before which to end.

        Raises:
            ValueError: the file is damaged.
        """
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if not connections:
            return
        decode = self._store.deserialize_ros1 if self._is_ros1 else self._store.deserialize_cdr
        with self._explained():
            for connection, time, data in self._reader.messages(connections, start=start, stop=stop):
                yield connection.topic, time, decode(data, connection.msgtype)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever goes wrong inside into one line."""
        try:
            yield
        except (ImportError, GeneratorExit):
            raise
        except Exception as error:  # the library, sqlite, zstd and lz4 all have their own
            first = (str(error) or type(error).__name__).splitlines()[0]
            remedy = _REMEDIES.get(self.path.suffix, _REMEDIES[""])
            raise ValueError(f"{self.path}: cannot be read as a log, {remedy} ({first})") from error


def _open(path: Path, is_ros1: bool) -> Any:
    if is_ros1:
        from rosbags.rosbag1 import Reader as Reader1

        reader: Any = Reader1(path)
    else:
        from rosbags.rosbag2 import Reader as Reader2

        reader = Reader2(path)
    reader.open()
    return reader


@functools.cache
def _typestore(is_ros1: bool) -> Any:
    """Return the standard message types; ROS 1's store lacks those of tf."""
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise ImportError("reading ROS bags and MCAP files needs rosbags: pip install 'equilidar[logs]'") from error
    if not is_ros1:
        return get_typestore(Stores.ROS2_HUMBLE)
    store = get_typestore(Stores.ROS1_NOETIC)
    for name in TRANSFORMS:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", name))
    return store


def opened(path: Path) -> Bag:
    """Return an open log that this process keeps: opening one reads its whole index."""
    return _opened(path, os.getpid())


@functools.lru_cache(maxsize=8)
def _opened(path: Path, process: int) -> Bag:
    # Forked workers share the offset of an open file: each process opens its own.
    return Bag(path)
