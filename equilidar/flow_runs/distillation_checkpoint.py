"""The state of a distillation on disk, so that the same command goes on where it was killed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from equilidar.atomic_file import atomic_file


@runtime_checkable
class Stateful(Protocol):
    """A network, an optimizer, a schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class DistillationCheckpoint:
    """A file beside the network's that is whole or not there, whenever the process is killed.

    Args:
        path: of the file.
        identity: plain values that decide the training; a file of another's is refused.
        every: steps between writes.

    Raises:
        ValueError: `every` is less than 1.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: int = 50) -> None:
        if every < 1:
            raise ValueError(f"checkpoint_every must be at least 1 step, got {every}")
        self.path, self._every = path, every
        self._identity = json.dumps(identity, sort_keys=True, default=str)

    def restore(self, parts: Mapping[str, Stateful]) -> int:
        """Give the parts the state of the file, if there is one, and return the steps that were done.

        Raises:
            ValueError: the file is damaged, or another training's.
        """
        if not self.path.is_file():
            return 0
        remedy = f"remove {self.path} to begin anew"
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, step = state["identity"], int(state["step"])
        except Exception as error:
            raise ValueError(f"output: {self.path} is no checkpoint ({type(error).__name__}); {remedy}") from None
        if identity != self._identity:
            raise ValueError(f"output: {self.path} is of a training with other settings or data; {remedy}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        print(f"{self.path}: going on after step {step}", flush=True)
        return step

    def keep(self, step: int, parts: Mapping[str, Stateful]) -> None:
        """Write the state after every so many steps."""
        if step % self._every == 0:
            state = {"identity": self._identity, "step": step, **{name: p.state_dict() for name, p in parts.items()}}
            with atomic_file(self.path) as file:
                torch.save(state, file)

    def remove(self) -> None:
        """Remove the file: the network is saved."""
        self.path.unlink(missing_ok=True)
