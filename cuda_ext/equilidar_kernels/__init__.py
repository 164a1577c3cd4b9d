"""Compiled kernels of equilidar's ops, for CPU and, if built, CUDA.

`equilidar.ops` registers them where they are installed; nothing else needs to.
"""

import ctypes
from pathlib import Path

import torch

__version__ = "0.1.0"
INTERFACE = 2
"""Number of the ops' schemas that these kernels were written for; `equilidar.ops._extension` holds the one it needs."""


def library() -> Path:
    """Return the shared library that holds the kernels."""
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if len(found) != 1:
        raise ImportError(f"{len(found)} libraries _C*.so in {Path(__file__).parent}, expected 1; run `make kernels`")
    return found[0]


def register() -> None:
    """Register the kernels with the dispatcher. Kernels of other schemas would abort there: compare INTERFACE first."""
    torch.ops.load_library(str(library()))


def build_info() -> str:
    """Return what the library was built with: version of torch, and whether it holds CUDA kernels."""
    describe = ctypes.CDLL(str(library())).equilidar_kernels_build
    describe.restype = ctypes.c_char_p
    return describe().decode()
