"""Files of the nuScenes detection benchmark: submissions, and boxes of ground truth and detections in one file.

A submission is {"meta": {...}, "results": {sample_token: [box, ...]}}; a box file is {"gt": {sample_token: [...]},
"pred": {...}} with the fields of the development kit's DetectionBox. A box: sample_token, translation (center, global
frame), size (width, length, height), rotation (w, x, y, z), velocity (vx, vy; null or NaN: unknown), detection_name,
detection_score, attribute_name ("": none); in box files also ego_translation and num_pts.
"""

import json
import math
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.atomic_file import atomic_file
from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, UNKNOWN_POINTS, NuscenesBoxes
from equilidar.formats.json_stream import read_members

MAX_BOXES = 500
"""Detections that the benchmark accepts for one sample."""

_LABEL = {name: index for index, name in enumerate(CLASSES)}
_ATTRIBUTE = {name: index for index, name in enumerate(ATTRIBUTES)} | {"": NO_ATTRIBUTE}
_LENGTHS = (3, 3, 4, 2)
_UNKNOWN = (math.nan, math.nan)


class BoxColumns:
    """Grows by one box at a time, compactly."""

    def __init__(self) -> None:
        self.samples: list[str] = []
        self._numbers = array("d")
        self._codes = array("q")

    def add(self, numbers: list[float | int], label: int, attribute: int, num_points: int) -> None:
        """Add a box of the last of `samples`.

        Args:
            numbers: center, size, rotation, velocity, offset from the ego vehicle (x, y), score: 15 in all.
            label: index into CLASSES.
            attribute: index into ATTRIBUTES.
            num_points: points inside.
        """
        self._numbers.extend(numbers)
        self._codes.extend((len(self.samples) - 1, label, attribute, num_points))

    def boxes(self) -> NuscenesBoxes:
        """Return what was added."""
        numbers = np.frombuffer(self._numbers, np.float64).reshape(-1, 15)
        codes = np.frombuffer(self._codes, np.int64).reshape(-1, 4)
        columns = np.split(numbers, [3, 6, 10, 12, 14], 1)
        center, size, rotation, velocity, ego_offset = columns[:5]
        sample, label, attribute, num_points = codes.T
        return NuscenesBoxes(
            tuple(self.samples),
            *(sample, label, center, size, rotation, velocity, ego_offset),
            *(num_points, columns[5][:, 0], attribute),
        )


def read_submission(path: Path) -> NuscenesBoxes:
    """Read detections: a submission, or the "pred" of a box file. Offsets from the ego vehicle are NaN where not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no submission; the message names the sample, the box and what is wrong.
    """
    return _read(path, ("results", "pred"), is_detection=True)


def read_ground_truth_boxes(path: Path) -> NuscenesBoxes:
    """Read the "gt" of a box file; raises as `read_submission`."""
    boxes = _read(path, ("gt",), is_detection=False)
    if np.isnan(boxes.ego_offset).any():
        raise ValueError(f"{path}: ground truth without ego_translation; give the folder of the tables instead")
    return boxes


def _read(path: Path, members: tuple[str, ...], is_detection: bool) -> NuscenesBoxes:
    columns = BoxColumns()
    seen: set[str] = set()
    for token, boxes in read_members(path, *members):
        if token in seen:
            raise ValueError(f"{path}: sample token {token} is duplicated")
        seen.add(token)
        if not isinstance(boxes, list):
            raise ValueError(f"{path}: sample {token}: expected a list of boxes, got {type(boxes).__name__}")
        if is_detection and len(boxes) > MAX_BOXES:
            raise ValueError(f"{path}: sample {token} has {len(boxes)} detections, at most {MAX_BOXES} are allowed")
        columns.samples.append(token)
        for number, box in enumerate(boxes):
            try:
                _add(columns, token, box, is_detection)
            except (KeyError, TypeError, ValueError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{path}: sample {token}, box {number}: {what}") from None
    if not seen:
        raise ValueError(f"{path} names no sample")
    boxes = columns.boxes()
    _check(boxes, path)
    return boxes


def _add(columns: BoxColumns, token: str, box: Any, is_detection: bool) -> None:
    if not isinstance(box, dict):
        raise ValueError(f"expected an object, got {type(box).__name__}")
    if box.get("sample_token", token) != token:
        raise ValueError(f"belongs to sample {box['sample_token']}")
    center, size, rotation, velocity = box["translation"], box["size"], box["rotation"], box["velocity"]
    if (len(center), len(size), len(rotation), len(velocity)) != _LENGTHS:
        got = f"{len(center)}, {len(size)}, {len(rotation)} and {len(velocity)}"
        raise ValueError(f"translation, size, rotation and velocity have {got} numbers, expected 3, 3, 4 and 2")
    if None in velocity:
        velocity = [math.nan if value is None else value for value in velocity]
    ego = box.get("ego_translation", _UNKNOWN)
    score = float(box["detection_score"]) if is_detection else -1.0
    label, attribute = _LABEL.get(box["detection_name"]), _ATTRIBUTE.get(box.get("attribute_name", ""))
    if label is None:
        raise ValueError(f"unknown class {box['detection_name']!r}, known are {', '.join(CLASSES)}")
    if attribute is None:
        raise ValueError(f"unknown attribute {box['attribute_name']!r}, known are {', '.join(ATTRIBUTES)}")
    numbers = [*center, *size, *rotation, *velocity, ego[0], ego[1], score]
    columns.add(numbers, label, attribute, int(box.get("num_pts", UNKNOWN_POINTS)))


def _check(boxes: NuscenesBoxes, path: Path) -> None:
    finite = np.column_stack([boxes.center, boxes.size, boxes.rotation, boxes.score])
    complaints = {
        "a number of its place, size, rotation or score is not finite": ~np.isfinite(finite).all(1),
        "its size {size} is negative or zero": (boxes.size <= 0).any(1),
        "its rotation is zero": ~boxes.rotation.any(1),
    }
    for what, bad in complaints.items():
        if bad.any():
            row = int(np.argmax(bad))
            number = row - int(np.searchsorted(boxes.sample, boxes.sample[row]))
            where = f"sample {boxes.samples[boxes.sample[row]]}, box {number}"
            raise ValueError(f"{path}: {where}: {what.format(size=boxes.size[row].tolist())}")


def write_submission(path: Path, parts: Iterable[NuscenesBoxes]) -> None:
    """Write detections as the benchmark's server takes them, part by part: LiDAR only, each part's samples named.

    The file appears whole or not at all.
    """
    meta = {f"use_{sensor}": sensor == "lidar" for sensor in ("camera", "lidar", "radar", "map", "external")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(b'{"meta": ' + json.dumps(meta).encode() + b', "results": {')
        separator = ""
        for boxes in parts:
            for token, rows in _submitted(boxes).items():
                file.write(f"{separator}\n{json.dumps(token)}: {json.dumps(rows)}".encode())
                separator = ","
        file.write(b"\n}}\n")


def _submitted(boxes: NuscenesBoxes) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {token: [] for token in boxes.samples}
    columns = (boxes.sample, boxes.center, boxes.size, boxes.rotation, boxes.velocity, boxes.label, boxes.score)
    rows = zip(*(column.tolist() for column in (*columns, boxes.attribute)), strict=True)
    for sample, center, size, rotation, velocity, label, score, attribute in rows:
        token = boxes.samples[sample]
        results[token].append(
            {
                "sample_token": token,
                "translation": center,
                "size": size,
                "rotation": rotation,
                "velocity": velocity,
                "detection_name": CLASSES[label],
                "detection_score": score,
                "attribute_name": "" if attribute == NO_ATTRIBUTE else ATTRIBUTES[attribute],
            }
        )
    return results
