"""Protobuf, JSON and arrays hold the same; broken files are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from equilidar.evaluation import waymo_files
from equilidar.evaluation.waymo_files import read_waymo


def _records(num: int) -> list[dict]:
    rng = np.random.default_rng(0)
    keys = ("cx", "cy", "cz", "length", "width", "height", "heading")
    return [
        {
            "context_name": f"drive-{index % 2}",
            "frame_timestamp_micros": 1000 + index // 4,
            "box": dict(zip(keys, rng.uniform(1, 9, 7).tolist(), strict=True)),
            "type": 1 + index % 4,
            "score": index / num,
            "num_lidar_points_in_box": index,
            "overlap_with_nlz": index % 3 == 0,
            "metadata": {"speed_x": 3.0, "speed_y": 4.0},
        }
        | ({"detection_difficulty_level": 2} if index % 5 == 0 else {})
        for index in range(num)
    ]


def _write_protobuf(path: Path, records: list[dict]) -> None:
    from waymo_open_dataset.protos.metrics_pb2 import Objects

    objects = Objects()
    for record in records:
        item = objects.objects.add()
        item.context_name, item.frame_timestamp_micros = record["context_name"], record["frame_timestamp_micros"]
        item.score, item.overlap_with_nlz = record["score"], record["overlap_with_nlz"]
        label, box = item.object, record["box"]
        label.box.center_x, label.box.center_y, label.box.center_z = box["cx"], box["cy"], box["cz"]
        label.box.length, label.box.width, label.box.height = box["length"], box["width"], box["height"]
        label.box.heading, label.type = box["heading"], record["type"]
        label.num_lidar_points_in_box = record["num_lidar_points_in_box"]
        label.metadata.speed_x, label.metadata.speed_y = 3.0, 4.0
        if "detection_difficulty_level" in record:
            label.detection_difficulty_level = record["detection_difficulty_level"]
    path.write_bytes(objects.SerializeToString())


@pytest.mark.parametrize("batch", [1, 7, 1 << 14])
def test_protobuf_is_read_in_batches_and_equals_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    records = _records(50)
    _write_protobuf(tmp_path / "objects.bin", records)
    (tmp_path / "objects.json").write_text(json.dumps(records))
    monkeypatch.setattr(waymo_files, "_BATCH", batch)
    one, other = (read_waymo(tmp_path / f"objects.{kind}", is_detection=True) for kind in ("bin", "json"))
    assert one.frames == other.frames
    for name in ("frame", "kind", "box", "score", "difficulty", "num_points", "speed", "in_no_label_zone"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.speed == 5.0).all() and one.difficulty.tolist() == [2, 0, 0, 0, 0] * 10
    assert one.frames[one.frame[5]] == "drive-1/1001"


@pytest.mark.parametrize("cut", [1, 100])
def test_a_protobuf_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "objects.bin"
    _write_protobuf(path, _records(5))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="is no whole file of Waymo Objects"):
        read_waymo(path, is_detection=True)


@pytest.mark.parametrize(
    "content", [b"hello, I am text", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x02ab"]
)
def test_another_file_than_a_protobuf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "objects.bin").write_bytes(content)
    with pytest.raises(ValueError, match="is no whole file of Waymo Objects"):
        read_waymo(tmp_path / "objects.bin", is_detection=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"", "holds no object"),
        ("a.json", b"[]", "holds no object"),
        ("a.json", b'[{"box": {}}]', "object 0: KeyError.*Waymo's Objects"),
        ("a.json", b"[3]", "object 0"),
        ("a.npz", b"text", "is no .npz file"),
    ],
)
def test_empty_and_foreign_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_waymo(tmp_path / name, is_detection=True)


def test_scores_outside_0_to_1_are_refused_for_detections_only(tmp_path: Path) -> None:
    records = _records(4)
    records[2]["score"] = 1.5
    (tmp_path / "a.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=r"object 2 of frame drive-0/1000: its score is 1.5, expected 0 to 1"):
        read_waymo(tmp_path / "a.json", is_detection=True)
    assert len(read_waymo(tmp_path / "a.json", is_detection=False)) == 4


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read_waymo(tmp_path / "none.bin", is_detection=True)
