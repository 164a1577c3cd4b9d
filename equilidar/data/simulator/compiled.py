"""Numba compilation that never fails an import: lazy, cached on disk where a cache folder can be written."""

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call. Without a writable cache folder (read-only install) it is compiled in each process."""
    # Run-time shape checkers wrap functions where they are defined; numba needs the bare one.
    bare = inspect.unwrap(function)
    try:
        return numba.njit(cache=True, error_model="numpy")(bare)
    except RuntimeError:
        return numba.njit(error_model="numpy")(bare)
