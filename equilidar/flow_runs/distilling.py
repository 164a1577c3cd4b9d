"""Distils a flow network from an estimator's flow on unlabelled pairs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from equilidar.data.packing_progress import Progress
from equilidar.flow.flow_network import FlowAnswer, FlowNetwork
from equilidar.flow.flow_pillars import FlowNetworkShape, pillars_of
from equilidar.flow_runs.distillation_checkpoint import DistillationCheckpoint
from equilidar.flow_runs.lessons import Example, Lesson, lesson_of
from equilidar.structures.seeding import uniform

_STREAM_ORDER = 311


@dataclass(frozen=True)
class Distillation:
    """How a network is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: pairs of each.
        lr: highest learning rate of the one-cycle schedule.
        seed: of weights, order and turns.
        moving_weight: how much more a moving square counts than a resting one in the decision which it is.
    """

    steps: int = 1200
    batch_size: int = 2
    lr: float = 4e-3
    seed: int = 0
    moving_weight: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.lr > 0 or not self.moving_weight > 0:
            raise ValueError(f"distillation: steps, batch_size, lr and moving_weight must be positive, got {self}")

    def __call__(
        self,
        shape: FlowNetworkShape,
        examples: Sequence[Example],
        device: torch.device,
        report: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
        checkpoint: DistillationCheckpoint | None = None,
    ) -> FlowNetwork:
        """Train a network and return it, in eval mode.

        Pairs are drawn with replacement, those with many moving points more often (by the root of their number). Each
        is turned about the vertical and mirrored at random, both sweeps and the flow alike. What a step draws depends
        on the seed and the step alone.

        Args:
            shape: of the network.
            examples: to learn from.
            device: to train on.
            report: told the losses of each step.
            checkpoint: where to go on from, if anything is there, and to keep the state now and then.

        Raises:
            ValueError: there is no example, or the checkpoint is another training's.
        """
        if not examples:
            raise ValueError("no pair to distil from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = FlowNetwork(shape).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=1e-4)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=max(self.steps, 2), pct_start=0.1)
        parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
        first = checkpoint.restore(parts) if checkpoint else 0
        network.train()
        share = torch.tensor([float((example.moving_points + 100) ** 0.5) for example in examples]).cumsum(0)
        for step in range(first, self.steps):
            lesson = self._lesson(examples, share / share[-1], step).to(device)
            optimizer.zero_grad(set_to_none=True)
            with _same_bits(device):
                terms = self.losses(network, lesson)
                torch.stack(list(terms.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            report(step, {name: float(term.detach()) for name, term in terms.items()})
            if checkpoint:
                checkpoint.keep(step + 1, parts)
        return network.eval()

    def losses(self, network: FlowNetwork, lesson: Lesson) -> dict[str, Tensor]:
        """Return the losses over squares that hold source points, by the mean of these.

        "motion": metres off a square that moves (smooth L1); "decision": which squares do (cross entropy); "shift":
        cross entropy of the shifts within reach, the truth dealt to the four that are nearest.
        """
        answer = network(pillars_of(lesson.source, lesson.target, network.shape))
        truth, moves, weight = _square_means(answer, lesson)
        off = F.smooth_l1_loss(answer.motion, truth, beta=0.1, reduction="none").sum(1)
        share = weight * moves.clamp(min=0.02)  # resting squares too, a little: a wrong decision then costs less
        decision = F.binary_cross_entropy_with_logits(
            answer.moves, moves, pos_weight=truth.new_tensor(self.moving_weight), reduction="none"
        )
        shift = _shift_loss(answer.shifts, truth[:, :2] / (2 * network.shape.cell), network.shape.steps)

        def mean(values: Tensor, by: Tensor) -> Tensor:
            return (values * by).sum() / (by.sum() + 1e-6)

        return {"motion": mean(off, share), "decision": mean(decision, weight), "shift": 0.2 * mean(shift, share)}

    def _lesson(self, examples: Sequence[Example], share: Float[Tensor, " E"], step: int) -> Lesson:
        keys = torch.arange(self.batch_size) + self.batch_size * step + (self.seed << 40)
        chosen = torch.searchsorted(share, uniform(keys, _STREAM_ORDER, 1)[:, 0]).clamp(max=len(examples) - 1)
        return lesson_of([examples[place] for place in chosen.tolist()], keys)


def _square_means(
    answer: FlowAnswer, lesson: Lesson
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, " V"], Float[Tensor, " V"]]:
    """Return mean residual, share of moving points and mean weight of each square's source points."""
    known = answer.rows >= 0
    rows, weight, num = answer.rows[known], lesson.weight[known], len(answer.motion)
    columns = torch.cat([lesson.residual[known], lesson.moves[known, None].float()], 1) * weight[:, None]
    sums = columns.new_zeros(num, 4).index_add_(0, rows, columns)
    total = weight.new_zeros(num).index_add_(0, rows, weight)
    mean = sums / total.clamp(min=1e-6)[:, None]
    return mean[:, :3], mean[:, 3], total / torch.bincount(rows, minlength=num).clamp(min=1)


def _shift_loss(logits: Float[Tensor, "V S"], truth: Float[Tensor, "V 2"], steps: int) -> Float[Tensor, " V"]:
    """Return the cross entropy against the truth (in cells), dealt to the four shifts around it."""
    truth = truth.clamp(-steps, steps)
    low = truth.floor().clamp(max=steps - 1)
    part = truth - low
    first: Int64[Tensor, " V"] = ((low[:, 1] + steps) * (2 * steps + 1) + low[:, 0] + steps).long()
    places = torch.stack([first, first + 1, first + 2 * steps + 1, first + 2 * steps + 2], 1)
    x, y = part.unbind(1)
    share = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], 1)
    return -(logits.log_softmax(1).gather(1, places) * share).sum(1)


@contextmanager
def _same_bits(device: torch.device) -> Iterator[None]:
    """On a CPU add in one order whatever the threads do: the gradient of picked rows is not by itself."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(before[0] or device.type == "cpu", warn_only=before[1])
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


class StepReport:
    """Shows progress, and now and then the mean of the losses since it last did.

    Args:
        steps: of the training.
        every: steps between lines.
    """

    def __init__(self, steps: int, every: int = 100) -> None:
        self._bar, self._every = Progress(steps, "step"), every
        self._sums: dict[str, float] = {}
        self._counted = 0

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        """Count a step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += 1  # fewer than `every` where a training went on in between
        self._bar.show(step + 1)
        if (step + 1) % self._every == 0:
            print(
                f"step {step + 1}: " + ", ".join(f"{k} {v / self._counted:.3f}" for k, v in self._sums.items()),
                flush=True,
            )
            self._sums.clear()
            self._counted = 0

    def __enter__(self) -> "StepReport":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)
