"""What a flow network learns from: pairs with an estimator's flow, turned and mirrored at random."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.data.faults import Fault, FaultBudget, FaultySweepError
from equilidar.data.packing_progress import Progress
from equilidar.data.protocols import PairDataset
from equilidar.flow import FlowEstimator
from equilidar.structures import PointCloudBatch, SweepPairBatch
from equilidar.structures.moving import Movable
from equilidar.structures.seeding import uniform

_DYNAMIC_SPEED = 0.5  # m/s
_STREAM_TURN = 310


@dataclass(frozen=True)
class Example:
    """A pair as the network learns from it.

    Attributes:
        source: (N, 3) moved into the target's frame by the ego motion.
        target: (M, 3).
        residual: (N, 3) the teacher's flow beyond the ego motion's, metres.
        weight: (N,) its confidence, 0 where it has no answer.
        moving: residual above which a point moves, metres.
    """

    source: Float[Tensor, "N 3"]
    target: Float[Tensor, "M 3"]
    residual: Float[Tensor, "N 3"]
    weight: Float[Tensor, " N"]
    moving: float

    @property
    def moving_points(self) -> int:
        """Source points that move."""
        return int((self.residual.norm(dim=1) > self.moving).sum())


def example_of(batch: SweepPairBatch, teacher: FlowEstimator) -> Example:
    """Return what a batch of one pair teaches."""
    source = batch.source
    moved = batch.target_T_source.apply(source.xyz, source.offsets)
    field = teacher(batch)
    weight = torch.where(field.valid, field.confidence, 0.0)
    threshold = _DYNAMIC_SPEED * float(batch.gap.abs())
    return Example(moved, batch.target.xyz.clone(), field.flow - (moved - source.xyz), weight, threshold)


def load_examples(
    dataset: PairDataset, indices: Sequence[int], teacher: FlowEstimator, faults: FaultBudget | None = None
) -> list[Example]:
    """Read pairs and their teacher's flow into memory, about 3 MB for a pair of 120 000 points each."""
    budget, examples = faults or FaultBudget(), []
    with Progress(len(indices), "pair") as bar:
        for done, index in enumerate(indices, 1):
            found: list[Fault] = []
            try:
                examples.append(example_of(SweepPairBatch.collate([dataset[index]]), teacher))
            except FaultySweepError as error:
                found = [Fault(dataset.keys[index], str(error))]
            for fault in budget.observe(1, found):
                print(f"skipped {fault.key}: {fault.reason}", flush=True)
            bar.show(done)
    return examples


@dataclass(slots=True)
class Lesson(Movable):
    """A batch of examples, turned.

    Attributes:
        source: in the target's frame.
        target: of the same items.
        residual: (N, 3) of the source points.
        weight: (N,) of them.
        moves: (N,) bool: they do.
    """

    source: PointCloudBatch
    target: PointCloudBatch
    residual: Float[Tensor, "N 3"]
    weight: Float[Tensor, " N"]
    moves: Bool[Tensor, " N"]


def lesson_of(examples: Sequence[Example], seeds: Int64[Tensor, " B"]) -> Lesson:
    """Turn each example about the vertical and mirror it by its seed: both sweeps and the flow alike."""
    draws = uniform(seeds, _STREAM_TURN, 2)
    sources, targets, residuals = [], [], []
    for example, (turn, mirror) in zip(examples, draws.tolist(), strict=True):
        matrix = _turn(2 * math.pi * turn, -1.0 if mirror < 0.5 else 1.0)
        sources.append(_cloud(example.source @ matrix.T))
        targets.append(_cloud(example.target @ matrix.T))
        residuals.append(example.residual @ matrix.T)
    return Lesson(
        PointCloudBatch.collate(sources),
        PointCloudBatch.collate(targets),
        torch.cat(residuals),
        torch.cat([example.weight for example in examples]),
        torch.cat([example.residual.norm(dim=1) > example.moving for example in examples]),
    )


def _turn(yaw: float, side: float) -> Float[Tensor, "3 3"]:
    cos, sin = math.cos(yaw), math.sin(yaw)
    return torch.tensor([[cos, -sin * side, 0.0], [sin, cos * side, 0.0], [0.0, 0.0, 1.0]])


def _cloud(xyz: Float[Tensor, "N 3"]) -> PointCloudBatch:
    return PointCloudBatch(xyz, xyz[:, :0], torch.tensor([0, len(xyz)]), ())
