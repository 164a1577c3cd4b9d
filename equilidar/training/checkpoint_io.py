"""Checkpoints that survive a kill in mid-write and a full disk, and that run no code when they are loaded."""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_fabric.utilities.types import _PATH

from equilidar.atomic_file import atomic_file


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the old checkpoint and then replaces it; reads with `weights_only=True` whatever is asked.

    Lightning's own goes through $TMPDIR and a move without fsync, which tears where that is another filesystem.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`, atomically.

        Raises:
            OSError: it cannot be written (full disk); what `path` held before is untouched.
        """
        try:
            with atomic_file(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch's zip writer turns the OSError of a full disk into a RuntimeError while it closes.
            cause = _disk_error(error)
            if cause is None:
                raise
            raise OSError(
                f"could not write checkpoint {path} ({cause.strerror or cause}); the previous one is untouched: "
                "make room, then the same command goes on from it"
            ) from error

    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values; anything else in the file is refused.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no checkpoint, or holds more than tensors and plain values.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"checkpoint {path} does not exist")
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(
                f"checkpoint {path} cannot be read: it is damaged or holds more than tensors and plain values "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            ) from error

    def remove_checkpoint(self, path: _PATH) -> None:
        """Delete `path` if it is there."""
        Path(path).unlink(missing_ok=True)


def _disk_error(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__context__
    return None
