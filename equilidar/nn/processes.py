"""Sums over the processes that train together."""

import torch.distributed as dist
from torch import Tensor


def all_processes_sum(value: Tensor) -> Tensor:
    """Return the sum of `value` over all processes, without gradient; every process must call it."""
    value = value.detach().clone()
    if num_processes() > 1:
        dist.all_reduce(value)
    return value


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shared_count(count: Tensor) -> Tensor:
    """Return by what a local sum must be divided so that DDP's average of gradients is that of the mean over all rows.

    That is the number of rows of all processes, at least 1, over the number of processes.

    Args:
        count: of local rows.
    """
    return all_processes_sum(count).clamp_min(1) / num_processes()
