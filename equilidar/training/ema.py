"""Networks that follow another one by exponential moving average: pretraining's targets, finetuning's averages."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Momentum:
    """How much of the target stays at each step.

    BYOL's rise (Grill et al., NeurIPS 2020, section 3.3): 1 - (1 - base) * (cos(pi * k / K) + 1) / 2, generalised to an
    end other than 1.

    Attributes:
        base: at the first step.
        final: at the last step; the same as `base` for a constant.
    """

    base: float = 0.999
    final: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.base <= self.final <= 1:
            raise ValueError(f"momentum: 0 <= base <= final <= 1 must hold, got {self.base} and {self.final}")

    def at(self, step: int, total_steps: int) -> float:
        """Return the momentum of step `step` (from 0) of `total_steps`."""
        progress = min(step / max(total_steps, 1), 1.0)
        return self.final - (self.final - self.base) * (math.cos(math.pi * progress) + 1) / 2


@dataclass(frozen=True)
class WeightAverage:
    """How finetuning averages its weights over the steps (Polyak & Juditsky 1992, with exponential forgetting).

    The first steps forget faster, so that the random start is gone before it is averaged over:
    min(decay, (1 + k) / (10 + k)) of the average stays at step k.

    Attributes:
        decay: what stays of the average at each later step; 0 keeps no average.
    """

    decay: float | int = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay must be at least 0 (no average) and below 1, got {self.decay}")

    def at(self, step: int) -> float:
        """Return how much of the average stays at step `step` (from 0)."""
        return min(float(self.decay), (1 + step) / (10 + step))


class TargetNetwork(nn.Module):
    """A copy of a network that gets no gradient and is always in eval mode."""

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(online).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "TargetNetwork":
        """Stay in eval mode, whatever the module that holds this one does."""
        return super().train(False)


@torch.no_grad()
def follow(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Move each target towards its online network: target = momentum * target + (1 - momentum) * online.

    Buffers are copied: BatchNorm's running statistics are averages already, and averaging them again would leave the
    target with those of its first steps for some thousand more.

    Args:
        pairs: (online, target) of the same architecture.
        momentum: 0..1.
    """
    for online, target in pairs:
        for kept, current in zip(target.parameters(), online.parameters(), strict=True):
            kept.lerp_(current, 1 - momentum)
        for kept, current in zip(target.buffers(), online.buffers(), strict=True):
            kept.copy_(current)
