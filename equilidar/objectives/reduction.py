"""Means over what is there, right under data-parallel training.

DDP averages gradients over processes. A mean over each process's own valid rows would weigh the rows of a process
with few of them more. So the local sum is divided by the number of valid rows of all processes and multiplied by the
number of processes: the average that DDP takes, of gradients as of logged values, is then the mean over all rows.
Every process must call these the same number of times, whatever it holds.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from equilidar.nn.processes import all_processes_sum, num_processes
from equilidar.structures.host_sync import allowed_sync


def masked_mean(
    values: Float[Tensor, " N"], weights: Shaped[Tensor, " N"] | None = None, *, count: Tensor | None = None
) -> Float[Tensor, ""]:
    """Return sum(weights * values) / count, for all processes together; zero, with zero gradient, where count is zero.

    Args:
        values: local rows.
        weights: 0..1 or a mask; 1 if None. Rows of weight zero are left out, even if not finite.
        count: local denominator; the sum of the weights if None.
    """
    if weights is None:
        weights = torch.ones_like(values)
    weights = weights.to(values.dtype).detach()
    total = torch.where(weights > 0, values * weights, 0.0).sum()
    denominator = all_processes_sum(weights.sum() if count is None else count.to(values.dtype))
    return total * num_processes() / torch.where(denominator > 0, denominator, 1.0)


def any_process(is_so: bool, device: torch.device) -> bool:
    """Tell whether something is so in any process."""
    if num_processes() == 1:
        return is_so
    with allowed_sync("all processes must know, or those that go on wait for the others for ever"):
        return bool(all_processes_sum(torch.tensor(float(is_so), device=device)) > 0)
