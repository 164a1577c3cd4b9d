"""nuScenes key frames with their boxes. No pair reader imports this."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from equilidar.data.accumulation import accumulated_contract
from equilidar.data.listing import content_hash
from equilidar.data.nuscenes import CHANNELS, SCALES, NuScenesPoints, read_scenes, scene_run
from equilidar.data.nuscenes_annotations import NuScenesObjects, read_objects
from equilidar.data.nuscenes_tables import table_folder
from equilidar.data.recordings import read_sweep
from equilidar.formats.nuscenes_annotations import CLASS_NAMES
from equilidar.structures import LabelledSweep, SensorContract, Sweep


class NuScenesLabelled:
    """Key frames, ten sweeps each, with boxes of the detection challenge's classes in the sensor's frame.

    Attributes:
        keys: of the key frames.
        sample_tokens: nuScenes's own name of each, as result files want it.
        class_names: classes that are kept, in the order of their label index.
        tables: folder of the release's tables, which the official evaluation reads.

    Raises:
        FileNotFoundError: a folder or a table does not exist.
        ValueError: settings are wrong, or tables are broken or do not fit one another.
    """

    def __init__(
        self,
        root: str | Path,
        version: str = "v1.0-trainval",
        split: str | Path | Sequence[str] = "train",
        class_names: Sequence[str] = CLASS_NAMES,
        accumulate: int = 10,
        min_points: int = 1,
        channels: Sequence[str] = CHANNELS,
        scales: Sequence[float | int] = SCALES,
        ego_radius: float | int = 1.0,
    ) -> None:
        """List the key frames and read their annotations.

        Args:
            root: folder that holds `samples`, `sweeps` and the folder of tables.
            version: name of the folder of tables.
            split: see `NuScenes`.
            class_names: of the challenge's ten classes, in the order of their label index.
            accumulate: sweeps that make one: the key frame and those before it; more than one add the channel `time`.
            min_points: boxes with fewer LiDAR and radar points (`num_lidar_pts` + `num_radar_pts`) are not given.
            channels: see `NuScenesPoints`.
            scales: see `NuScenesPoints`.
            ego_radius: see `NuScenesPoints`.
        """
        unknown = [name for name in class_names if name not in CLASS_NAMES]
        if unknown or not class_names or len(set(class_names)) != len(class_names):
            raise ValueError(f"dataset.class_names must be of {', '.join(CLASS_NAMES)}, got {list(class_names)}")
        if accumulate < 1:
            raise ValueError(f"dataset.accumulate must be at least 1 sweep, got {accumulate}")
        self.name = "nuscenes"
        self.class_names = tuple(class_names)
        self.min_points = min_points
        self.accumulate = accumulate
        self._reader = NuScenesPoints(tuple(channels), tuple(scales), ego_radius)
        single = self._reader.contract
        self.contract: SensorContract = single if accumulate == 1 else accumulated_contract(single)
        scenes = read_scenes(Path(root), version, split)
        self._runs = [scene_run(Path(root), scene) for scene in scenes]
        found = [(r, i, s) for r, scene in enumerate(scenes) for i, s in enumerate(scene.sweeps) if s.is_key_frame]
        self._places = [(r, i) for r, i, _ in found]
        self.sample_tokens = [sweep.sample_token for _, _, sweep in found]
        self.keys = [self._runs[r].frames[i].key for r, i in self._places]
        self.tables = table_folder(Path(root), version)
        self._objects = read_objects(self.tables, set(self.sample_tokens))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return key frame `index` with the boxes of `class_names`; raises FaultySweepError if it cannot be used."""
        objects = self.objects(index)
        seen = np.flatnonzero(objects.num_lidar_pts + objects.num_radar_pts >= self.min_points)
        return LabelledSweep(self.sweep(index), objects.select(seen).boxes(self._pose(index), self.class_names))

    def sweep(self, index: int) -> Sweep:
        """Return key frame `index`, the sweeps before it included."""
        run, place = self._places[index]
        return read_sweep(self._runs[run], place, self._reader, self.accumulate)

    def objects(self, index: int) -> NuScenesObjects:
        """Return every annotation of key frame `index` in the global frame, as the evaluator wants them."""
        return self._objects[self.sample_tokens[index]]

    def labels(self, index: int) -> Int64[np.ndarray, " M"]:
        """Return the labels of the boxes of key frame `index`, without reading its points."""
        objects = self.objects(index)
        seen = objects.num_lidar_pts + objects.num_radar_pts >= self.min_points
        named = zip(objects.class_names, seen.tolist(), strict=True)
        kept = [self.class_names.index(name) for name, is_seen in named if is_seen and name in self.class_names]
        return np.array(kept, dtype=np.int64)

    def world_T_sensor(self, index: int) -> torch.Tensor:
        """Return the (4, 4) pose that takes boxes of key frame `index` to the global frame, as result files want it."""
        return torch.from_numpy(self._pose(index).copy())

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers frames, boxes and settings, not the points."""
        digest = hashlib.sha256()
        for token in self.sample_tokens:
            objects = self._objects[token]
            digest.update("".join(objects.tokens + objects.class_names).encode())
            digest.update(objects.translation.tobytes() + objects.num_lidar_pts.tobytes())
        settings = [self._reader.settings, self.accumulate, self.min_points, self.class_names]
        return {
            "name": self.name,
            "num_samples": len(self),
            "num_scenes": len(self._runs),
            "accumulate": self.accumulate,
            "class_names": list(self.class_names),
            "hash": content_hash([self.keys, digest.hexdigest(), settings]),
        }

    def _pose(self, index: int) -> np.ndarray:
        run, place = self._places[index]
        poses = self._runs[run].world_T_sensor
        assert poses is not None
        return poses[place]
