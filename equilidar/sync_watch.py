"""Finds, without a GPU, where a computation would make the host wait for one; shipped, for your own objectives' tests.

with watch_syncs() as syncs:
    objective(pair).total().backward()
assert not syncs, "\\n".join(map(str, syncs))
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from equilidar.structures.host_sync import current_reason

# Operators whose CUDA versions read from the device: a value, or the size of what they return.
_WAITING = frozenset(
    [
        *(f"aten::{name}" for name in ("_local_scalar_dense", "is_nonzero", "equal", "_linalg_check_errors")),
        *(f"aten::{name}" for name in ("nonzero", "masked_select", "bincount", "_unique", "_unique2")),
        *(f"aten::{name}" for name in ("unique_dim", "unique_consecutive", "unique_dim_consecutive")),
        *(f"equilidar::{name}" for name in ("voxel_rows", "voxel_means", "voxel_slots")),
        *(f"equilidar::{name}" for name in ("submanifold_pairs", "strided_pairs")),
        *(f"equilidar::{name}" for name in ("rotated_nms", "axis_aligned_nms", "circle_nms")),
    ]
)
# Calls that copy between host and device, and never reach the operators above on a CPU.
_COPYING = frozenset({"tolist", "cpu", "numpy", "new_tensor"})
_MADE_FROM_HOST = frozenset({"tensor", "as_tensor"})
_PACKAGE = Path(__file__).parent
_NO_PLACE = (str(_PACKAGE / "sync_watch.py"), str(_PACKAGE / "structures" / "host_sync.py"), "<")


@dataclass(frozen=True, slots=True)
class HostSync:
    """A call that waits for the device.

    Attributes:
        call: operator or function.
        place: file, line and source of the innermost frame in this package or, if there is none, of the caller.
        reason: that of `allowed_sync`; None if the call stands in no such block.
    """

    call: str
    place: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.call} at {self.place}" + ("" if self.reason is None else f" ({self.reason})")


@contextmanager
def watch_syncs(*, allowed: bool = False) -> Iterator[list[HostSync]]:
    """Record calls that would wait for a GPU, if the tensors were on one; a copy `to` another device is not seen.

    Args:
        allowed: record those inside `allowed_sync`, too.

    Yields:
        What was found; the list grows while the block runs, a backward pass included.
    """
    found: list[HostSync] = []

    def record(call: str) -> None:
        reason, place = current_reason(), _place()
        if place is not None and (allowed or reason is None):
            found.append(HostSync(call, place, reason))

    operators = _Operators(record)
    with _Functions(record, operators), operators:
        yield found


class _Operators(TorchDispatchMode):
    def __init__(self, record: Callable[[str], None]) -> None:
        super().__init__()
        self.record, self.inside = record, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _WAITING or _reads_mask(name, args) or _repeats_unknown(func, args, kwargs or {}):
            self.record(name)
        # What a CPU kernel does inside says nothing of the CUDA kernel.
        before, self.inside = self.inside, True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.inside = before


class _Functions(TorchFunctionMode):
    def __init__(self, record: Callable[[str], None], operators: _Operators) -> None:
        super().__init__()
        self.record, self.operators = record, operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        # A device that is named as a string in the source is the host itself.
        copies = name in _COPYING or (name in _MADE_FROM_HOST and isinstance(kwargs.get("device"), torch.device))
        if (copies and not self.operators.inside) or (name == "__getitem__" and _has_list(args[1])):
            self.record(name)
        return func(*args, **kwargs)


def _reads_mask(name: str, args: Any) -> bool:
    """Tell whether an indexing has to count the true entries of a mask."""
    if not name.startswith(("aten::index", "aten::_index_put", "aten::_unsafe_index")) or len(args) < 2:
        return False
    indices = args[1] if isinstance(args[1], list | tuple) else []
    masked = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
    # One value put where a mask is true becomes `masked_fill`.
    return masked and not ("put" in name and args[2].numel() == 1)


def _repeats_unknown(func: Any, args: Any, kwargs: Any) -> bool:
    is_repeat = func._schema.name == "aten::repeat_interleave" and func._schema.overload_name == "Tensor"
    return is_repeat and kwargs.get("output_size") is None and len(args) < 2


def _has_list(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) for part in parts)


def _place() -> str | None:
    frames = [frame for frame in traceback.extract_stack() if not _is_wrapper(frame.filename)]
    # torch's optimizers read their step counters, which they keep on the host; what their closure calls counts.
    callers = [frame for frame in frames if "/torch/" not in frame.filename or "/torch/optim/" in frame.filename]
    if callers and "/torch/optim/" in callers[-1].filename:
        return None
    own = [frame for frame in frames if frame.filename.startswith(f"{_PACKAGE}/")]
    frame = (own or [frame for frame in frames if "/site-packages/" not in frame.filename] or frames)[-1]
    return f"{frame.filename}:{frame.lineno}: {frame.line}"


def _is_wrapper(filename: str) -> bool:
    """Tell whether a file is this module, or one of the shape checks that tests run under (partly generated code)."""
    return filename.startswith(_NO_PLACE) or "/jaxtyping/" in filename
