"""Files of Waymo objects: protobuf `Objects` (.bin) as the official tool takes them, the same as JSON, and .npz.

An .npz holds both sides, ground truth in arrays gt_* (box, type, frame, difficulty, num_points, speed) and detections
in pred_* (box, type, frame, score, overlap_nlz); a .json is a list of objects, of the fields of the protobuf.
"""

import zipfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.atomic_file import atomic_file
from equilidar.compiled import compiled
from equilidar.evaluation.waymo_boxes import TYPES, WaymoBoxes
from equilidar.formats.json_stream import read_records

_BATCH = 1 << 14  # objects parsed at once
_SHAPES = {
    "gt": {"box": 7, "type": 0, "frame": 0, "difficulty": 0, "num_points": 0, "speed": 2},
    "pred": {"box": 7, "type": 0, "frame": 0, "score": 0, "overlap_nlz": 0},
}


def read_waymo(path: Path, *, is_detection: bool) -> WaymoBoxes:
    """Read ground truth or detections.

    Args:
        path: .bin, .json or .npz.
        is_detection: which side of an .npz; detections have scores of 0 to 1, ground truth need not.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a .bin is given and Waymo's protobuf modules are not installed.
        ValueError: the file is not in the format; the message names the object and what is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".npz":
        boxes = _read_npz(path, "pred" if is_detection else "gt")
    elif path.suffix == ".json":
        boxes = _collect(_json_rows(path), path)
    else:
        boxes = _collect(_protobuf_rows(path), path)
    _check(boxes, path, is_detection)
    return boxes


def _check(boxes: WaymoBoxes, path: Path, is_detection: bool) -> None:
    complaints = {
        "a number of its box is not finite": ~np.isfinite(boxes.box).all(1),
        "its size {size} is negative or zero": (boxes.box[:, 3:6] <= 0).any(1),
        f"unknown class {{kind}}, known are 1 to {len(TYPES)}": (boxes.kind < 0) | (boxes.kind > len(TYPES)),
    }
    if is_detection:
        complaints["its score is {score}, expected 0 to 1"] = ~((boxes.score >= 0) & (boxes.score <= 1))
    else:
        complaints["its speed is not finite"] = ~np.isfinite(boxes.speed)
        complaints["its difficulty is {difficulty}, expected 0 to 2"] = (boxes.difficulty < 0) | (boxes.difficulty > 2)
    for text, bad in complaints.items():
        if bad.any():
            row = int(np.argmax(bad))
            values = {"kind": boxes.kind[row], "score": boxes.score[row], "difficulty": boxes.difficulty[row]}
            what = text.format(size=boxes.box[row, 3:6].round(4).tolist(), **values)
            raise ValueError(f"{path}: object {row} of frame {boxes.frames[boxes.frame[row]]}: {what}")


def _read_npz(path: Path, side: str) -> WaymoBoxes:
    try:
        with np.load(path) as file:
            columns = {name.removeprefix(f"{side}_"): file[name] for name in file if name.startswith(f"{side}_")}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file: {error}") from None
    num = len(columns.get("frame", ()))
    for name, width in _SHAPES[side].items():
        expected = (num, width) if width else (num,)
        if name not in columns or columns[name].shape != expected:
            got = columns[name].shape if name in columns else "none"
            raise ValueError(f"{path}: {side}_{name} must be an array of shape {expected}, got {got}")
    frames, frame = np.unique(columns["frame"], return_inverse=True)
    speed = columns.get("speed", np.zeros((num, 2))).astype(np.float64)
    return WaymoBoxes(
        tuple(str(name) for name in frames.tolist()),
        frame.astype(np.int64),
        columns["type"].astype(np.int64),
        columns["box"].astype(np.float64),
        columns.get("score", np.ones(num)).astype(np.float32),
        columns.get("difficulty", np.zeros(num)).astype(np.int64),
        columns.get("num_points", np.zeros(num)).astype(np.int64),
        np.hypot(*speed.T),
        columns.get("overlap_nlz", np.zeros(num)).astype(np.bool_),
    )


_Row = tuple[str, tuple[float, ...], tuple[int, ...]]
"""Frame; x, y, z, length, width, height, heading, speed x, speed y, score; type, difficulty, points, zone."""


def _collect(rows: Iterator[_Row], path: Path) -> WaymoBoxes:
    place: dict[str, int] = {}
    numbers, codes = array("d"), array("q")
    for frame, values, flags in rows:
        numbers.extend(values)
        codes.extend((place.setdefault(frame, len(place)), *flags))
    if not codes:
        raise ValueError(f"{path} holds no object")
    table = np.frombuffer(numbers, np.float64).reshape(-1, 10)
    frame, kind, difficulty, points, zone = np.frombuffer(codes, np.int64).reshape(-1, 5).T
    return WaymoBoxes(
        tuple(place),
        *(frame, kind, table[:, :7], table[:, 9].astype(np.float32)),
        *(difficulty, points, np.hypot(table[:, 7], table[:, 8]), zone.astype(np.bool_)),
    )


def _json_rows(path: Path) -> Iterator[_Row]:
    keys = ("cx", "cy", "cz", "length", "width", "height", "heading")
    for number, record in enumerate(read_records(path)):
        try:
            box, motion = record["box"], record.get("metadata", {})
            place = [float(box[key]) for key in keys]
            speed = float(motion.get("speed_x", 0)), float(motion.get("speed_y", 0))
            flags = _flags(record)
            frame = f"{record['context_name']}/{record['frame_timestamp_micros']}"
            yield frame, (*place, *speed, float(record.get("score", 1))), flags
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: object {number}: {error!r}; is it in the form of Waymo's Objects?") from None


def _flags(record: Mapping[str, Any]) -> tuple[int, ...]:
    names = ("type", "detection_difficulty_level", "num_lidar_points_in_box", "overlap_with_nlz")
    return tuple(int(record.get(name, 0)) for name in names)


def _protobuf_rows(path: Path) -> Iterator[_Row]:
    try:
        from google.protobuf.message import DecodeError
        from waymo_open_dataset.protos.metrics_pb2 import Objects  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise _no_protobuf(path, error) from error
    # A copy in memory is as large as the file; parsed as a whole it would be ten times that.
    data = np.fromfile(path, np.uint8)
    start = 0
    while start < len(data):
        end = _end_of_objects(data, start, _BATCH)
        try:
            if end <= start:
                raise DecodeError
            batch = Objects.FromString(data[start:end].tobytes()).objects
        except DecodeError:
            raise ValueError(f"{path} is no whole file of Waymo Objects (protobuf), from byte {start} on") from None
        for item in batch:
            label = item.object
            box, motion = label.box, label.metadata
            values = (box.center_x, box.center_y, box.center_z, box.length, box.width, box.height, box.heading)
            flags = (label.type, label.detection_difficulty_level, label.num_lidar_points_in_box, item.overlap_with_nlz)
            frame = f"{item.context_name}/{item.frame_timestamp_micros}"
            yield frame, (*values, motion.speed_x, motion.speed_y, item.score), flags
        start = end


@compiled
def _end_of_objects(data, start, most):
    """Return where the next `most` fields of a message end; -1 where one is not length-delimited or is cut off.

    Every field of Objects is: a key of one byte, the length as a varint, so many bytes.
    """
    place = start
    for _ in range(most):
        if place >= len(data):
            break
        if data[place] & 7 != 2:
            return -1
        place += 1
        length, shift = 0, 0
        while True:
            if place >= len(data) or shift > 56:
                return -1
            byte = np.int64(data[place])
            place += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        place += length
        if place > len(data):
            return -1
    return place


def write_detections(path: Path, boxes: WaymoBoxes) -> None:
    """Write detections as `Objects`, the official tool's .bin; frames must be named context/time stamp.

    Raises:
        ImportError: Waymo's protobuf modules are not installed.
    """
    try:
        from waymo_open_dataset.protos.metrics_pb2 import Objects  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise _no_protobuf(path, error) from error
    objects = Objects()
    rows = zip(boxes.frame.tolist(), boxes.kind.tolist(), boxes.box.tolist(), boxes.score.tolist(), strict=True)
    names = ("center_x", "center_y", "center_z", "length", "width", "height", "heading")
    for frame, kind, box, score in rows:
        context, _, time = boxes.frames[frame].rpartition("/")
        one = objects.objects.add(context_name=context, frame_timestamp_micros=int(time), score=score)
        one.object.type = kind
        for name, value in zip(names, box, strict=True):
            setattr(one.object.box, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(objects.SerializeToString())


def _no_protobuf(path: Path, error: ImportError) -> ImportError:
    return ImportError(
        f"{path} needs Waymo's protobuf modules ({error}): "
        "pip install 'equilidar[logs]' && pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7"
    )
