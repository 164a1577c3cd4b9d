"""Sweeps and pairs of sweeps: what readers yield for pretraining. No type here can hold a box.

Flow convention: `flow` = where a source point is in the target sweep's own sensor frame minus where it is in
the source sweep's, ego motion included, metres over the gap. A point is dynamic where its residual to the rigid
ego motion exceeds 0.5 m/s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from equilidar.structures.moving import Movable
from equilidar.structures.points import PointCloudBatch
from equilidar.structures.transform import Affine3


@dataclass(frozen=True, slots=True)
class SensorContract:
    """What the numbers of a sweep mean; recorded with a backbone, for weights are only good for their input.

    Attributes:
        channels: names of the feature columns ("intensity", "time", "elongation", "ring" ...).
        scales: per channel, the raw value that is stored as 1.0 (intensity of 0..255 divided by 255: 255.0).
        frame: origin of the coordinates: the sensor, or the ego vehicle (rear axle or ground).
    """

    channels: tuple[str, ...]
    scales: tuple[float, ...]
    frame: Literal["sensor", "ego"]

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.scales):
            raise ValueError(f"contract: {len(self.channels)} channels but {len(self.scales)} scales")


@dataclass(slots=True)
class Sweep:
    """One turn of the sensor.

    Attributes:
        xyz: (N, 3) float32 metres, z up, in the frame that the contract names: x forward and y left but for nuScenes,
            whose sensor has x to the right and y forward.
        features: (N, C) float32, columns as `contract.channels`.
        contract: meaning of the columns.
        key: "dataset/sequence/frame", unique and stable.
        timestamp: seconds.
        world_T_sensor: (4, 4) float64 pose, None where unknown.
    """

    xyz: Float[Tensor, "N 3"]
    features: Float[Tensor, "N C"]
    contract: SensorContract
    key: str
    timestamp: float
    world_T_sensor: Float64[Tensor, "4 4"] | None = None

    def points(self) -> PointCloudBatch:
        """Return the sweep as a batch of one."""
        return PointCloudBatch(self.xyz, self.features, torch.tensor([0, len(self.xyz)]), self.contract.channels)


@dataclass(slots=True)
class SweepPair:
    """Two sweeps of one sequence, source before target.

    Attributes:
        source: the earlier sweep (t - 1 in the paper).
        target: the later sweep (t).
        target_T_source: (4, 4) float64 ego motion: source sensor frame -> target sensor frame.
        flow: (N_source, 3) float32 where a file or the simulator gives it (see the module), else None.
        flow_valid: (N_source,) bool, given with `flow`.
    """

    source: Sweep
    target: Sweep
    target_T_source: Float64[Tensor, "4 4"]
    flow: Float[Tensor, "N 3"] | None = None
    flow_valid: Bool[Tensor, " N"] | None = None

    @property
    def key(self) -> str:
        return f"{self.source.key}->{self.target.key}"


@dataclass(slots=True)
class SweepPairBatch(Movable):
    """B pairs, concatenated; attributes as in `SweepPair`.

    Attributes:
        source: earlier sweeps.
        target: later sweeps.
        target_T_source: ego motions.
        gap: (B,) seconds between the two.
        seeds: (B,) int64: each sample's own seed (from run seed, epoch and index), so that no draw depends on rank,
            worker or batch composition.
        keys: names of the pairs.
        flow: (N_source, 3) or None if any pair has none.
        flow_valid: (N_source,) or None.
    """

    source: PointCloudBatch
    target: PointCloudBatch
    target_T_source: Affine3
    gap: Float[Tensor, " B"]
    seeds: Int64[Tensor, " B"]
    keys: tuple[str, ...]
    flow: Float[Tensor, "N 3"] | None = None
    flow_valid: Bool[Tensor, " N"] | None = None

    @property
    def batch_size(self) -> int:
        return len(self.keys)

    @classmethod
    def collate(
        cls,
        pairs: list[SweepPair],
        seeds: list[int] | None = None,
        concatenate: Callable[[list[Tensor]], Tensor] = torch.cat,
    ) -> "SweepPairBatch":
        """Concatenate pairs, what they hold for each point by `concatenate`; `seeds` default to 0, 1, 2 ..."""
        if not pairs:
            raise ValueError("pairs: cannot collate an empty list")
        flows = [pair.flow for pair in pairs if pair.flow is not None]
        valids = [pair.flow_valid for pair in pairs if pair.flow_valid is not None]
        has_flow = len(flows) == len(valids) == len(pairs)
        return cls(
            PointCloudBatch.collate([pair.source.points() for pair in pairs], concatenate),
            PointCloudBatch.collate([pair.target.points() for pair in pairs], concatenate),
            Affine3.from_matrix(torch.stack([pair.target_T_source for pair in pairs]).float()),
            torch.tensor([pair.target.timestamp - pair.source.timestamp for pair in pairs]).float(),
            torch.tensor(range(len(pairs)) if seeds is None else seeds, dtype=torch.int64),
            tuple(pair.key for pair in pairs),
            concatenate(flows) if has_flow else None,
            concatenate(valids) if has_flow else None,
        )

    def split(self) -> "list[SweepPairBatch]":
        """Return the pairs as batches of one; the inverse of `collate`. Reads the offsets on the host."""
        lengths = self.source.offsets.diff().tolist()
        none = [None] * self.batch_size
        flows = none if self.flow is None else self.flow.split(lengths)
        valids = none if self.flow_valid is None else self.flow_valid.split(lengths)
        gaps, seeds = self.gap.split(1), self.seeds.split(1)
        return [
            SweepPairBatch(source, target, self.target_T_source[i : i + 1], gaps[i], seeds[i], (self.keys[i],), *flow)
            for i, (source, target, *flow) in enumerate(
                zip(self.source.split(), self.target.split(), flows, valids, strict=True)
            )
        ]


@dataclass(slots=True)
class FlowField(Movable):
    """Scene flow of a batch's source points.

    Attributes:
        flow: (N_source, 3) metres over the gap, ego motion included.
        valid: (N_source,) bool, False where the estimator has nothing to say.
        confidence: (N_source,) in 0..1.
    """

    flow: Float[Tensor, "N 3"]
    valid: Bool[Tensor, " N"]
    confidence: Float[Tensor, " N"]
