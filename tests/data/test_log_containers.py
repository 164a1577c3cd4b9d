"""Recordings read a second time, by parsers of the containers that share nothing with the reader.

The MCAP container is compared with its own library in `test_own_log.py`.
"""

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from equilidar.data.own_log import LogPairs
from tests.data.fake_logs import driven, write_log

NUM = 3
TOPIC = "/points"


class Cursor:
    """Takes little-endian values off a buffer; with `align`, as CDR pads them."""

    def __init__(self, buffer: bytes, align: bool) -> None:
        self.buffer, self.align, self.place = buffer, align, 0

    def u8(self) -> int:
        self.place += 1
        return self.buffer[self.place - 1]

    def u32(self) -> int:
        if self.align:
            self.place += -self.place % 4
        self.place += 4
        return struct.unpack_from("<I", self.buffer, self.place - 4)[0]

    def take(self) -> bytes:
        size = self.u32()
        self.place += size
        return self.buffer[self.place - size : self.place]


def points_of(message: bytes, ros1: bool) -> np.ndarray:
    """Return x, y, z of a serialized PointCloud2."""
    # ROS 1 begins its header with a sequence number; CDR begins with four bytes that tell the encoding.
    cursor = Cursor(message[4:], align=not ros1)
    cursor.u32(), cursor.u32(), cursor.take()
    height, width = cursor.u32(), cursor.u32()
    for _ in range(cursor.u32()):
        cursor.take(), cursor.u32(), cursor.u8(), cursor.u32()
    assert cursor.u8() == 0
    step = cursor.u32()
    cursor.u32()
    table = np.frombuffer(cursor.take(), np.uint8).reshape(height * width, step)
    return np.ascontiguousarray(table[:, :12]).view("<f4")


def records(buffer: bytes) -> Iterator[tuple[dict[str, bytes], bytes]]:
    """Yield header and data of the records of a ROS 1 bag or of one of its chunks."""
    cursor = Cursor(buffer, align=False)
    while cursor.place < len(buffer):
        head = Cursor(cursor.take(), align=False)
        fields = {}
        while head.place < len(head.buffer):
            name, _, value = head.take().partition(b"=")
            fields[name.decode()] = value
        yield fields, cursor.take()


def messages_of_bag(path: Path) -> list[bytes]:
    magic, content = b"#ROSBAG V2.0\n", path.read_bytes()
    assert content.startswith(magic)
    topics: dict[bytes, str] = {}
    found = []
    for header, data in records(content[len(magic) :]):
        if header["op"] != b"\x05":
            continue
        assert header["compression"] == b"none"
        for inner, payload in records(data):
            if inner["op"] == b"\x07":
                topics[inner["conn"]] = inner["topic"].decode()
            elif inner["op"] == b"\x02" and topics[inner["conn"]] == TOPIC:
                found.append(payload)
    return found


def messages_of_database(path: Path) -> list[bytes]:
    (file,) = path.glob("*.db3")
    query = "SELECT data FROM messages JOIN topics ON topics.id = topic_id WHERE name = ? ORDER BY timestamp"
    with sqlite3.connect(file) as connection:
        return [row[0] for row in connection.execute(query, (TOPIC,))]


@pytest.mark.parametrize("kind", ["bag", "sqlite3"])
def test_containers_hold_what_the_reader_says(tmp_path: Path, kind: str):
    path = write_log(tmp_path / "drive", driven(NUM), kind)
    data = LogPairs(path, cache_dir=tmp_path / "cache")
    messages = messages_of_bag(path) if kind == "bag" else messages_of_database(path)
    assert len(messages) == data.num_sweeps == NUM
    for index, message in enumerate(messages):
        np.testing.assert_array_equal(data.sweep(index).xyz, points_of(message, ros1=kind == "bag"))
