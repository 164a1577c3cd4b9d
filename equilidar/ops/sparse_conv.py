"""Sparse 3D convolution over a rulebook: gather rows, multiply, scatter-add, offset by offset.

Weights are (out, kz, ky, kx, in) everywhere: spconv >= 2.2's layout, "krsc" in a backbone's identity.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.ops.rulebook import Rulebook


def sparse_conv(
    features: Float[Tensor, "V_in C_in"],
    weight: Float[Tensor, "C_out kz ky kx C_in"],
    rulebook: Rulebook,
    bias: Float[Tensor, " C_out"] | None = None,
) -> Float[Tensor, "V_out C_out"]:
    """Convolve sparse features; differentiable in features, weight and bias.

    Sums are kept in float32 or better. Bitwise reproducible, for no two additions to a row run at once.

    Args:
        features: rows as the rulebook's input.
        weight: cross-correlation kernel.
        rulebook: which rows meet under which offset.
        bias: added to every output row.

    Raises:
        ValueError: features or weight do not belong to this rulebook.
    """
    if len(features) != rulebook.num_in:
        raise ValueError(f"features have {len(features)} rows, the rulebook was built for {rulebook.num_in}")
    if weight[0, ..., 0].numel() != len(rulebook.counts):
        raise ValueError(
            f"weight must be (out, kz, ky, kx, in) with {len(rulebook.counts)} offsets, got {tuple(weight.shape)}"
        )
    out = _sparse_conv(
        features, weight, rulebook.in_rows, rulebook.out_rows, rulebook.counts, rulebook.center, rulebook.num_out
    )
    return out if bias is None else out + bias.to(out.dtype)


def _reference(
    features: Tensor,
    weight: Tensor,
    in_rows: Tensor,
    out_rows: Tensor,
    counts: Sequence[int],
    center: int,
    num_out: int,
) -> Tensor:
    matrices = weight.flatten(1, 3).unbind(1)
    total = torch.promote_types(features.dtype, torch.float32)
    if center >= 0:
        out = (features @ matrices[center].T).to(total)
    else:
        out = features.new_zeros(num_out, len(weight), dtype=total)
    per_offset = zip(matrices, in_rows.split(list(counts)), out_rows.split(list(counts)), strict=True)
    for matrix, sources, targets in per_offset:
        out.index_add_(0, targets, (features.index_select(0, sources) @ matrix.T).to(total))
    return out.to(features.dtype)


def _weight_grad_reference(
    features: Tensor,
    grad: Tensor,
    in_rows: Tensor,
    out_rows: Tensor,
    counts: Sequence[int],
    center: int,
    kernel: Sequence[int],
) -> Tensor:
    gradients = features.new_zeros(grad.shape[1], len(counts), features.shape[1])
    per_offset = zip(in_rows.split(list(counts)), out_rows.split(list(counts)), strict=True)
    for offset, (sources, targets) in enumerate(per_offset):
        if offset == center:
            gradients[:, offset] = grad.T @ features
        else:
            gradients[:, offset] = grad.index_select(0, targets).T @ features.index_select(0, sources)
    return gradients.view(grad.shape[1], *kernel, features.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, weight, in_rows, out_rows, ctx.counts, ctx.center, _ = inputs
    ctx.save_for_backward(features, weight, in_rows, out_rows)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, weight, in_rows, out_rows = ctx.saved_tensors
    grad_features = grad_weight = None
    if ctx.needs_input_grad[0]:
        # The adjoint of a convolution is one with input and output exchanged, in rows and in weights.
        adjoint = weight.permute(4, 1, 2, 3, 0)
        grad_features = _sparse_conv(grad, adjoint, out_rows, in_rows, ctx.counts, ctx.center, len(features))
    if ctx.needs_input_grad[1]:
        kernel = weight.shape[1:4]
        grad_weight = _weight_grad(features, grad, in_rows, out_rows, ctx.counts, ctx.center, kernel)
    return grad_features, grad_weight, None, None, None, None, None


def _weight_grad_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, grad, in_rows, out_rows, ctx.counts, ctx.center, _ = inputs
    ctx.save_for_backward(features, grad, in_rows, out_rows)


def _weight_grad_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    # The weight's gradient is linear in features and in grad; both adjoints are convolutions again.
    features, grad, in_rows, out_rows = ctx.saved_tensors
    adjoint = direction.permute(4, 1, 2, 3, 0)
    grad_features = _sparse_conv(grad, adjoint, out_rows, in_rows, ctx.counts, ctx.center, len(features))
    grad_grad = _sparse_conv(features, direction, in_rows, out_rows, ctx.counts, ctx.center, len(grad))
    return grad_features, grad_grad, None, None, None, None, None


_sparse_conv = define_op(
    "sparse_conv(Tensor features, Tensor weight, Tensor in_rows, Tensor out_rows, SymInt[] counts, int center, "
    "SymInt num_out) -> Tensor",
    reference=_reference,
    fake=lambda features, weight, in_rows, out_rows, counts, center, num_out: features.new_empty(
        num_out, weight.shape[0]
    ),
    setup_context=_setup_context,
    backward=_backward,
    autocast="lower",
)
_weight_grad = define_op(
    "sparse_conv_weight_grad(Tensor features, Tensor grad, Tensor in_rows, Tensor out_rows, SymInt[] counts, "
    "int center, SymInt[] kernel) -> Tensor",
    reference=_weight_grad_reference,
    fake=lambda features, grad, in_rows, out_rows, counts, center, kernel: features.new_empty(
        grad.shape[1], *kernel, features.shape[1]
    ),
    setup_context=_weight_grad_setup_context,
    backward=_weight_grad_backward,
    autocast="lower",
)
