"""Helpers to test ops and equivariance; shipped, for your own ops, layers and objectives need them, too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload

from equilidar.ops._registration import reference_of
from equilidar.structures import Affine3

Element = TypeVar("Element")

# (relative, absolute): rounding of a few hundred operations on numbers of order one.
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-9, 1e-11),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (5e-3, 5e-3),
    torch.bfloat16: (3e-2, 3e-2),
}


def assert_close(actual: Any, expected: Any, *, dtype: torch.dtype | None = None, name: str = "result") -> None:
    """Assert that tensors, or sequences of tensors, agree: exactly for integers, else to the tolerance of a dtype.

    Args:
        actual: what was computed.
        expected: what is right; its dtype may be wider.
        dtype: whose tolerance is meant; that of `actual` if None.
        name: how to call it in the message.
    """
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        relative, absolute = TOLERANCES.get(dtype or actual.dtype, (0.0, 0.0))
        if not actual.is_floating_point():
            relative, absolute = 0.0, 0.0
        torch.testing.assert_close(
            actual,
            expected.to(actual.dtype),
            rtol=relative,
            atol=absolute,
            equal_nan=True,
            msg=lambda text: f"{name}: {text}",
        )
    elif isinstance(actual, Sequence) and isinstance(expected, Sequence):
        assert len(actual) == len(expected), f"{name}: {len(actual)} outputs, expected {len(expected)}"
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, dtype=dtype, name=f"{name}[{i}]")
    else:
        assert actual == expected, f"{name}: {actual} != {expected}"


def assert_op(
    op: OpOverload,
    args: Sequence[Any],
    *,
    reference: Callable[..., Any] | None = None,
    gradcheck: bool = True,
) -> None:
    """Assert that an op is right, and rightly registered, for one set of arguments.

    Checked are the values against the reference, `torch.library.opcheck` (schema, fake, autograd, compilation with
    dynamic shapes) and, if an argument requires a gradient, the gradients against the reference's, `gradcheck` in
    float64, and forward and backward inside a bfloat16 autocast region.

    Args:
        op: an op of `torch.ops.equilidar`.
        args: its arguments, by position. Tensors that require a gradient are differentiated.
        reference: what the op should compute, differentiable by plain autograd; the op's own readable reference if
            None, which then tests the kernel that the dispatcher chose.
        gradcheck: False where numerical differentiation makes no sense, as at a tie of a maximum.
    """
    expected_of = reference or reference_of(op)
    with torch.no_grad():
        assert_close(_tuple(op(*args)), _tuple(expected_of(*args)), name=f"{op} values")
    torch.library.opcheck(op, tuple(args))
    if not any(_is_differentiated(arg) for arg in args):
        return
    expected = _gradients(expected_of, args)
    actual = _gradients(op, args)
    assert_close(actual, expected, name=f"{op} gradients")
    for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
        _assert_same_direction(one, other, f"{op} gradient {i}")
    if gradcheck:
        assert torch.autograd.gradcheck(op, [_to_dtype(arg, torch.float64) for arg in args])
    _assert_autocast(op, args, actual)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _is_differentiated(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.requires_grad


def _to_dtype(arg: Any, dtype: torch.dtype) -> Any:
    if not isinstance(arg, Tensor) or not arg.is_floating_point():
        return arg
    return arg.detach().to(dtype).requires_grad_(arg.requires_grad)


def _gradients(function: Callable[..., Any], args: Sequence[Any], *, in_autocast: bool = False) -> list[Tensor]:
    """Return the gradients of a fixed random projection of the outputs."""
    leaves = [arg.detach().clone().requires_grad_() if _is_differentiated(arg) else arg for arg in args]
    device_type = next(arg.device.type for arg in args if isinstance(arg, Tensor))
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=in_autocast):
        outputs = [out for out in _tuple(function(*leaves)) if isinstance(out, Tensor) and out.requires_grad]
        assert outputs, f"{function}: no output requires a gradient"
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs]
        # Inside the region on purpose: the harder of the two places to call backward from.
        return list(torch.autograd.grad(outputs, [leaf for leaf in leaves if _is_differentiated(leaf)], weights))


def _assert_same_direction(actual: Tensor, expected: Tensor, name: str) -> None:
    """Compare whole gradients: a missing small term hides below an element's tolerance, not in their angle."""
    one, other = actual.double().flatten(), expected.double().flatten()
    if float(other.norm()) == 0:
        return
    cosine = float(torch.dot(one, other) / (one.norm() * other.norm()).clamp_min(1e-300))
    ratio = float(one.norm() / other.norm())
    assert cosine > 1 - 1e-5 and abs(ratio - 1) < 1e-3, f"{name}: cosine {cosine:.7f}, length ratio {ratio:.5f}"


def _assert_autocast(op: OpOverload, args: Sequence[Any], expected: list[Tensor]) -> None:
    """Run forward and backward under bfloat16 autocast; gradients keep the leaves' dtype and agree roughly."""
    single = [_to_dtype(arg, torch.float32) for arg in args]
    actual = _gradients(op, single, in_autocast=True)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == torch.float32, f"{op}: gradient of a float32 tensor is {one.dtype} under autocast"
        assert_close(one, other, dtype=torch.bfloat16, name=f"{op} gradients under autocast")


def similarities(
    num: int,
    seed: int = 0,
    *,
    batch_size: int = 1,
    max_yaw: float = torch.pi,
    scale: tuple[float, float] = (0.8, 1.25),
    mirrors: bool = True,
    max_shift: float = 5.0,
) -> dict[str, Affine3]:
    """Draw transforms for `assert_equivariant`: rotation about z, uniform scale, mirror and translation.

    Args:
        num: how many.
        seed: of the draws.
        batch_size: maps in each `Affine3`, all drawn independently.
        max_yaw: radians, either way.
        scale: range of the factor.
        mirrors: whether half of the maps mirror y.
        max_shift: metres, per axis.

    Returns:
        Transforms by a name that tells the (first) map's parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for i in range(num):
        u = torch.rand(batch_size, 6, generator=generator)
        yaw = (2 * u[:, 0] - 1) * max_yaw
        factor = scale[0] + u[:, 1] * (scale[1] - scale[0])
        flip = (u[:, 2] < 0.5) & mirrors
        shift = (2 * u[:, 3:] - 1) * max_shift
        name = f"{i}: yaw {float(yaw[0]):+.3f}, scale {float(factor[0]):.3f}, mirror {bool(flip[0])}"
        drawn[name] = Affine3.from_parts(yaw=yaw, scale=factor, flip_y=flip, translation=shift)
    return drawn


def assert_equivariant(
    fn: Callable[[Any], Any],
    transform_samples: Mapping[str, Element],
    *,
    inputs: Any,
    act: Callable[[Element, Any], Any],
    act_output: Callable[[Element, Any], Any] | None = None,
    error: Callable[[Any, Any], float] | None = None,
    tolerance: float = 1e-4,
) -> dict[str, float]:
    """Assert `fn(act(g, x)) == act_output(g, fn(x))` for each sampled group element g.

    Args:
        fn: the function under test.
        transform_samples: group elements by name, as `similarities` draws them.
        inputs: x.
        act: how an element moves x.
        act_output: how it moves fn(x); None if it should not (invariance).
        error: distance of two outputs; the largest absolute difference of two tensors if None.
        tolerance: largest error allowed.

    Returns:
        The error by case. (To measure an error that need not vanish, pass `tolerance=math.inf`.)

    Raises:
        AssertionError: with the error of every case, not of the first that fails only.
    """
    if not transform_samples:
        raise ValueError("assert_equivariant: transform_samples is empty, nothing would be tested")
    distance = error or _largest_difference
    plain = fn(inputs)
    errors = {}
    for name, element in transform_samples.items():
        expected = plain if act_output is None else act_output(element, plain)
        errors[name] = distance(fn(act(element, inputs)), expected)
    # Negated, so that NaN fails.
    failed = [name for name, value in errors.items() if not value <= tolerance]
    table = "\n".join(f"  {value:.3e}{' <-' if name in failed else ''}  {name}" for name, value in errors.items())
    assert not failed, f"not equivariant in {len(failed)} of {len(errors)} cases (tolerance {tolerance:g}):\n{table}"
    return errors


def _largest_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, f"shapes {tuple(actual.shape)} and {tuple(expected.shape)} differ"
    return float((actual - expected).abs().max()) if actual.numel() else 0.0
