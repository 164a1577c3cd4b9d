"""Ground truth of the nuScenes detection benchmark from the tables of a release (v1.0-trainval, v1.0-mini).

As the official development kit 1.2.0 has it: velocities are central differences between the neighbouring annotations
of an object, the ego vehicle stands where the key frame of LIDAR_TOP was taken, classes are those of the benchmark.
"""

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, BikeRacks, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import BoxColumns
from equilidar.evaluation.nuscenes_splits import scenes_of_split
from equilidar.evaluation.quaternions import yaw_of
from equilidar.formats.json_stream import read_records
from equilidar.formats.nuscenes_annotations import CLASS_OF_CATEGORY, central_velocities
from equilidar.formats.nuscenes_splits import OFFICIAL_SPLITS

_RACK = "static_object.bicycle_rack"


@dataclass(slots=True)
class NuscenesTruth:
    """Ground truth and what the filter needs to know of its samples.

    Attributes:
        boxes: annotations, unfiltered.
        racks: bicycle racks.
        ego: (S, 3) position of the ego vehicle in the global frame, NaN where nothing tells it.
        ego_yaw: (S,) its heading, 0 where nothing tells it.
    """

    boxes: NuscenesBoxes
    racks: BikeRacks
    ego: Float64[np.ndarray, "S 3"]
    ego_yaw: Float64[np.ndarray, " S"]


def read_tables(folder: Path, split: str | None = None) -> NuscenesTruth:
    """Read the ground truth of all samples of a release or of a split.

    Args:
        folder: folder of the tables, or the data set's root if it holds one version only.
        split: train, val, test, mini_train, mini_val, or a text file of scene names; None takes all scenes.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is not in the format, or the split names scenes that are not there.
    """
    folder = _version_folder(folder)
    tables = _Tables(folder)
    samples = _samples_of_split(folder, split)
    tables.read_annotations(samples)
    ego, ego_yaw = _ego_poses(folder, list(samples))
    return NuscenesTruth(tables.boxes(samples, ego), tables.racks(list(samples)), ego, ego_yaw)


def _version_folder(folder: Path) -> Path:
    if (folder / "sample_annotation.json").is_file():
        return folder
    inner = sorted(path.parent for path in folder.glob("*/sample_annotation.json"))
    if len(inner) == 1:
        return inner[0]
    if inner:
        raise ValueError(f"{folder} holds several versions: give one of {', '.join(map(str, inner))}")
    raise FileNotFoundError(f"no sample_annotation.json in {folder}: expected a folder of nuScenes tables")


def _samples_of_split(folder: Path, split: str | None) -> dict[str, float]:
    """Return token -> seconds, in the order of the table."""
    names = {record["token"]: record["name"] for record in read_records(folder / "scene.json")}
    wanted = set(names.values()) if split is None else scenes_of_split(split, set(names.values()))
    samples = {
        record["token"]: 1e-6 * record["timestamp"]
        for record in read_records(folder / "sample.json")
        if names.get(record["scene_token"]) in wanted
    }
    if not samples:
        raise ValueError(
            f"{folder} has no sample of split {split!r}; splits are {', '.join(OFFICIAL_SPLITS)} or a text file"
        )
    return samples


def _names(path: Path, value: str) -> dict[str, str]:
    return {record["token"]: record[value] for record in read_records(path)}


@dataclass(slots=True)
class _Tables:
    """Annotations in columns: a release has 1.2 million of them."""

    folder: Path
    _row: dict[str, int] = field(default_factory=dict)
    _numbers: array = field(default_factory=lambda: array("d"))
    _rest: list[tuple[str, str, str, int, str, int]] = field(default_factory=list)

    def read_annotations(self, samples: dict[str, float]) -> None:
        categories = _names(self.folder / "category.json", "name")
        category = {
            token: categories[of] for token, of in _names(self.folder / "instance.json", "category_token").items()
        }
        attribute = {"": NO_ATTRIBUTE} | {
            token: ATTRIBUTES.index(name)
            for token, name in _names(self.folder / "attribute.json", "name").items()
            if name in ATTRIBUTES
        }
        path = self.folder / "sample_annotation.json"
        for record in read_records(path):
            if record["sample_token"] not in samples:
                continue
            kind = category.get(record["instance_token"]) or record.get("category_name", "")
            if kind not in CLASS_OF_CATEGORY and kind != _RACK:
                continue
            if record["token"] in self._row:
                raise ValueError(f"{path}: annotation token {record['token']} is duplicated")
            self._row[record["token"]] = len(self._rest)
            self._numbers.extend((*record["translation"], *record["size"], *record["rotation"]))
            points = record["num_lidar_pts"] + record["num_radar_pts"]
            code = NO_ATTRIBUTE if kind == _RACK else _attribute(record, attribute, path)
            self._rest.append((record["sample_token"], kind, record["prev"], points, record["next"], code))
        numbers = self._columns()
        if not np.isfinite(numbers).all() or (numbers[:, 3:6] <= 0).any():
            bad = ~np.isfinite(numbers).all(1) | (numbers[:, 3:6] <= 0).any(1)
            token = list(self._row)[int(np.argmax(bad))]
            raise ValueError(
                f"{path}: annotation {token} has a number that is not finite, or a size that is not positive"
            )

    def _columns(self) -> Float64[np.ndarray, "N 10"]:
        return np.frombuffer(self._numbers, np.float64).reshape(-1, 10)

    def boxes(self, samples: dict[str, float], ego: Float64[np.ndarray, "S 3"]) -> NuscenesBoxes:
        by_sample: dict[str, list[int]] = {token: [] for token in samples}
        for row, (sample, kind, *_) in enumerate(self._rest):
            if kind != _RACK:
                by_sample[sample].append(row)
        numbers = self._columns()
        seconds = np.array([samples[sample] for sample, *_ in self._rest], dtype=np.float64)
        neighbours = [(before, after) for _, _, before, _, after, _ in self._rest]
        velocity = central_velocities(self._row, neighbours, numbers[:, :3], seconds)[:, :2]
        columns = BoxColumns()
        for index, (token, rows) in enumerate(by_sample.items()):
            columns.samples.append(token)
            for row in rows:
                _, kind, _, points, _, code = self._rest[row]
                offset = numbers[row, :2] - ego[index, :2]
                values = [*numbers[row], *velocity[row], *offset, -1.0]
                columns.add(values, CLASSES.index(CLASS_OF_CATEGORY[kind]), code, points)
        return columns.boxes()

    def racks(self, samples: list[str]) -> BikeRacks:
        place = {token: index for index, token in enumerate(samples)}
        rows = [row for row, (_, kind, *_) in enumerate(self._rest) if kind == _RACK]
        numbers = self._columns()[rows]
        sample = np.array([place[self._rest[row][0]] for row in rows], dtype=np.int64)
        return BikeRacks(sample, numbers[:, :3], numbers[:, 3:6], numbers[:, 6:])


def _attribute(record: dict[str, Any], known: dict[str, int], path: Path) -> int:
    tokens = record["attribute_tokens"]
    if len(tokens) > 1:
        raise ValueError(f"{path}: annotation {record['token']} has {len(tokens)} attributes, at most one is allowed")
    code = known.get(tokens[0] if tokens else "")
    if code is None:
        raise ValueError(f"{path}: annotation {record['token']} has an unknown attribute")
    return code


def _ego_poses(folder: Path, samples: list[str]) -> tuple[Float64[np.ndarray, "S 3"], Float64[np.ndarray, " S"]]:
    """Return where the ego vehicle is at each sample's key frame of LIDAR_TOP, and its heading."""
    channels = _names(folder / "sensor.json", "channel")
    lidars = {
        record["token"]
        for record in read_records(folder / "calibrated_sensor.json")
        if channels.get(record["sensor_token"]) == "LIDAR_TOP"
    }
    place = {token: index for index, token in enumerate(samples)}
    pose_of = {
        record["ego_pose_token"]: place[record["sample_token"]]
        for record in read_records(folder / "sample_data.json")
        if record["is_key_frame"] and record["calibrated_sensor_token"] in lidars and record["sample_token"] in place
    }
    poses = np.full((len(samples), 7), np.nan)
    for record in read_records(folder / "ego_pose.json"):
        if record["token"] in pose_of:
            poses[pose_of[record["token"]]] = [*record["translation"], *record["rotation"]]
    if np.isnan(poses).any():
        missing = samples[int(np.argmax(np.isnan(poses).any(1)))]
        raise ValueError(f"{folder}: sample {missing} has no key frame of LIDAR_TOP with an ego pose")
    return poses[:, :3], yaw_of(poses[:, 3:])
