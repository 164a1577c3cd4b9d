"""Reads and writes safetensors files whose metadata are JSON: all of it, or an error of one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from equilidar.atomic_file import atomic_file
from equilidar.checkpoint.load_report import check_finite
from equilidar.checkpoint.record import FileRecord


def write_whole(
    path: Path | str, what: str, tensors: Mapping[str, Tensor], record: FileRecord, metadata: Mapping[str, Any]
) -> None:
    """Write tensors and what they mean; the file appears whole or not at all.

    Args:
        path: the file.
        what: it holds ("backbone"), for messages.
        tensors: on any device.
        record: kept with the file; its `format` is what `read_described` looks for.
        metadata: plain values for JSON, by name.

    Raises:
        ValueError: a weight is not finite.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    check_finite(plain, what)
    values = {name: json.dumps(value, sort_keys=True) for name, value in metadata.items()}
    content = safetensors.torch.save(plain, {"format": record.format, **record.as_metadata(), **values})
    with atomic_file(path) as file:
        file.write(content)


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
        foreign = path.suffix in (".pth", ".pt", ".ckpt")
        remedy = "; a checkpoint of another code base goes through tools/convert.py first" if foreign else ""
        raise ValueError(f"{path} is no whole safetensors file ({reason}){remedy}") from error


def read_described(
    path: Path, what: str, format_: str, names: tuple[str, ...], remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file of one format, and the named entries of its metadata.

    Args:
        path: the file.
        what: it should hold ("finetuned detector"), for messages.
        format_: its format must be.
        names: of the entries.
        remedy: where such a file comes from, for the message about another format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another format, or an entry is missing.
    """
    tensors, metadata = read_whole(path, what)
    if metadata.get("format") != format_:
        raise ValueError(f"{path} is no {what} (format {metadata.get('format')!r}, expected {format_!r}): {remedy}")
    if missing := [name for name in names if name not in metadata]:
        raise ValueError(f"{path}: its metadata cannot be read (no {', '.join(missing)})")
    try:
        return tensors, {name: json.loads(metadata[name]) for name in names}
    except ValueError as error:
        raise ValueError(f"{path}: its metadata cannot be read ({' '.join(str(error).split())})") from error


def format_of(path: Path | str) -> str | None:
    """Return the format that a safetensors file states; None where it states none or is no such file."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (safetensors.SafetensorError, OSError, ValueError):
        return None
