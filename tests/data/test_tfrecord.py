"""TFRecord files against a writer of the test's own, and every way to break one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilidar.data.faults import FaultySweepError
from equilidar.data.protobuf_fields import fields, keep_fields
from equilidar.data.tfrecord import list_records, masked_crc, read_record
from tests.data import fake_waymo

CONTENTS = [b"first" * 100, b"", bytes(range(256)) * 40]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fake_waymo.write_records(tmp_path / "x.tfrecord", CONTENTS)


@given(st.binary(max_size=200))
def test_checksum(content: bytes):
    assert masked_crc(content) == fake_waymo.masked_crc(content)


def test_records_by_offset(path: Path):
    spans = list_records(path, head=7)
    assert [span.length for span in spans] == [len(content) for content in CONTENTS]
    assert [span.head for span in spans] == [content[:7] for content in CONTENTS]
    assert [read_record(path, span.offset) for span in spans] == CONTENTS


@pytest.mark.parametrize("byte", [0, 9, 20, 511])
def test_every_checksum_is_checked(path: Path, byte: int):
    """A length, its checksum, a content and its checksum."""
    data = bytearray(path.read_bytes())
    data[byte + 1 if byte == 511 else byte] ^= 1
    path.write_bytes(data)
    with pytest.raises(FaultySweepError, match=r"x\.tfrecord: wrong checksum"):
        read_record(path, 0)
    if byte < 12:
        with pytest.raises(ValueError, match=r"x\.tfrecord: wrong checksum of the length of record 0"):
            list_records(path)
    else:
        assert len(list_records(path)) == 3


@pytest.mark.parametrize("cut", [1, 5, 10_000, 10_250])
def test_truncated(path: Path, cut: int):
    spans = list_records(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"x\.tfrecord: truncated: record \d.*download it again"):
        list_records(path)
    with pytest.raises(FaultySweepError, match="truncated"):
        read_record(path, spans[-1].offset)


def test_missing_and_empty(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="gone"):
        list_records(tmp_path / "gone")
    with pytest.raises(FaultySweepError, match="cannot be read"):
        read_record(tmp_path / "gone", 0)
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(ValueError, match=r"empty\.tfrecord: empty file"):
        list_records(tmp_path / "empty.tfrecord")


def test_fields_of_messages():
    from waymo_open_dataset import dataset_pb2

    frame = dataset_pb2.Frame(timestamp_micros=2**40 + 3)
    frame.context.name = "n" * 300
    frame.images.add(name=1, image=b"i" * 500)
    frame.laser_labels.add(id="label")
    frame.pose.transform.extend([1.5] * 16)
    content = frame.SerializeToString()
    assert [number for number, *_ in fields(content)] == [1, 2, 3, 4, 6]
    assert next(value for number, *_, value in fields(content) if number == 2) == 2**40 + 3
    kept = dataset_pb2.Frame.FromString(keep_fields(content, (1, 2, 3)))
    frame.ClearField("images")
    frame.ClearField("laser_labels")
    assert kept == frame
    for end in range(1, len(content)):
        whole = [number for number, *_, stop, _ in fields(content[:end]) if stop <= end]
        assert whole == [1, 2, 3, 4, 6][: len(whole)]
        try:
            keep_fields(content[:end], (1,))
        except ValueError:
            continue
        assert keep_fields(content[:end], range(20)) == content[:end]
