"""Moves every tensor of a batch dataclass between devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

# Not `Self`: beartype, which checks shapes in tests, cannot resolve it in undecorated classes.
T = TypeVar("T", bound="Movable")


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply `function` to each tensor inside dataclasses, tuples, lists and dicts; keep the rest."""
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{n: map_tensors(getattr(value, n), function) for n in names})
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map_tensors(item, function) for item in value)
    return value


class Movable:
    """Gives a batch dataclass `to` and `pin_memory`, both returning a new object.

    Lightning's own traversal rejects frozen dataclasses and guesses wrongly about others, so the
    batch types move themselves.
    """

    __slots__ = ()

    def to(self: T, device: torch.device | str, *, non_blocking: bool = False) -> T:
        """Return a copy whose tensors are on `device`."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: T) -> T:
        """Return a copy in page-locked memory, from which copies to a GPU are asynchronous."""
        return map_tensors(self, lambda tensor: tensor.pin_memory())
