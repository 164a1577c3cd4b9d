"""Registers an op from its four parts: schema, reference, fake, autograd.

The reference is registered for every device (`CompositeExplicitAutograd`), so a kernel that the compiled package
registers for one device outranks it there. Python alone owns the schema: one defined in C++, too, aborts the process.

    _scale = define_op(
        "scale(Tensor values, float factor) -> Tensor",
        reference=_scale_reference,
        fake=lambda values, factor: torch.empty_like(values),
        setup_context=_scale_setup,
        backward=_scale_backward,
        autocast="float32",
    )
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload

NAMESPACE = "equilidar"
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
_REFERENCES: dict[str, Callable[..., Any]] = {}

Cast = Literal["lower", "float32"]


def define_op(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    backward: Callable[..., Any] | None = None,
    autocast: Cast | None = None,
) -> OpOverload:
    """Register an op in the namespace `equilidar`.

    Args:
        schema: "name(Tensor x, ...) -> Tensor"; arguments are given by position when the op is called.
        reference: the readable version in PyTorch; its outputs may not alias its inputs.
        fake: shapes and dtypes of the outputs without data; sizes that depend on data come from
            `torch.library.get_ctx().new_dynamic_size()`.
        setup_context: `(ctx, inputs, output)`, saves what `backward` needs.
        backward: `(ctx, *output_gradients)`, one gradient per input; given for differentiable ops. It runs without
            autocast, in the dtypes of the forward pass.
        autocast: what floating inputs become inside an autocast region: "lower" the region's dtype (for ops that are
            matrix products), "float32" (for geometry and sums). Required of differentiable ops, for one whose forward
            pass is cast and whose gradient is not fails with mismatched dtypes.

    Returns:
        The op; call it like a function.
    """
    name = schema.partition("(")[0].strip()
    if (backward is None) != (setup_context is None) or (backward is not None and autocast is None):
        raise ValueError(f"op {name}: a differentiable op needs backward, setup_context and autocast together")
    _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    _REFERENCES[name] = reference
    op: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(op, _without_autocast(backward), setup_context=setup_context, lib=_LIBRARY)
    if autocast is not None:
        for device_type, key in _AUTOCAST_KEYS.items():
            _LIBRARY.impl(name, _autocast_kernel(op, device_type, autocast), key, with_keyset=True)
    return op


def reference_of(op: OpOverload) -> Callable[..., Any]:
    """Return the reference with which `op` was defined, whatever kernel the dispatcher would choose."""
    return _REFERENCES[op.name().partition("::")[2].partition(".")[0]]


def _autocast_kernel(op: OpOverload, device_type: str, cast: Cast) -> Callable[..., Any]:
    """Return a kernel that casts floating inputs on `device_type`, then calls the op below autocast."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    keys = keys | torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)

    def kernel(_: Any, *args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device_type) if cast == "lower" else torch.float32

        def converted(value: Any) -> Any:
            # float64 is left alone, as torch's own autocast rules do: gradcheck runs in it.
            is_cast = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(dtype) if is_cast and value.device.type == device_type else value

        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(converted(value) for value in args))

    return kernel


def _without_autocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return `backward` run outside any autocast region, for `loss.backward()` may be called inside one."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        device_type = next((grad.device.type for grad in grads if isinstance(grad, Tensor)), "cpu")
        with torch.autocast(device_type, enabled=False):
            return backward(ctx, *grads)

    return wrapped
