"""Tests of an op's two implementations: the kernel that the dispatcher chooses, and the reference."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from equilidar.ops._registration import reference_of
from equilidar.testing import assert_close

IMPLEMENTATIONS = ("dispatched", "reference")


def use(implementation: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module of `equilidar.ops` call its references, unless `implementation` is "dispatched"."""
    for name, value in list(vars(module).items()):
        if implementation == "reference" and isinstance(value, OpOverload):
            monkeypatch.setattr(module, name, reference_of(value))


def assert_same_bits_with_any_threads(run: Callable[[], tuple[Tensor, ...]]) -> None:
    """Assert that `run` returns the same bits with 1, 2 and 4 threads, twice each."""
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 4, 1, 2, 4):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


def assert_kernel_equals_reference(op: OpOverload, *args: object) -> None:
    """Assert equality to the tolerance of the dtype, without what `assert_op` checks beside it: for many cases."""
    actual, expected = op(*args), reference_of(op)(*args)
    assert_close(
        actual if isinstance(actual, tuple) else (actual,), expected if isinstance(expected, tuple) else (expected,)
    )
