"""nuScenes: pairs of LIDAR_TOP sweeps, without opening an annotation table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.data.faults import FaultySweepError
from equilidar.data.nuscenes_splits import select_scenes
from equilidar.data.nuscenes_tables import LidarScene, lidar_scenes, scene_names, table_folder
from equilidar.data.point_files import PointFormat
from equilidar.data.recordings import Frame, RecordedPairs, Run, split_runs
from equilidar.structures import SensorContract

CHANNELS = ("intensity", "ring")
SCALES = (255.0, 31.0)
_FILES = PointFormat(("x", "y", "z", "intensity", "ring"), CHANNELS, (1.0, 1.0))
_NUM_RINGS = 32
# Microseconds. The sensor turns 20 times a second; beyond one and a half turns a sweep is missing.
_MAX_STEP = 75_000.0


@dataclass(frozen=True)
class NuScenesPoints:
    """Reads `.pcd.bin` files: five float32 columns x, y, z, intensity, ring.

    Coordinates are those of LIDAR_TOP itself: x to the right of the vehicle, y forward, z up, 1.84 m above ground.

    Attributes:
        channels: of intensity (0..255) and ring (0..31, the lowest beam first).
        scales: per channel, the raw value that is stored as 1.0.
        ego_radius: metres; points with both |x| and |y| below are the vehicle's own and are removed, as the devkit
            does with 1.0.
    """

    channels: tuple[str, ...] = CHANNELS
    scales: tuple[float, ...] = SCALES
    ego_radius: float | int = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        unknown = [name for name in self.channels if name not in CHANNELS]
        if unknown or len(set(self.channels)) != len(self.channels):
            raise ValueError(f"dataset.channels must be of {', '.join(CHANNELS)}, each once, got {list(self.channels)}")
        if len(self.scales) != len(self.channels) or 0 in self.scales:
            raise ValueError(f"dataset.scales must be a number other than 0 for each channel, got {list(self.scales)}")

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return SensorContract(self.channels, self.scales, "sensor")

    @property
    def settings(self) -> dict[str, Any]:
        """Channels, scales and what is removed."""
        return asdict(self)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates (metres) and scaled channels.

        Raises:
            FaultySweepError: the file is missing, truncated, empty, of other columns, or holds what is not finite.
        """
        try:
            xyz, values = _FILES.read(frame.path)
        except FaultySweepError as error:
            raise FaultySweepError(f"{error}; unpack it from its archive again") from error
        ring = values[:, 1]
        if bool(((ring < 0) | (ring >= _NUM_RINGS) | (ring != ring.round())).any()):
            raise FaultySweepError(
                f"{frame.path}: its fifth column is no ring number (0..{_NUM_RINGS - 1}); nuScenes's files have five "
                "float32 columns x, y, z, intensity, ring: unpack it from its archive again"
            )
        kept = (xyz[:, :2].abs() >= self.ego_radius).any(1)
        if not bool(kept.any()):
            raise FaultySweepError(f"{frame.path}: no points but those within {self.ego_radius} m of the sensor")
        columns = [CHANNELS.index(name) for name in self.channels]
        features = values[:, columns] / torch.tensor(self.scales, dtype=values.dtype)
        return xyz[kept], features[kept]


class NuScenes(RecordedPairs):
    """Pairs of LIDAR_TOP sweeps, samples and the sweeps between them (20 Hz).

    Sweeps are in the sensor's own frame (see `NuScenesPoints`); poses are ego pose times calibrated sensor. Only the
    tables scene, sample, sample_data, ego_pose, calibrated_sensor and sensor are read.

    Attributes:
        scenes: names of those that are read.

    Raises:
        FileNotFoundError: a folder or a table does not exist.
        ValueError: settings are wrong, tables are broken or do not fit one another, or no pair is left.
    """

    def __init__(
        self,
        root: str | Path,
        version: str = "v1.0-trainval",
        split: str | Path | Sequence[str] = "train",
        gap: int = 1,
        targets: str = "all",
        accumulate: int = 1,
        channels: Sequence[str] = CHANNELS,
        scales: Sequence[float | int] = SCALES,
        ego_radius: float | int = 1.0,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `samples`, `sweeps` and the folder of tables.
            version: name of the folder of tables.
            split: train, val, test, mini_train, mini_val, all, a text file with one scene name a line, or names.
            gap: sweeps from source to target, 50 ms each.
            targets: whether every sweep may be a pair's target or only key frames (2 Hz) may.
            accumulate: sweeps that make one: itself and those before it; adds the channel `time`.
            channels: see `NuScenesPoints`.
            scales: see `NuScenesPoints`.
            ego_radius: see `NuScenesPoints`.
        """
        if targets not in ("all", "key_frames"):
            raise ValueError(f"dataset.targets must be all or key_frames, got {targets!r}")
        reader = NuScenesPoints(tuple(channels), tuple(scales), ego_radius)
        scenes = read_scenes(Path(root), version, split)
        self.scenes = [scene.name for scene in scenes]
        runs = [run for scene in scenes for run in split_runs(*scene_frames(Path(root), scene), max_step=_MAX_STEP)]
        key_frames = {frame_key(scene.name, s.timestamp) for scene in scenes for s in scene.sweeps if s.is_key_frame}
        target_keys = key_frames if targets == "key_frames" else None
        super().__init__("nuscenes", runs, reader, gap, accumulate=accumulate, target_keys=target_keys)


def read_scenes(root: Path, version: str, split: str | Path | Sequence[str]) -> list[LidarScene]:
    """Return sweeps and poses of the scenes of a split.

    Raises:
        FileNotFoundError: a folder, a table or the list of scenes does not exist.
        ValueError: the split is unknown, or tables are broken or do not fit one another.
    """
    folder = table_folder(root, version)
    names = scene_names(folder)
    return lidar_scenes(folder, names, select_scenes(split, names.values(), folder / "scene.json"))


def frame_key(scene: str, timestamp: int) -> str:
    """Return the key of a sweep; `timestamp` in microseconds."""
    return f"nuscenes/{scene}/{timestamp}"


def scene_frames(root: Path, scene: LidarScene) -> tuple[list[Frame], Any]:
    """Return the frames of a scene and their poses."""
    frames = [
        Frame(frame_key(scene.name, sweep.timestamp), root / sweep.filename, sweep.timestamp, sweep.timestamp * 1e-6)
        for sweep in scene.sweeps
    ]
    return frames, scene.world_T_sensor


def scene_run(root: Path, scene: LidarScene) -> Run:
    """Return a scene as one run, missing sweeps or not: what the devkit accumulates over."""
    return Run(*scene_frames(root, scene))
