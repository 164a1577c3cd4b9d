"""Detections on disk while they are found: a journal that survives a kill, KITTI text, nuScenes JSON.

The journal is JSON lines: first what it was made from, then a line for each sweep, boxes in the sweep's own frame.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilidar.atomic_file import atomic_file
from equilidar.data.kitti_calibration import read_calibration
from equilidar.evaluation.kitti_files import file_texts
from equilidar.evaluation.kitti_rows import to_kitti_rows
from equilidar.evaluation.nuscenes_boxes import NuscenesBoxes
from equilidar.evaluation.nuscenes_files import write_submission
from equilidar.evaluation.nuscenes_rows import to_nuscenes_boxes
from equilidar.structures import Boxes3D, Detections

JOURNAL = "detections.jsonl"
LIDAR_AS_CAMERA = "lidar"

# A camera at the LiDAR's origin that looks along its x axis: x right, y down, z ahead.
_CAMERA_T_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


class Journal:
    """A file of JSON lines that a later run of the same settings goes on with.

    Args:
        path: the file.
        settings: what the detections are made from; a file of other settings is refused.
        overwrite: begin anew.

    Attributes:
        done: keys of the sweeps that are in it.

    Raises:
        ValueError: the file is of other settings, or none of ours.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.done: set[str] = set()
        header = json.dumps({"settings": settings}, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite or not path.is_file() or not path.stat().st_size:
            self._file = path.open("w", encoding="utf-8")
            self._write(header)
            return
        end = 0
        with path.open("rb") as file:
            first = file.readline()
            if first.decode(errors="replace").rstrip("\n") != header:
                raise ValueError(f"{path} holds other detections: {_difference(first, settings)}; give another output, "
                                 "or overwrite=true")  # fmt: skip
            end = file.tell()
            # A line that a kill has cut short is not counted, and overwritten.
            for line in iter(file.readline, b""):
                if not line.endswith(b"\n"):
                    break
                self.done.add(json.loads(line)["key"])
                end = file.tell()
        self._file = path.open("r+", encoding="utf-8")
        self._file.seek(end)
        self._file.truncate()

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Add a sweep."""
        self._write(json.dumps({"key": key, **entry}))
        self.done.add(key)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the sweeps, one at a time."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            yield from map(json.loads, file)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, line: str) -> None:
        # One call, flushed: another process sees whole lines, and a kill loses none that was written.
        self._file.write(line + "\n")
        self._file.flush()


def entry_of(found: Detections, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one sweep's detections as plain values: center, size (length, width, height) in metres, yaw in radians."""
    boxes = found.boxes
    rows = np.round(boxes.as_tensor().double().numpy(), 4).tolist()
    velocities = np.round(boxes.velocity.double().numpy(), 4).tolist()
    listed = []
    for row, velocity, label, score in zip(rows, velocities, boxes.label.tolist(), found.scores.tolist(), strict=True):
        box = {"class": class_names[label], "score": score, "center": row[:3], "size": row[3:6], "yaw": row[6]}
        # A detector without velocities leaves them open.
        listed.append(box if velocity[0] != velocity[0] else {**box, "velocity": velocity[:2]})
    return {"boxes": listed}


class KittiText:
    """A KITTI result file for each sweep, in the frame of its camera.

    Args:
        folder: where to write `KEY.txt`.
        calibration: a calibration file for all sweeps, a folder with one by each sweep's name, or "lidar": as if a
            camera stood at the LiDAR's origin and looked along x, with 2D boxes of -1.
        class_names: of the labels.

    Raises:
        FileNotFoundError: there is no such calibration.
    """

    def __init__(self, folder: Path, calibration: str, class_names: Sequence[str]) -> None:
        self._folder, self._class_names = folder, tuple(class_names)
        self._path = None if calibration == LIDAR_AS_CAMERA else Path(calibration)
        if self._path is not None and not self._path.exists():
            raise FileNotFoundError(f"calibration: neither file nor folder {self._path}; give one, or lidar")

    def write(self, key: str, found: Detections) -> None:
        """Write a sweep's file, whole or not at all.

        Raises:
            FileNotFoundError: the folder has no calibration of that name.
            ValueError: KITTI knows no such class, or the calibration is none.
        """
        if self._path is None:
            camera = (None, _CAMERA_T_LIDAR, None)
        else:
            path = self._path / f"{key.rpartition('/')[2]}.txt" if self._path.is_dir() else self._path
            calibration = read_calibration(path)
            camera = (calibration.image_T_rect, calibration.rect_T_velo, calibration.image_size())
        for frame, text in file_texts(to_kitti_rows(key, found, self._class_names, *camera)).items():
            with atomic_file(self._folder / f"{frame}.txt") as file:
                file.write(text.encode())


def write_nuscenes(path: Path, journal: Journal, tokens: Mapping[str, str]) -> None:
    """Write a submission, box by box from the journal: whole or not at all.

    Args:
        path: the file.
        journal: whose sweeps have poses.
        tokens: sample token of each key; keys without one go by their last part.

    Raises:
        ValueError: nuScenes knows no such class.
    """
    write_submission(path, (_submitted(entry, tokens) for entry in journal.entries()))


def _submitted(entry: Mapping[str, Any], tokens: Mapping[str, str]) -> NuscenesBoxes:
    token = tokens.get(entry["key"], entry["key"].rpartition("/")[2])
    boxes = entry["boxes"]
    names, unknown = sorted({box["class"] for box in boxes}), (math.nan, math.nan)
    found = Boxes3D.make(
        torch.tensor([box["center"] for box in boxes]).reshape(-1, 3),
        torch.tensor([box["size"] for box in boxes]).reshape(-1, 3),
        torch.tensor([box["yaw"] for box in boxes]),
        label=torch.tensor([names.index(box["class"]) for box in boxes], dtype=torch.int64),
        velocity=torch.tensor([[*box.get("velocity", unknown), 0.0] for box in boxes]).reshape(-1, 3),
    )
    scores = torch.tensor([box["score"] for box in boxes], dtype=torch.float32)
    return to_nuscenes_boxes(token, Detections(found, scores), names, np.array(entry["world_T_sensor"]))


def _difference(first: bytes, settings: Mapping[str, Any]) -> str:
    try:
        before = json.loads(first)["settings"]
        names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        return ", ".join(f"{name} was {before.get(name)}, is {settings.get(name)}" for name in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it is none of these files"
