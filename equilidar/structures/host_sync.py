"""Where the host may wait for the device, and why.

On CUDA the host stays ahead of the device only while nothing asks for a result. Whatever must ask (how many pairs does
a rulebook hold? is the loss finite?) does so inside `allowed_sync`, with the reason beside it; nothing else in a
training step may. Tests run steps under `torch.cuda.set_sync_debug_mode("error")`, and without a GPU under
`equilidar.sync_watch`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

_reasons: list[str] = []


@contextmanager
def allowed_sync(reason: str) -> Iterator[None]:
    """Let the host wait for the device inside the block.

    Args:
        reason: what has to be known on the host; for whoever reads the code, and for `current_reason`.
    """
    mode = torch.cuda.get_sync_debug_mode() if torch.cuda.is_initialized() else 0
    _reasons.append(reason)
    if mode:
        torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        _reasons.pop()
        if mode:
            torch.cuda.set_sync_debug_mode(mode)


def current_reason() -> str | None:
    """Return the reason of the innermost `allowed_sync` block, None outside of any."""
    return _reasons[-1] if _reasons else None


def constants(values: Sequence[float | int], *, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a few numbers as a 1-d tensor, filled in on the device.

    `torch.tensor(values, device=...)` copies from memory that is not page-locked, for which the host waits.
    """
    return torch.stack([torch.full((), value, device=device, dtype=dtype) for value in values])


def rows_where(mask: Bool[Tensor, " N"], reason: str) -> Int64[Tensor, " K"]:
    """Return the rows where `mask` is true, in order. How many there are is read from the device, as `reason` says."""
    with allowed_sync(reason):
        return mask.nonzero()[:, 0]
