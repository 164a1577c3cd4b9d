"""ONCE: sequences at 2 Hz, mostly without labels, as pairs of sweeps; annotations are dropped while parsing."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from equilidar.data.listing import require_folder
from equilidar.data.point_files import PointFormat
from equilidar.data.recordings import Frame, RecordedPairs, Run, split_runs
from equilidar.structures import SensorContract

_LOG = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "raw_small", "raw_medium", "raw_large")
_LONGEST_STEP = 750.0  # milliseconds; frames are 500 ms apart

# Our axes (x forward, y left, z up) in those of ONCE's files (x left, y backward, z up): a quarter turn.
ONCE_T_SENSOR = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class OnceSweeps:
    """Reads `lidar_roof/<milliseconds>.bin` (x, y, z, intensity; float32) and turns the axes to x forward, y left.

    Attributes:
        intensity_scale: raw intensity that is stored as 1.0.
    """

    intensity_scale: float = 255.0
    _format: PointFormat = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_format", PointFormat(scales=(float(self.intensity_scale),)))

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return self._format.contract

    @property
    def settings(self) -> dict[str, Any]:
        """The columns and what is made of them."""
        return asdict(self._format)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates and intensity; see `PointFormat.read`."""
        xyz, features = self._format.read(frame.path)
        turned = xyz[:, [1, 0, 2]]
        turned[:, 0].neg_()
        return turned, features


class Once(RecordedPairs):
    """Pairs from `data/<sequence>`: sweeps in `lidar_roof`, poses in `<sequence>.json`.

    Poses are of the LiDAR relative to the sequence's first frame (quaternion x, y, z, w and translation). Frames
    without a usable pose, or whose sweep is not there, are left out and the sequence is cut there.

    Attributes:
        sequences: names of those that are used.

    Raises:
        FileNotFoundError: a folder, a list, or every sequence of the splits is missing.
        ValueError: a sequence's JSON cannot be read, or no pair is left.
    """

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("raw_small", "raw_medium", "raw_large"),
        sequences: list[str] | tuple[str, ...] | None = None,
        gap: int = 1,
        intensity_scale: float = 255.0,
        accumulate: int = 1,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `data/` and `ImageSets/`.
            splits: lists in ImageSets; by default the pool without labels. Lists and sequences that were not
                downloaded are passed over.
            sequences: names ("000076"), instead of splits.
            gap: frames (half seconds) from source to target.
            intensity_scale: see `OnceSweeps`.
            accumulate: see `RecordedPairs`.
        """
        folders = find_sequences(Path(root), splits, sequences)
        self.sequences = [folder.name for folder in folders]
        runs = [run for folder in folders for run in _runs(folder)]
        super().__init__("once", runs, OnceSweeps(float(intensity_scale)), gap, accumulate=accumulate)


def find_sequences(root: Path, splits: Iterable[str], names: Iterable[str] | None) -> list[Path]:
    """Return the folders of sequences.

    Raises:
        FileNotFoundError: a folder or list does not exist, or none (one of `names`) of the sequences does.
        ValueError: a split is unknown.
    """
    data = require_folder(root, "ONCE data", "dataset.root") / "data"
    require_folder(data, "ONCE sequences", "dataset.root")
    if names is not None:
        return [require_folder(data / str(name), "ONCE sequence", "dataset.sequences") for name in names]
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise ValueError(f"dataset.splits must be of {', '.join(SPLITS)}, got {unknown}")
    lists = [root / "ImageSets" / f"{split}.txt" for split in splits]
    there = [path for path in lists if path.is_file()]
    if not there:
        raise FileNotFoundError(
            f"no list of ONCE's sequences: looked for {', '.join(map(str, lists))}; give dataset.sequences instead"
        )
    listed = [name for path in there for name in path.read_text().split()]
    folders = [data / name for name in dict.fromkeys(listed) if (data / name).is_dir()]
    if not folders:
        raise FileNotFoundError(f"none of the {len(listed)} sequences of {', '.join(splits)} is in {data}")
    if len(folders) < len(listed) or len(there) < len(lists):
        lists_there = ", ".join(path.name for path in there)
        _LOG.warning("ONCE: %d of %d sequences of %s are there", len(folders), len(listed), lists_there)
    return folders


def read_frames(sequence: Path, *, annotations: bool) -> list[dict[str, Any]]:
    """Return the frames of `<sequence>.json` by time, with `frame_id` and what else there is.

    Args:
        sequence: folder.
        annotations: keep `annos`; False drops them as the text is parsed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such JSON.
    """
    path = sequence / f"{sequence.name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: it holds the sequence's poses")
    try:
        content = json.loads(path.read_text(), object_pairs_hook=dict if annotations else _without_annotations)
        frames = sorted(content["frames"], key=lambda frame: int(frame["frame_id"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no ONCE sequence, download it again ({type(error).__name__}: {error})") from error
    return frames


def sweep_frame(sequence: Path, frame_id: str) -> Frame:
    """Return where a sweep is; frame ids are milliseconds of the epoch."""
    path = sequence / "lidar_roof" / f"{frame_id}.bin"
    return Frame(f"once/{sequence.name}/{frame_id}", path, int(frame_id), int(frame_id) * 1e-3)


def _without_annotations(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key != "annos"}


def _runs(sequence: Path) -> list[Run]:
    lidar = sequence / "lidar_roof"
    there = {path.stem for path in lidar.iterdir()} if lidar.is_dir() else set()
    listed = read_frames(sequence, annotations=False)
    frames, poses = [], []
    for entry in listed:
        pose = _sensor_pose(entry.get("pose"))
        if pose is not None and str(entry["frame_id"]) in there:
            frames.append(sweep_frame(sequence, str(entry["frame_id"])))
            poses.append(pose)
    if len(frames) < len(listed):
        _LOG.warning(
            "ONCE sequence %s: %d of %d frames have both sweep and pose", sequence.name, len(frames), len(listed)
        )
    return split_runs(frames, np.stack(poses), _LONGEST_STEP) if frames else []


def _sensor_pose(numbers: Any) -> NDArray[np.float64] | None:
    """Return (4, 4) world_T_sensor, axes as ours; None if there is no pose."""
    if not isinstance(numbers, list) or len(numbers) != 7:
        return None
    values = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(values).all() or np.linalg.norm(values[:4]) < 1e-3:
        return None
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(values[:4]).as_matrix()
    pose[:3, 3] = values[4:]
    return pose @ ONCE_T_SENSOR
