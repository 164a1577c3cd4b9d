"""Where a tool computes."""

import torch


def device_of(name: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" takes the GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    if isinstance(name, torch.device):
        return name
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but no GPU is to be had here; set device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
