"""Where a tool computes."""

import torch


def device_of(name: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" takes the GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    if isinstance(name, torch.device):
        return name
    kind, _, number = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r} (one of several GPUs: cuda:0, cuda:1, ...)")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= gpus:
        what = f"{gpus} GPUs are" if gpus else "no GPU is"
        raise ValueError(f"device={name}, but {what} to be had here; set device=cpu")
    return torch.device("cuda" if gpus else "cpu") if name == "auto" else torch.device(name)
