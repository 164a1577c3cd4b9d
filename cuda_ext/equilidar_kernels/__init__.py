"""Compiled kernels of equilidar's ops: importing this registers them with the dispatcher, for CPU and, if built, CUDA.

`equilidar.ops` imports it where it is installed; nothing else needs to.
"""

import ctypes
from pathlib import Path

import torch

__version__ = "0.1.0"


def _library() -> Path:
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if len(found) != 1:
        raise ImportError(f"{len(found)} libraries _C*.so in {Path(__file__).parent}, expected 1; run `make kernels`")
    return found[0]


_PATH = _library()
torch.ops.load_library(str(_PATH))


def build_info() -> str:
    """Return what the library was built with: version of torch, and whether it holds CUDA kernels."""
    describe = ctypes.CDLL(str(_PATH)).equilidar_kernels_build
    describe.restype = ctypes.c_char_p
    return describe().decode()
