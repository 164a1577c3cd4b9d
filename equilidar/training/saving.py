"""Checkpoints during training: last.ckpt every so many steps, with what a resumed run needs to be the same run."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from equilidar.training.run_directory import RunDirectory


class SaveLast(pl.Callback):
    """Writes last.ckpt every `every_n_steps` optimizer steps, at the end of each epoch, and on SIGTERM.

    Args:
        run: the run directory.
        every_n_steps: of the optimizer.
        also: called in the main process beside each checkpoint, for what else should be kept (the backbone's file).
    """

    def __init__(self, run: RunDirectory, every_n_steps: int = 500, also: Callable[[], object] | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError(f"callbacks.checkpoint_every must be at least 1 step, got {every_n_steps}")
        self._run, self._every, self._also = run, every_n_steps, also
        self._saved_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from where the run goes on."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save, unless gradients are half accumulated: they are in no checkpoint."""
        step = trainer.global_step
        if step != self._saved_step and step % self._every == 0 and not _ends_epoch(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, if steps were taken since the last time."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save where a scheduler takes the machine away; Lightning raises this between two steps."""
        is_preempted = type(exception).__name__ == "SIGTERMException"
        if is_preempted and trainer.fit_loop._data_fetcher is not None and not _ends_epoch(trainer):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self._run.last_checkpoint, weights_only=False)
        if self._also is not None and trainer.is_global_zero:
            self._also()


def _ends_epoch(trainer: pl.Trainer) -> bool:
    """Tell whether the last batch of an epoch is done, the epoch not yet.

    From a checkpoint of that moment Lightning resumes with a loader that has nothing left, and takes that for the end
    of the run. The save at the end of the epoch follows at once.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class RandomStates(pl.Callback):
    """Keeps the global random states of every process in the checkpoint.

    Draws that matter are keyed by sample and read none of these; what else there is (dropout, a user's own code) goes
    on as in an unbroken run.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore, now that everything that draws while it is set up is set up."""
        if self._pending is not None:
            _restore(self._pending)
            self._pending = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; every process must call this."""
        states: list[Any] = [_random_state()]
        if dist.is_available() and dist.is_initialized():
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, _random_state())
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep this process's state for the start; with more processes than before, the new ones stay as seeded."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        if rank < len(state_dict["processes"]):
            self._pending = state_dict["processes"][rank]


def _random_state() -> dict[str, Any]:
    """Return the states as tensors and plain values, which `weights_only` loading takes."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (the global state itself)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def _restore(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
