"""Recordings without labels: runs of consecutive frames, read in pairs."""

import hashlib
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from equilidar.data.accumulation import accumulate, accumulated_contract
from equilidar.data.listing import content_hash, files_hash
from equilidar.data.point_files import PointFormat
from equilidar.structures import SensorContract, Sweep, SweepPair


@dataclass(frozen=True, slots=True)
class Frame:
    """A sweep on disk.

    Attributes:
        key: "dataset/sequence/frame".
        path: the file that holds it.
        number: frame number or time stamp, rising through a sequence.
        timestamp: seconds.
        position: where in `path`, if that holds more than one sweep: a byte offset or an index, as the reader of the
            frames understands it.
    """

    key: str
    path: Path
    number: int
    timestamp: float
    position: int = 0


@runtime_checkable
class FrameReader(Protocol):
    """Turns frames into points. It is sent to loader workers: no open files in it."""

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        ...

    @property
    def settings(self) -> Any:
        """Everything that changes what is read from the same files, as JSON can hold it."""
        ...

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read coordinates (metres) and scaled channels.

        Raises:
            FaultySweepError: this frame cannot be used.
        """
        ...


@dataclass(frozen=True)
class PointFileReader:
    """Reads frames that are a point file each.

    Attributes:
        point_format: how the files are read.
    """

    point_format: PointFormat = field(default_factory=PointFormat)

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        return self.point_format.contract

    @property
    def settings(self) -> dict[str, Any]:
        """The columns and what is made of them."""
        return asdict(self.point_format)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
        """Read the file; see `PointFormat.read`."""
        return self.point_format.read(frame.path)


@dataclass(frozen=True)
class Run:
    """Frames of one recording, none missing between them.

    Attributes:
        frames: in order of time.
        world_T_sensor: (F, 4, 4) poses in a frame of the run's own; None where they are yet to be estimated.
    """

    frames: list[Frame]
    world_T_sensor: NDArray[np.float64] | None = None


PoseEstimator = Callable[[Sequence[Frame], FrameReader], NDArray[np.float64]]


def split_runs(frames: list[Frame], poses: NDArray[np.float64] | None, max_step: float) -> list[Run]:
    """Cut where the frame number rises by more than `max_step`: a sweep is missing there."""
    if not frames:
        return []
    steps = np.diff([frame.number for frame in frames])
    bounds = [0, *(np.flatnonzero(steps > max_step) + 1).tolist(), len(frames)]
    return [
        Run(frames[start:stop], None if poses is None else poses[start:stop])
        for start, stop in itertools.pairwise(bounds)
    ]


def frame_sweep(
    run: Run, index: int, contract: SensorContract, xyz: Float[Tensor, "N 3"], features: Float[Tensor, "N C"]
) -> Sweep:
    """Return the single sweep of frame `index` of a run, with its pose where the run has them."""
    frame = run.frames[index]
    pose = None if run.world_T_sensor is None else torch.from_numpy(run.world_T_sensor[index].copy())
    return Sweep(xyz, features, contract, frame.key, frame.timestamp, pose)


def read_sweep(
    run: Run, index: int, reader: FrameReader, number: int = 1, known: dict[int, Sweep] | None = None
) -> Sweep:
    """Read a frame of a run, joined with the frames before it (fewer at the run's start).

    Args:
        run: the recording.
        index: of the frame in the run.
        reader: what turns frames into points.
        number: how many frames make the sweep, the frame itself included; see `accumulate`.
        known: single sweeps of this run that were read already, by index; those read now are added.

    Raises:
        FaultySweepError: one of the frames cannot be used.
    """
    known = {} if known is None else known
    wanted = range(index, max(index - number, -1), -1)
    for place in wanted:
        if place not in known:
            known[place] = frame_sweep(run, place, reader.contract, *reader.read(run.frames[place]))
    return known[index] if number == 1 else accumulate([known[place] for place in wanted])


class RecordedPairs:
    """Pairs of sweeps `gap` frames apart within runs. Knows frames and poses, and no way to labels.

    Attributes:
        runs: what there is, with poses: the sequences, cut where a sweep is missing.
        reader: what turns their frames into points.
        gap: in frames.
        accumulate: frames that make a sweep.
        keys: "source key->target key".

    Raises:
        ValueError: the gap is not positive, no run is long enough for a pair, or one has no poses and there is no
            estimator.
    """

    def __init__(
        self,
        name: str,
        runs: list[Run],
        reader: FrameReader,
        gap: int,
        estimate_poses: PoseEstimator | None = None,
        *,
        accumulate: int = 1,
        target_keys: Collection[str] | None = None,
    ) -> None:
        """List the pairs; where a run long enough for one has no poses, estimate them now, in this process.

        Args:
            name: of the data set.
            runs: of frames.
            reader: how their points are read.
            gap: frames from source to target.
            estimate_poses: ego motion from the sweeps of a run; None where every run has poses.
            accumulate: frames that make a sweep: the frame itself and those before it in its run.
            target_keys: frames that may be the target of a pair; None for all.
        """
        if accumulate < 1:
            raise ValueError(f"dataset.accumulate must be at least 1 frame, got {accumulate}")
        if gap < 1:
            raise ValueError(f"dataset.gap must be at least 1 frame, got {gap}")
        longest = max((len(run.frames) for run in runs), default=0)
        if longest <= gap:
            raise ValueError(
                f"{name}: no two sweeps are {gap} frames apart; there are {len(runs)} runs of consecutive frames, the "
                f"longest has {longest}"
            )
        self.name = name
        self.gap = gap
        self.reader = reader
        self.accumulate, self._target_keys = accumulate, target_keys
        self.contract: SensorContract = reader.contract if accumulate == 1 else accumulated_contract(reader.contract)
        self._given_poses = [run.world_T_sensor for run in runs if run.world_T_sensor is not None]
        self.runs = [self._with_poses(run, estimate_poses) for run in runs]
        self._pairs = [
            (r, i)
            for r, run in enumerate(self.runs)
            for i, target in enumerate(run.frames[gap:])
            if target_keys is None or target.key in target_keys
        ]
        if not self._pairs:
            raise ValueError(f"{name}: none of the sweeps that may be targets has another one {gap} frames before it")
        self._sweeps = [(r, i) for r, run in enumerate(self.runs) for i in range(len(run.frames))]
        self.keys = [f"{self._frame(r, i).key}->{self._frame(r, i + gap).key}" for r, i in self._pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> SweepPair:
        """Return pair `index`; raises FaultySweepError where one of its sweeps cannot be used."""
        run, first = self._pairs[index]
        known: dict[int, Sweep] = {}
        source, target = self._read(run, first, known), self._read(run, first + self.gap, known)
        assert source.world_T_sensor is not None and target.world_T_sensor is not None
        return SweepPair(source, target, torch.linalg.inv(target.world_T_sensor) @ source.world_T_sensor)

    @property
    def num_sweeps(self) -> int:
        return len(self._sweeps)

    @property
    def sweep_keys(self) -> list[str]:
        """Key of each sweep, in order."""
        return [frame.key for run in self.runs for frame in run.frames]

    @property
    def sweep_gap(self) -> int:
        return self.gap

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index` of all runs, in order."""
        return self._read(*self._sweeps[index])

    def sweep_runs(self) -> list[range]:
        """Return the indices of each run's sweeps."""
        bounds = [0, *itertools.accumulate(len(run.frames) for run in self.runs)]
        return [range(start, stop) for start, stop in itertools.pairwise(bounds)]

    def is_target(self, index: int) -> bool:
        """Tell whether sweep `index` may be the target of a pair."""
        return self._target_keys is None or self._frame(*self._sweeps[index]).key in self._target_keys

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers names, sizes and given poses, not the points."""
        frames = [frame for run in self.runs for frame in run.frames]
        # Adding zero makes -0.0 and 0.0 one; bytes, because a data set has hundreds of thousands of poses.
        poses = [hashlib.sha256((poses.round(6) + 0.0).tobytes()).hexdigest() for poses in self._given_poses]
        files = files_hash([frame.key for frame in frames], dict.fromkeys(frame.path for frame in frames))
        return {
            "name": self.name,
            "num_samples": len(self),
            "num_sweeps": self.num_sweeps,
            "num_runs": len(self.runs),
            "gap": self.gap,
            "accumulate": self.accumulate,
            "num_runs_with_given_poses": len(self._given_poses),
            "contract": [self.contract.channels, self.contract.scales, self.contract.frame],
            "reader": self.reader.settings,
            "hash": content_hash([files, poses, self.gap, self.accumulate, self.keys, self.reader.settings]),
        }

    def _frame(self, run: int, index: int) -> Frame:
        return self.runs[run].frames[index]

    def _with_poses(self, run: Run, estimate_poses: PoseEstimator | None) -> Run:
        if run.world_T_sensor is not None or len(run.frames) <= self.gap:
            return run
        if estimate_poses is None:
            raise ValueError(f"{self.name}: no poses for the run that begins with {run.frames[0].key}")
        return Run(run.frames, estimate_poses(run.frames, self.reader))

    def _read(self, run: int, index: int, known: dict[int, Sweep] | None = None) -> Sweep:
        return read_sweep(self.runs[run], index, self.reader, self.accumulate, known)
