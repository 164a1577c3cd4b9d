"""Reads a safetensors file: tensors and metadata, or an error of one line."""

from pathlib import Path

import safetensors
from torch import Tensor


def read_whole(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Args:
        path: the file.
        what: it should hold ("backbone"), for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or was cut off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} file at {path}")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no whole safetensors file ({reason})") from error
