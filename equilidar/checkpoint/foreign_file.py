"""Opens checkpoints of other code bases without running anything that they hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equilidar.checkpoint.record import FileRecord
from equilidar.checkpoint.whole_file import read_whole

# Where a file keeps the network's state: OpenPCDet; mmdetection3d, det3d and Lightning; others. Else it is the state.
_STATES = ("model_state", "state_dict", "model")
_ABOUT = ("epoch", "it", "version")
_PLAIN = (int, float, str, np.generic)


@dataclass(frozen=True)
class ForeignFile:
    """A checkpoint of another code base.

    Attributes:
        source: its path, for messages.
        tensors: the network's state, in the file's order.
        about: `epoch`, `it` and `version`, where it states them.
        record: what the file says of its tensors; files written here have one.
    """

    source: str
    tensors: dict[str, Tensor]
    about: dict[str, int | float | str] = field(default_factory=dict)
    record: FileRecord | None = None


class _Inert:
    """Stands for a harmless class of a training framework: whatever the file says of it is dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def _allowed() -> list[Any]:
    """Return what `weights_only` may build besides tensors: NumPy's scalars and arrays, under all their names.

    None of these calls anything: NumPy refuses pickled objects in them, and the stand-ins drop what they are given.
    """
    core: Any = getattr(np, "_core", None) or np.core  # the former from NumPy 2 on
    rebuild = {"scalar": core.multiarray.scalar, "_reconstruct": core.multiarray._reconstruct}
    named = [(made, f"{module}.{name}") for name, made in rebuild.items() for module in _NUMPY_MODULES]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"}
    return [*named, np.ndarray, np.dtype, *kinds, *((made, name) for name, made in _STAND_INS.items())]


_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_STAND_INS: dict[str, type] = {
    "mmengine.logging.history_buffer.HistoryBuffer": _Inert,
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "lightning.pytorch.utilities.parsing.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
}


def read_foreign(path: Path | str, state: str | None = None) -> ForeignFile:
    """Read a `.pth`, `.pt` or `.ckpt` file, or a safetensors file.

    Args:
        path: the file.
        state: key of the network's state in it; None finds it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read without running code that it holds, is damaged, or holds no tensors by name.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors, metadata = read_whole(path, "checkpoint")
        return ForeignFile(str(path), tensors, record=FileRecord.from_metadata(metadata))
    content = _load(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds no tensors by name but a {type(content).__name__}: it is no checkpoint")
    if state is not None and not isinstance(content.get(state), Mapping):
        raise ValueError(f"{path} has no state={state}; it has {', '.join(map(str, content))}")
    key = state or next((name for name in _STATES if isinstance(content.get(name), Mapping)), None)
    values: Mapping[Any, Any] = content if key is None else content[key]
    tensors = {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        nested = [str(name) for name, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
        choice = f"; say which of its parts it is: state={' or state='.join(nested)}" if nested else ""
        raise ValueError(f"{path} holds no model_state and no other tensors by name: it is no checkpoint{choice}")
    about = {name: _plain(content[name]) for name in _ABOUT if isinstance(content.get(name), _PLAIN)}
    return ForeignFile(str(path), tensors, about, FileRecord.from_dict(content.get("equilidar")))


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in any way
        text = " ".join(str(error).split())
        wanted = re.search(r"GLOBAL ([\w.]+)", text)
        reason = f"it wants to build {wanted[1]}" if wanted else text[:160] or type(error).__name__
        raise ValueError(
            f"{path} is damaged or holds more than tensors and numbers ({reason}); if you trust its source, open it "
            "once with torch.load(weights_only=False) and save {'model_state': ...} alone"
        ) from error


def _has_tensors(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in values.values())


def _plain(value: Any) -> int | float | str:
    """Return a NumPy scalar as Python's own number, for JSON."""
    return value.item() if isinstance(value, np.generic) else value
