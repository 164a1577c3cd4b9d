"""What stops a run and says why: too many faulty samples, a loss or gradient that is not finite."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from equilidar.atomic_file import atomic_file
from equilidar.data.faults import FaultBudget
from equilidar.data.loading import LoadedBatch
from equilidar.training.run_directory import RunDirectory

_log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """A loss or a gradient is infinite or NaN."""


class FaultWatch(pl.Callback):
    """Counts faulty samples, names each once in the log and in faulty_samples.txt, and stops when they are too many.

    The counts are kept in the checkpoint.
    """

    def __init__(self, run: RunDirectory, budget: FaultBudget) -> None:
        self._file, self._budget = run.path / "faulty_samples.txt", budget

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any) -> None:
        """Count.

        Raises:
            TooManyFaultsError: more than the budget allows.
        """
        if not isinstance(batch, LoadedBatch):
            return
        for fault in self._budget.observe(batch.num_seen, batch.faults):
            line = f"{fault.key}: {fault.reason}"
            _log.warning("skipped %s", line)
            with self._file.open("a") as file:
                file.write(line + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return self._budget.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._budget.load_state_dict(state_dict)


class GradientGuard(pl.Callback):
    """Logs the gradient's norm before clipping, and stops before a gradient that is not finite reaches the weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batch: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any) -> None:
        """Remember the batch, to be able to name its samples."""
        self._batch = batch.batch if isinstance(batch, LoadedBatch) else batch

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Look at the gradient.

        Raises:
            NonFiniteError: it is not finite (float16 training rescales by itself and is let be).
        """
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        if not gradients or trainer.precision == "16-mixed":
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        keys = getattr(self._batch, "keys", ())
        stop_if_not_finite({"gradient norm": norm}, self._batch, keys, trainer.global_step, self._folder)
        pl_module.log("gradient_norm", norm, batch_size=max(len(keys), 1))


def stop_if_not_finite(
    values: Mapping[str, Tensor], batch: Any, keys: tuple[str, ...], step: int, folder: Path
) -> None:
    """Stop where a value is not finite, naming it and the samples, and keep the batch.

    Args:
        values: scalars by name: loss terms, or the gradient's norm.
        batch: what they came from; its tensors are saved to `folder`, loadable with `weights_only=True`.
        keys: names of the samples in it.
        step: optimizer step.
        folder: run directory.

    Raises:
        NonFiniteError: with the samples, the terms and the file.
    """
    # One wait for the device per step: going on from a loss that is not finite would ruin the weights.
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    wrong = {name: number for name, number in zip(values, numbers, strict=True) if not math.isfinite(number)}
    if not wrong:
        return
    path = folder / f"non_finite_step{step}.pt"
    with atomic_file(path) as file:
        torch.save({"batch": as_plain(batch), "terms": dict(zip(values, numbers, strict=True)), "step": step}, file)
    terms = ", ".join(f"{name} = {number}" for name, number in wrong.items())
    raise NonFiniteError(f"not finite at step {step}: {terms}; samples: {', '.join(keys)}; batch saved to {path}")


def as_plain(value: Any) -> Any:
    """Return dataclasses as dicts and tensors on the CPU, so that a file of them holds no code."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
