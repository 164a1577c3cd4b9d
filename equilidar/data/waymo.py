"""Waymo Open Dataset v1: pairs of frames from TFRecord files, without TensorFlow and without their labels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.data.faults import FaultySweepError
from equilidar.data.recordings import Frame, RecordedPairs, split_runs
from equilidar.data.waymo_range_images import ELONGATION, INTENSITY, LIDARS, LidarReturn, frame_points
from equilidar.data.waymo_records import CONTEXT, LASERS, POSE, TIMESTAMP, find_segments, list_segments, read_message
from equilidar.structures import SensorContract

CHANNELS = ("intensity", "tanh_intensity", "elongation")
# Microseconds. Frames are a tenth of a second apart; beyond one and a half of that one is missing.
_MAX_STEP = 150_000.0


@dataclass(frozen=True)
class WaymoPoints:
    """Reads the points of frames; nothing else of a record is even parsed.

    Coordinates are in the vehicle frame: x forward, y left, z up, origin on the ground below the rear axle.

    Attributes:
        channels: of intensity (as recorded, from 0 without an upper bound), tanh_intensity (squashed to 0..1, as
            CenterPoint and OpenPCDet use it) and elongation (0..1.5, the pulse's stretch).
        lidars: of TOP, FRONT, SIDE_LEFT, SIDE_RIGHT, REAR.
        returns: of 1 and 2.
    """

    channels: tuple[str, ...] = ("intensity", "elongation")
    lidars: tuple[str, ...] = tuple(LIDARS)
    returns: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        for name, known in (("channels", CHANNELS), ("lidars", tuple(LIDARS)), ("returns", (1, 2))):
            given = tuple(getattr(self, name))
            object.__setattr__(self, name, given)
            if any(item not in known for item in given) or len(set(given)) != len(given):
                raise ValueError(f"dataset.{name} must be of {list(known)}, each once, got {list(given)}")
        if not self.lidars or not self.returns:
            raise ValueError(f"dataset.lidars and dataset.returns may not be empty: {self.lidars}, {self.returns}")

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return SensorContract(self.channels, (1.0,) * len(self.channels), "ego")

    @property
    def settings(self) -> dict[str, Any]:
        """Channels, lidars and returns."""
        return asdict(self)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates (metres) and channels.

        Raises:
            FaultySweepError: the record is corrupt or truncated, a range image is broken, or there are no points.
        """
        message = read_message(frame, (CONTEXT, TIMESTAMP, POSE, LASERS))
        return self.points(self.measure(message, frame))

    def measure(self, message: Any, frame: Frame) -> list[LidarReturn]:
        """Return the points of a parsed frame, by lidar and return.

        Raises:
            FaultySweepError: a range image is broken, or there are no points.
        """
        try:
            found = frame_points(message, self.lidars, self.returns)
        except FaultySweepError as error:
            raise FaultySweepError(f"{frame.path}, {frame.key}: {error}") from error
        if not any(len(part.xyz) for part in found):
            raise FaultySweepError(
                f"{frame.path}, {frame.key}: no points of {', '.join(self.lidars)}; set dataset.lidars"
            )
        return found

    def points(self, found: Sequence[LidarReturn]) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Return coordinates and channels of all parts, in their order."""
        values = np.concatenate([part.values for part in found])
        columns = {
            "intensity": values[:, INTENSITY],
            "tanh_intensity": np.tanh(values[:, INTENSITY]),
            "elongation": values[:, ELONGATION],
        }
        xyz = torch.from_numpy(np.concatenate([part.xyz for part in found]).astype(np.float32))
        features = [columns[name] for name in self.channels]
        stacked = np.stack(features, 1) if features else np.zeros((len(xyz), 0), np.float32)
        return xyz, torch.from_numpy(np.ascontiguousarray(stacked))


class Waymo(RecordedPairs):
    """Pairs of frames (10 Hz) of the segments of a split.

    A segment whose file is truncated or corrupt between its records is left out as a whole, with a warning; a record
    that turns out to be corrupt when it is read is a faulty sweep.

    Attributes:
        left_out: why, by file name.

    Raises:
        FileNotFoundError: a folder does not exist, or no segment is in it.
        ValueError: settings are wrong, two files hold the same segment, or no pair is left.
        ImportError: Waymo's protobuf modules are not installed.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "training",
        segments: Sequence[str] | None = None,
        gap: int = 1,
        accumulate: int = 1,
        channels: Sequence[str] = ("intensity", "elongation"),
        lidars: Sequence[str] = tuple(LIDARS),
        returns: Sequence[int] = (1, 2),
        cache_dir: str | Path | None = None,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `training`, `validation`, `testing`.
            split: folder in it whose .tfrecord files are read, also those in folders below; None for `root` itself.
            segments: text in the names of those to read; None for all.
            gap: frames from source to target, 0.1 s each.
            accumulate: frames that make a sweep: itself and those before it; more than one add the channel `time`.
            channels: see `WaymoPoints`.
            lidars: see `WaymoPoints`.
            returns: see `WaymoPoints`.
            cache_dir: keeps names, times and poses of the frames, so that files are listed once; None for the user's
                cache folder.
        """
        reader = WaymoPoints(tuple(channels), tuple(lidars), tuple(returns))
        listed, self.left_out = list_segments(find_segments(Path(root), split, segments), cache_dir)
        runs = [run for frames, poses in listed for run in split_runs(frames, poses, _MAX_STEP)]
        super().__init__("waymo", runs, reader, gap, accumulate=accumulate)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {**super().provenance(), "left_out": self.left_out}
