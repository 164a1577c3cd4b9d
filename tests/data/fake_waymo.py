"""Waymo segments made of simulated sweeps: TFRecord files of the owner's own protobuf messages."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from waymo_open_dataset import dataset_pb2

from equilidar.data.simulator.classes import SEMANTICS
from equilidar.data.simulator.sensor import Sensor
from equilidar.data.simulator.sweep import SimulatedSweep
from tests.data.simulated import sensor_of, simulate

RATE = 10.0
TYPES = {"Car": 1, "Van": 1, "Truck": 1, "Pedestrian": 2, "Cyclist": 4}
START = 1_550_083_467_000_000
HEIGHT = 1.73
LABEL_FIELDS = (6, 7, 8, 9)  # laser_labels, no_label_zones, camera_labels, projected_lidar_labels
# A turn and a place of the lidar on the vehicle; the azimuth of a column is the vehicle's, whatever the turn.
TOP_TURN = 2.1
ZONE_BEYOND = 8.0  # metres to the left of the vehicle

_TABLE = []
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = (_crc >> 1) ^ (0x82F63B78 if _crc & 1 else 0)
    _TABLE.append(_crc)


def masked_crc(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_records(path: Path, contents: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for content in contents:
            length = struct.pack("<Q", len(content))
            file.write(length + struct.pack("<I", masked_crc(length)))
            file.write(content + struct.pack("<I", masked_crc(content)))
    return path


def read_records(path: Path) -> list[bytes]:
    """Return the contents; nothing is checked."""
    data, place, contents = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        contents.append(data[place + 12 : place + 12 + length])
        place += 16 + length
    return contents


def segment_file(root: Path, number: int = 0) -> Path:
    return sorted((root / "training").glob("*.tfrecord"))[number]


def rewrite(path: Path, number: int, change: Callable[[dataset_pb2.Frame], object]) -> None:
    """Let `change` edit the message of record `number`."""
    contents = read_records(path)
    message = dataset_pb2.Frame.FromString(contents[number])
    change(message)
    contents[number] = message.SerializeToString()
    write_records(path, contents)


def no_lasers(frame: dataset_pb2.Frame) -> None:
    del frame.lasers[:]


def write_segments(
    root: Path,
    segments: tuple[str, ...] = ("100_000", "200_000"),
    frames: int = 3,
    split: str = "training",
    sensor: dict[str, Any] | None = None,
    change: Callable[[dataset_pb2.Frame], None] | None = None,
) -> list[list[SimulatedSweep]]:
    """Write a file for each segment; return what was simulated."""
    simulated = [[simulate(s, f, RATE, sensor) for f in range(frames)] for s in range(len(segments))]
    for number, (segment, sweeps) in enumerate(zip(segments, simulated, strict=True)):
        messages = [make_frame(segment, sweep, sensor_of(RATE, sensor), number) for sweep in sweeps]
        for message in messages:
            if change is not None:
                change(message)
        path = root / split / f"segment-{segment}_with_camera_labels.tfrecord"
        write_records(path, [message.SerializeToString() for message in messages])
    return simulated


def world_T_vehicle(sweep: SimulatedSweep) -> np.ndarray:
    sensor_T_vehicle = np.eye(4)
    sensor_T_vehicle[2, 3] = -HEIGHT
    offset = np.eye(4)
    offset[:3, 3] = -300.0, 200.0, 12.0
    return offset @ sweep.world_T_sensor @ sensor_T_vehicle


def make_frame(segment: str, sweep: SimulatedSweep, sensor: Sensor, number: int = 0) -> dataset_pb2.Frame:
    frame = dataset_pb2.Frame()
    frame.context.name = segment
    frame.timestamp_micros = START + 60_000_000 * number + round(sweep.timestamp * 1e6)
    pose = world_T_vehicle(sweep)
    frame.pose.transform.extend(pose.flatten().tolist())
    frame.images.add(name=1, image=bytes(np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8)))
    _add_top(frame, sweep, sensor, pose)
    for lidar in (5, 2, 4, 3):
        _add_near_lidar(frame, lidar)
    _add_labels(frame, sweep, pose)
    return frame


def matrix(array: np.ndarray) -> bytes:
    message = dataset_pb2.MatrixFloat(data=array.flatten().tolist())
    message.shape.dims.extend(array.shape)
    return zlib.compress(message.SerializeToString())


def _add_top(frame: dataset_pb2.Frame, sweep: SimulatedSweep, sensor: Sensor, pose: np.ndarray) -> None:
    calibration = frame.context.laser_calibrations.add(name=1)
    calibration.beam_inclinations.extend(np.radians(sensor.elevation).tolist())
    extrinsic = np.eye(4)
    extrinsic[:2, :2] = [[np.cos(TOP_TURN), -np.sin(TOP_TURN)], [np.sin(TOP_TURN), np.cos(TOP_TURN)]]
    extrinsic[2, 3] = HEIGHT
    calibration.extrinsic.transform.extend(extrinsic.flatten().tolist())

    image = np.zeros((sensor.beams, sensor.azimuth_steps, 4), np.float32)
    image[..., 3] = -1
    rows = sensor.beams - 1 - sweep.beam
    image[rows, sweep.column, 0] = np.linalg.norm(sweep.xyz.astype(np.float64), axis=1)
    image[rows, sweep.column, 1] = sweep.intensity * 30
    image[rows, sweep.column, 2] = sweep.beam % 3 * 0.5
    image[rows, sweep.column, 3] = np.where(sweep.xyz[:, 1] > ZONE_BEYOND, 1, -1)
    second = np.where(np.arange(sensor.azimuth_steps)[None, :, None] % 7 == 0, image, np.float32([0, 0, 0, -1]))
    second[..., 0] *= np.float32(1.25)

    yaw, pitch = np.arctan2(pose[1, 0], pose[0, 0]), -np.arcsin(pose[2, 0])
    roll = np.arctan2(pose[2, 1], pose[2, 2])
    poses = np.broadcast_to(np.float32([roll, pitch, yaw, *pose[:3, 3]]), (*image.shape[:2], 6))
    laser = frame.lasers.add(name=1)
    laser.ri_return1.range_image_compressed = matrix(image)
    laser.ri_return1.range_image_pose_compressed = matrix(poses)
    laser.ri_return2.range_image_compressed = matrix(second)


def _add_near_lidar(frame: dataset_pb2.Frame, lidar: int) -> None:
    rng = np.random.default_rng(lidar)
    calibration = frame.context.laser_calibrations.add(name=lidar, beam_inclination_min=-1.5, beam_inclination_max=0.5)
    extrinsic = np.eye(4)
    extrinsic[:3, 3] = rng.uniform(-2, 2, 3)
    calibration.extrinsic.transform.extend(extrinsic.flatten().tolist())
    laser = frame.lasers.add(name=lidar)
    for image_of, share in ((laser.ri_return1, 0.8), (laser.ri_return2, 0.1)):
        image = rng.uniform(0.5, 1, (5, 9, 4)).astype(np.float32)
        image[rng.uniform(size=(5, 9)) > share] = -1
        image[..., 3] = -1
        image_of.range_image_compressed = matrix(image)


def _add_labels(frame: dataset_pb2.Frame, sweep: SimulatedSweep, pose: np.ndarray) -> None:
    objects = sweep.objects
    frame.no_label_zones.add(x=[0.0, 1.0, 1.0], y=[2.0, 2.0, 3.0])
    for i in range(len(objects.track)):
        name = SEMANTICS[int(objects.semantic[i])]
        label = frame.laser_labels.add(id=f"object{objects.track[i]}", type=TYPES[name])
        x, y, z = objects.center[i].tolist()
        length, width, height = objects.size[i].tolist()
        heading = float(objects.yaw[i])
        label.box.center_x, label.box.center_y, label.box.center_z = x, y, z + HEIGHT
        label.box.length, label.box.width, label.box.height, label.box.heading = length, width, height, heading
        speed = pose[:3, :3] @ objects.velocity[i]
        label.metadata.speed_x, label.metadata.speed_y, label.metadata.speed_z = speed.tolist()
        label.num_lidar_points_in_box = int(objects.num_points[i])
        camera = frame.camera_labels.add(name=1)
        camera.labels.add(id=label.id, type=label.type)
