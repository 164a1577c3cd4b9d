"""Learning-rate schedules, stepped once per optimizer step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup: float = 0.4,
    div_factor: float = 10.0,
    final_div_factor: float = 1.0e4,
    momentum: tuple[float, float] = (0.85, 0.95),
) -> LRScheduler:
    """Rise from lr / div_factor to lr, then fall; momentum (AdamW's first beta) falls and rises.

    Defaults are those of OpenPCDet's adam_onecycle for SECOND (PCT_START 0.4, DIV_FACTOR 10, MOMS [0.95, 0.85];
    its OneCycle ends at the first lr / 1e4).

    Args:
        optimizer: its lr is the peak.
        total_steps: optimizer steps of the whole run.
        warmup: fraction of the steps in which lr rises.
        div_factor: peak / first lr.
        final_div_factor: first lr / last lr.
        momentum: lowest (at the peak) and highest.
    """
    if not 0 < warmup < 1:
        raise ValueError(f"schedule.warmup must lie between 0 and 1, got {warmup}")
    low, high = momentum
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=max(total_steps, 2),
        pct_start=warmup,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        base_momentum=low,
        max_momentum=high,
    )


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0) -> LRScheduler:
    """Rise linearly to lr, then fall along half a cosine.

    Args:
        optimizer: its lr is the peak.
        total_steps: optimizer steps of the whole run.
        warmup: fraction of the steps in which lr rises.
        final: fraction of lr at the end.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"schedule.warmup must be at least 0 and below 1, got {warmup}")
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min((step - rising) / max(total_steps - rising, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Keep lr as it is."""
    return LambdaLR(optimizer, lambda step: 1.0)
