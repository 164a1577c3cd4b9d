"""Loads the compiled kernels (package `equilidar_kernels`) if they are installed."""

import importlib
import warnings
from dataclasses import dataclass
from functools import cache

PACKAGE = "equilidar_kernels"
INTERFACE = 2
"""To be raised, here and in the kernels' package, whenever the schema of an op that has a kernel changes."""


@dataclass(frozen=True)
class ExtensionStatus:
    """What became of the compiled kernels.

    Attributes:
        version: version of the loaded package; None if it is not in use.
        error: why an installed package could not be loaded; None if it was, or is not installed.
    """

    version: str | None
    error: str | None


@cache
def load() -> ExtensionStatus:
    """Load the kernels once; without them every op runs its PyTorch reference.

    A package that is installed but does not load (built for another torch or for other ops, a missing library) is
    warned about: it would otherwise only show as slowness.
    """
    try:
        module = importlib.import_module(PACKAGE)
        built_for = getattr(module, "INTERFACE", None)
        if built_for != INTERFACE:
            raise ImportError(f"its kernels are for interface {built_for} of the ops, this equilidar has {INTERFACE}")
        module.register()
    except ModuleNotFoundError as error:
        if error.name == PACKAGE:
            return ExtensionStatus(None, None)
        return _unusable(error)
    except (ImportError, OSError) as error:
        return _unusable(error)
    return ExtensionStatus(getattr(module, "__version__", "unknown"), None)


@cache
def advise() -> None:
    """Warn, once in a process, where the kernels are not installed: everything runs without them, only slower."""
    status = load()
    if status.version is None and status.error is None:
        warnings.warn(
            "the compiled kernels are not installed: sparse convolutions and geometry run in PyTorch, with the same "
            "results but slower; get them by `make kernels`, or by `pip install ./cuda_ext --no-build-isolation`",
            stacklevel=3,
        )


def _unusable(error: Exception) -> ExtensionStatus:
    warnings.warn(
        f"{PACKAGE} is installed but cannot be loaded, its ops run in PyTorch ({error}); rebuild it by `make kernels`",
        stacklevel=3,
    )
    return ExtensionStatus(None, f"{type(error).__name__}: {error}")
