"""Distils a flow network from an estimator's flow on unlabelled pairs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from equilidar.data.faults import Fault, FaultBudget, FaultySweepError
from equilidar.data.packing_progress import Progress
from equilidar.data.protocols import PairDataset
from equilidar.flow import FlowEstimator
from equilidar.flow.flow_network import FlowNetwork, FlowNetworkShape, PillarPair, pillars_of
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


@dataclass(frozen=True)
class Distillation:
    """How a network is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: pairs of each.
        lr: highest learning rate of the one-cycle schedule.
        seed: of weights, order and turns.
        moving_weight: how much more a moving pillar counts than a resting one in the decision which it is.
    """

    steps: int = 2000
    batch_size: int = 2
    lr: float = 3e-3
    seed: int = 0
    moving_weight: float = 3.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.lr > 0 or not self.moving_weight > 0:
            raise ValueError(f"distillation: steps, batch_size, lr and moving_weight must be positive, got {self}")

    def __call__(
        self,
        shape: FlowNetworkShape,
        examples: Sequence[Example],
        device: torch.device,
        report: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    ) -> FlowNetwork:
        """Train a network and return it, in eval mode.

        Each pair is turned about the vertical and mirrored at random, both sweeps and the flow alike.

        Args:
            shape: of the network.
            examples: to learn from.
            device: to train on.
            report: told the losses of each step.

        Raises:
            ValueError: there is no example.
        """
        if not examples:
            raise ValueError("no pair to distil from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = FlowNetwork(shape).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=1e-4)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=max(self.steps, 2), pct_start=0.2)
        network.train()
        for step, lesson in zip(range(self.steps), self._lessons(examples), strict=False):
            lesson = lesson.to(device)
            terms = self.losses(network, lesson)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            report(step, {name: float(term.detach()) for name, term in terms.items()})
        return network.eval()

    def losses(self, network: FlowNetwork, lesson: "Lesson") -> dict[str, Tensor]:
        """Return "motion", metres off a pillar that moves, and "decision", which pillars do (cross entropy).

        A pillar's truth is the mean of its source points', by their weight; pillars without one teach nothing.
        """
        pair = pillars_of(lesson.source, lesson.target, network.shape)
        motion, logit = network(pair)
        truth, moves, weight = _pillar_means(pair, lesson, len(motion))
        off = F.smooth_l1_loss(motion, truth, beta=0.1, reduction="none").sum(1)
        share = weight * moves.clamp(min=0.02)  # resting pillars too, a little: a wrong decision then costs less
        decision = F.binary_cross_entropy_with_logits(
            logit, moves, pos_weight=logit.new_tensor(self.moving_weight), reduction="none"
        )
        tiny = 1e-6
        return {
            "motion": (off * share).sum() / (share.sum() + tiny),
            "decision": (decision * weight).sum() / (weight.sum() + tiny),
        }

    def _lessons(self, examples: Sequence[Example]) -> Iterator["Lesson"]:
        """Yield batches for ever, each epoch in an order of its own."""
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < self.batch_size:
                waiting += torch.randperm(len(examples), generator=generator).tolist()
            chosen, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            seeds = torch.randint(2**62, (self.batch_size,), generator=generator)
            yield lesson_of([examples[place] for place in chosen], seeds)


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


def _pillar_means(
    pair: PillarPair, lesson: Lesson, num: int
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, " V"], Float[Tensor, " V"]]:
    """Return mean residual, share of moving points and mean weight of each pillar's source points."""
    known = pair.rows >= 0
    rows, weight = pair.rows[known], lesson.weight[known]
    columns = torch.cat([lesson.residual[known], lesson.moves[known, None].float()], 1) * weight[:, None]
    sums = columns.new_zeros(num, 4).index_add_(0, rows, columns)
    total = weight.new_zeros(num).index_add_(0, rows, weight)
    mean = sums / total.clamp(min=1e-6)[:, None]
    return mean[:, :3], mean[:, 3], total / pair.num_source.clamp(min=1)


class StepReport:
    """Shows progress, and now and then the mean of the losses since it last did.

    Args:
        steps: of the training.
        every: steps between lines.
    """

    def __init__(self, steps: int, every: int = 100) -> None:
        self._bar, self._every = Progress(steps, "step"), every
        self._sums: dict[str, float] = {}

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        """Count a step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value / self._every
        self._bar.show(step + 1)
        if (step + 1) % self._every == 0:
            print(f"step {step + 1}: " + ", ".join(f"{k} {v:.3f}" for k, v in self._sums.items()), flush=True)
            self._sums.clear()

    def __enter__(self) -> "StepReport":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)
