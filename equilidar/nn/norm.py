"""Batch normalisation whose statistics span all processes.

`torch.nn.SyncBatchNorm` refuses CPU tensors; this runs on any backend, with unequal numbers of rows per process
(sparse voxels), and is otherwise torch's own: same arguments, same state-dict keys, same result in one process.
In training every process must run forward and backward through it, rows or not, or the others wait for ever: a loss
over no pairs is `features.sum() * 0`, not a constant.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class _GlobalBatchNorm(torch.autograd.Function):
    """Normalise (N, C) rows by the statistics of all processes' rows; returns them, too, for the running ones.

    Without two rows it normalises by `fallback`, mean and variance, if given.

    With x^ = (x - mean) / std and n rows in all, dL/dx = w / std * (g - sum(g) / n - x^ * sum(g * x^) / n), sums over
    all processes (Ioffe & Szegedy 2015, section 3). Gradients of weight and bias stay local: DDP averages them.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, fallback: tuple[Tensor, Tensor] | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = rows.to(torch.promote_types(rows.dtype, torch.float32))
        count, mean, variance = _global_statistics(values)
        enough = count > 1
        used_mean, used_variance = mean, variance
        if fallback is not None:
            used_mean = torch.where(enough, mean, fallback[0].to(mean.dtype))
            used_variance = torch.where(enough, variance, fallback[1].to(mean.dtype))
        inverse_std = (used_variance + eps).rsqrt()
        # What statistics that do depend on the rows pass back to each of them; constants pass nothing.
        share = enough / count.clamp(min=1)
        ctx.save_for_backward(rows, weight, used_mean, inverse_std, share)
        normalised = (values - used_mean) * (inverse_std * weight.to(values.dtype)) + bias.to(values.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised.to(rows.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, inverse_std, share = ctx.saved_tensors
        grad = grads[0].to(mean.dtype)
        normalised = (rows.to(mean.dtype) - mean) * inverse_std
        local = torch.stack([grad.sum(0), (grad * normalised).sum(0)])
        total = local.clone()
        dist.all_reduce(total)
        of_mean, of_variance = total * share
        grad_rows = (inverse_std * weight.to(mean.dtype)) * (grad - of_mean - normalised * of_variance)
        return grad_rows.to(rows.dtype), local[1].to(weight.dtype), local[0].to(weight.dtype), None, None


def _global_statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of rows, mean and biased variance over all processes.

    Each process fills its own line of a table and the tables are summed, so that means and squared deviations are
    combined (Chan et al. 1979) rather than sums of squares, which cancel; every process gets the same bits.
    """
    channels = values.shape[1]
    local_mean = values.mean(0) if len(values) else values.new_zeros(channels)
    table = values.new_zeros(dist.get_world_size(), 2 * channels + 1)
    line = table[dist.get_rank()]
    line[0], line[1 : channels + 1], line[channels + 1 :] = len(values), local_mean, ((values - local_mean) ** 2).sum(0)
    dist.all_reduce(table)
    counts, means, squares = table[:, :1], table[:, 1 : channels + 1], table[:, channels + 1 :]
    count = counts.sum()
    mean = (counts * means).sum(0) / count.clamp(min=1)
    variance = (squares + counts * (means - mean) ** 2).sum(0) / count.clamp(min=1)
    return count, mean, variance


def _forward(norm: _BatchNorm, values: Tensor) -> Tensor:
    """Normalise (N, C, ...) in training over all processes."""
    rows = values.movedim(1, -1)
    ones, zeros = rows.new_ones(norm.num_features), rows.new_zeros(norm.num_features)
    weight, bias = (ones, zeros) if norm.weight is None else (norm.weight, norm.bias)
    running = None
    if norm.running_mean is not None and norm.running_var is not None:
        # As they are now: the update below is in place.
        running = (norm.running_mean.clone(), norm.running_var.clone())
    flat, mean, variance, count = _GlobalBatchNorm.apply(
        rows.reshape(-1, norm.num_features), weight, bias, running, norm.eps
    )
    _update_running(norm, mean, variance, count)
    return flat.view(rows.shape).movedim(-1, 1)


def _update_running(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move running statistics towards the global ones (unbiased variance, as torch); not for fewer than two rows."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    with torch.no_grad():
        enough = (count > 1).to(mean.dtype)
        factor = enough * (0.0 if norm.momentum is None else norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += enough.long()
            if norm.momentum is None:
                factor = enough / norm.num_batches_tracked.clamp(min=1)
        unbiased = variance * count / (count - 1).clamp(min=1)
        norm.running_mean += factor * (mean - norm.running_mean)
        norm.running_var += factor * (unbiased - norm.running_var)


def _spans_processes(norm: _BatchNorm) -> bool:
    return norm.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the rows of all processes.

    Statistics are float32 whatever the input's dtype. Fewer than two rows, in all, have no variance: they are
    normalised by the running statistics, which stay as they are (an empty sweep is no error).
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if _spans_processes(self):
            return _forward(self, input)
        if self.training and input.numel() // self.num_features < 2:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the pixels of all processes; statistics in float32."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return _forward(self, input) if _spans_processes(self) else super().forward(input)
