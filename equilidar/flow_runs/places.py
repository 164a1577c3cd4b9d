"""Where flow is computed, and where it is kept by default."""

from pathlib import Path

import torch


def beside(root: str | None, runs: str) -> Path:
    """Return the folder in which a dataset's `flow_cache` lies by default.

    Args:
        root: of the dataset: its folder, or the file that it is; None for one that is on no disk (the simulator).
        runs: root of all run directories, which serves then.
    """
    if root is None:
        return Path(runs)
    return Path(root).parent if Path(root).is_file() else Path(root)


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" takes the GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but no GPU is to be had here; set device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
