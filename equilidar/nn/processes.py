"""Sums over the processes that train together."""

import torch.distributed as dist
from torch import Tensor


def all_processes_sum(value: Tensor) -> Tensor:
    """Return the sum of `value` over all processes, without gradient; every process must ask for it."""
    value = value.detach().clone()
    if num_processes() > 1:
        dist.all_reduce(value)
    return value


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
