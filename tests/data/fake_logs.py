"""Real ROS 1 bags, ROS 2 bags and MCAP files that tests write for themselves, out of simulated sweeps."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap_ros2.reader import read_ros2_messages
from mcap_ros2.writer import Writer
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from tests.data.fake_sequence import recorded_sweeps

KINDS = ("bag", "sqlite3", "mcap")
START = 1_700_000_000_250_000_000
STEP = 100_000_000
# The sensor on its mast: turned by a quarter, tilted a little.
BASE_T_SENSOR = np.eye(4)
BASE_T_SENSOR[:3, :3] = Rotation.from_euler("zyx", [1.57, 0.05, -0.02]).as_matrix()
BASE_T_SENSOR[:3, 3] = 0.4, -0.1, 1.7

FLOAT32, FLOAT64, UINT8, UINT16, UINT32 = 7, 8, 2, 4, 6
_NUMPY = {FLOAT32: "f4", FLOAT64: "f8", UINT8: "u1", UINT16: "u2", UINT32: "u4"}


@dataclass
class Cloud:
    """A PointCloud2 to be: fields as name, offset, datatype, values (height * width)."""

    fields: list[tuple[str, int, int, np.ndarray]]
    point_step: int
    height: int = 1
    row_padding: int = 0
    big_endian: bool = False
    extra_fields: list[tuple[str, int, int, int]] = field(default_factory=list)

    def data(self) -> np.ndarray:
        num = len(self.fields[0][3])
        width = num // self.height
        row = width * self.point_step + self.row_padding
        raw = bytearray(b"\xaa" * (row * self.height))
        order = ">" if self.big_endian else "<"
        for _, offset, datatype, values in self.fields:
            kind = order + _NUMPY[datatype]
            for i, value in enumerate(values):
                place = (i // width) * row + (i % width) * self.point_step + offset
                item = np.dtype(kind).itemsize
                raw[place : place + item] = np.asarray(value, dtype=kind).tobytes()
        return np.frombuffer(bytes(raw), dtype=np.uint8)

    def message(self, types: Any, header: Any) -> Any:
        point_field = types["sensor_msgs/msg/PointField"]
        entries = [(name, offset, datatype, 1) for name, offset, datatype, _ in self.fields] + self.extra_fields
        width = len(self.fields[0][3]) // self.height
        return types["sensor_msgs/msg/PointCloud2"](
            header=header,
            height=self.height,
            width=width,
            fields=[point_field(name=n, offset=o, datatype=d, count=c) for n, o, d, c in entries],
            is_bigendian=self.big_endian,
            point_step=self.point_step,
            row_step=width * self.point_step + self.row_padding,
            data=self.data(),
            is_dense=False,
        )


def velodyne_like(xyz: np.ndarray, intensity: np.ndarray) -> Cloud:
    """x, y, z, padding, intensity 0..255, ring, time in seconds: 24 bytes a point, as Velodyne's driver packs them."""
    num = len(xyz)
    ring, time = np.arange(num) % 64, np.linspace(-0.05, 0.05, num)
    columns = [("x", 0, FLOAT32, xyz[:, 0]), ("y", 4, FLOAT32, xyz[:, 1]), ("z", 8, FLOAT32, xyz[:, 2])]
    columns += [("intensity", 12, FLOAT32, 255 * intensity), ("ring", 16, UINT16, ring), ("time", 18, FLOAT32, time)]
    return Cloud(columns, point_step=24)


def typestore(ros1: bool) -> Any:
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    if ros1:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", "tf2_msgs/msg/TFMessage"))
    return store


@dataclass
class Contents:
    """What goes into a log.

    Attributes:
        clouds: by topic: time of each and the cloud.
        frame_id: of the sweeps.
        tf: (time, parent, child, matrix) of moving transforms.
        static: (parent, child, matrix).
        odometry: by topic: (time, frame, child, matrix).
        texts: by topic: time and text of std_msgs/String messages, which no reader asks for.
        recorded: times of recording of the sweeps of each topic; None for a little after they were measured.
    """

    clouds: dict[str, list[tuple[int, Cloud]]]
    frame_id: str = "velodyne"
    tf: list[tuple[int, str, str, np.ndarray]] = field(default_factory=list)
    static: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    odometry: dict[str, list[tuple[int, str, str, np.ndarray]]] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    recorded: list[int] | None = None

    def messages(self, store: Any, ros1: bool) -> Iterator[tuple[int, str, str, Any]]:
        """Yield time, topic, type and message, by time."""
        types = store.types

        def header(time: int, frame: str) -> Any:
            stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            sequence = {"seq": 0} if ros1 else {}
            return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame, **sequence)

        def parts(matrix: np.ndarray) -> tuple[list[float], list[float]]:
            return matrix[:3, 3].tolist(), Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()

        def transform(time: int, parent: str, child: str, matrix: np.ndarray) -> Any:
            position, rotation = parts(matrix)
            vector = types["geometry_msgs/msg/Vector3"](*position)
            inner = types["geometry_msgs/msg/Transform"](vector, types["geometry_msgs/msg/Quaternion"](*rotation))
            return types["geometry_msgs/msg/TransformStamped"](header(time, parent), child, inner)

        def odometry(time: int, frame: str, child: str, matrix: np.ndarray) -> Any:
            position, rotation = parts(matrix)
            pose = types["geometry_msgs/msg/Pose"](
                types["geometry_msgs/msg/Point"](*position), types["geometry_msgs/msg/Quaternion"](*rotation)
            )
            zero = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
            covariance = np.zeros(36)
            return types["nav_msgs/msg/Odometry"](
                header(time, frame),
                child,
                types["geometry_msgs/msg/PoseWithCovariance"](pose, covariance),
                types["geometry_msgs/msg/TwistWithCovariance"](
                    types["geometry_msgs/msg/Twist"](zero, zero), covariance
                ),
            )

        found = []
        tf_message = types["tf2_msgs/msg/TFMessage"]
        if self.static:
            entries = [transform(START - STEP, parent, child, matrix) for parent, child, matrix in self.static]
            found.append((START - STEP, "/tf_static", "tf2_msgs/msg/TFMessage", tf_message(entries)))
        for time, parent, child, matrix in self.tf:
            message = tf_message([transform(time, parent, child, matrix)])
            found.append((time, "/tf", "tf2_msgs/msg/TFMessage", message))
        for topic, rows in self.odometry.items():
            found += [(row[0], topic, "nav_msgs/msg/Odometry", odometry(*row)) for row in rows]
        for topic, lines in self.texts.items():
            found += [(time, topic, "std_msgs/msg/String", types["std_msgs/msg/String"](text)) for time, text in lines]
        for topic, clouds in self.clouds.items():
            recorded = self.recorded or [time + 3_000_000 for time, _ in clouds]
            for log_time, (time, cloud) in zip(recorded, clouds, strict=True):
                message = cloud.message(types, header(time, self.frame_id))
                found.append((log_time, topic, "sensor_msgs/msg/PointCloud2", message))
        yield from sorted(found, key=lambda entry: entry[0])


def write_log(path: Path, contents: Contents, kind: str = "mcap", compressed: bool = False) -> Path:
    """Write a log of a kind: "bag" (ROS 1), "sqlite3" or "mcap" (folders of ROS 2); return what to open."""
    ros1 = kind == "bag"
    store = typestore(ros1)
    path = path.with_suffix(".bag") if ros1 else path
    plugin = StoragePlugin.SQLITE3 if kind == "sqlite3" else StoragePlugin.MCAP
    writer: Any = Writer1(path) if ros1 else Writer2(path, version=9, storage_plugin=plugin)
    if ros1 and compressed:
        writer.set_compression(Writer1.CompressionFormat.BZ2)
    serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
    with writer:
        connections: dict[str, Any] = {}
        for time, topic, kind_of_message, message in contents.messages(store, ros1):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind_of_message, typestore=store)
            writer.write(connections[topic], time, serialize(message, kind_of_message))
    return path


def driven(num: int = 4, poses: str = "tf") -> Contents:
    """Return a simulated street driven with a sensor on a mast; poses in tf, in odometry, or none."""
    sweeps = recorded_sweeps(num)
    clouds = [(START + STEP * i, velodyne_like(s.xyz, s.intensity)) for i, s in enumerate(sweeps)]
    contents = Contents({"/points": clouds}, static=[("base_link", "velodyne", BASE_T_SENSOR)])
    world_T_base = [s.world_T_sensor @ np.linalg.inv(BASE_T_SENSOR) for s in sweeps]
    timed = [(START + STEP * i, "odom", "base_link", matrix) for i, matrix in enumerate(world_T_base)]
    if poses == "tf":
        contents.tf = timed
    elif poses == "odometry":
        contents.odometry = {"/odom": timed}
    return contents


def rewritten_by_its_own_library(path: Path, target: Path) -> Path:
    """Copy an MCAP file with the format's own writer: chunks are compressed and have checksums."""
    schemas: dict[str, Any] = {}
    with target.open("wb") as file:
        writer = Writer(file)
        for entry in read_ros2_messages(str(path)):
            if entry.schema.name not in schemas:
                schemas[entry.schema.name] = writer.register_msgdef(entry.schema.name, entry.schema.data.decode())
            time = entry.log_time_ns
            writer.write_message(entry.channel.topic, schemas[entry.schema.name], entry.ros_msg, time, time)
        writer.finish()
    return target
