"""Compile loops with numba: lazily, and with the cache on disk only where there is a place for one."""

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled without Python objects at its first call; a division by zero is NumPy's, no error.

    The machine code is kept beside the source (or in NUMBA_CACHE_DIR) where that can be written; numba alone raises
    where it cannot (a read-only install), at import already.
    """
    # Run-time shape checking wraps functions as they are defined; numba needs the plain one.
    plain = inspect.unwrap(function)
    try:
        return numba.njit(cache=True, error_model="numpy")(plain)
    except RuntimeError:
        return numba.njit(error_model="numpy")(plain)
