"""Logs what training steps give, and stops where it is not finite, without making the device wait."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import pytorch_lightning as pl
import torch
from torch import Tensor

from equilidar.atomic_file import atomic_file
from equilidar.data.loading import LoadedBatch
from equilidar.objectives.reduction import all_processes_sum, num_processes
from equilidar.structures import LossTerms
from equilidar.structures.host_sync import allowed_sync
from equilidar.training.blame import samples_to_blame


class NonFiniteError(RuntimeError):
    """A loss or a gradient is infinite or NaN."""


class StepOutput(TypedDict):
    """What a training step returns to Lightning.

    Attributes:
        loss: differentiable.
        terms: scalars that must be finite, by name; the loss among them.
        values: further scalars to be logged; tensors are averaged over processes, numbers are the first process's.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    values: dict[str, Tensor | float]


def step_output(losses: LossTerms, values: Mapping[str, Tensor | float]) -> StepOutput:
    """Return the output of a step that made these losses."""
    total = losses.total()
    return {"loss": total, "terms": {**losses.terms, "loss": total}, "values": {**losses.metrics, **values}}


class _Numbers:
    """Scalars on their way to the host, as float32: this process's and the means over all processes."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        self._names = tuple(scalars)
        own = torch.stack([scalar.detach().float() for scalar in scalars.values()])
        both = torch.stack([own, all_processes_sum(own) / num_processes()])
        self._copied: torch.cuda.Event | None = None
        if both.is_cuda:
            self._host = torch.empty(both.shape, pin_memory=True).copy_(both, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._host = both

    @property
    def arrived(self) -> bool:
        """Whether reading them waits for nothing."""
        return self._copied is None or self._copied.query()

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return own values and means; waits until they are there."""
        with allowed_sync("values of the step before: here by now, as a rule"):
            if self._copied is not None:
                self._copied.synchronize()
            own, means = (dict(zip(self._names, row, strict=True)) for row in self._host.tolist())
        return own, means


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """A batch whose values have not been read yet.

    Attributes:
        number: optimizer step, from 0.
        epoch: from 0.
        batch: what it was made from.
        numbers: terms, further values and the gradient's norm.
        finite: which of them must be finite.
        known: values that were on the host all the time.
        logged: whether it ends an optimizer step; other batches only add to its gradient.
    """

    number: int
    epoch: int
    batch: Any
    numbers: _Numbers
    finite: tuple[str, ...]
    known: dict[str, float]
    logged: bool


class StepRecord(pl.Callback):
    """Hands each step's values to the loggers, and stops the run where a loss or a gradient is not finite.

    Reading a value waits for the device. So values are read when they have arrived, at the latest one step later, or
    before a checkpoint is written, a validation begins or the run ends. Meanwhile a gradient that is not finite is set
    to zero on the device: it never reaches the weights. (float16 training rescales by itself: there it is let be.)

    Args:
        folder: run directory, where the batch of a step that is not finite is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._has_stepped = False
        self._norm: Tensor | None = None
        self._pending: _Step | None = None

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep the gradient's norm before clipping, and a gradient that is not finite from the weights."""
        self._has_stepped = True
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        if not gradients or trainer.precision == "16-mixed":
            return
        self._norm = torch.nn.utils.get_total_norm(gradients)
        is_broken = ~self._norm.isfinite()
        for gradient in gradients:
            gradient.masked_fill_(is_broken, 0.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the batch before; remember this one.

        Raises:
            NonFiniteError: a loss or gradient that was read is not finite.
        """
        self._read(trainer, pl_module)
        has_stepped, norm = self._has_stepped, self._norm
        self._has_stepped, self._norm = False, None
        if not outputs or outputs["loss"] is None:
            return
        # Of a module of the user's own, which may return its loss alone.
        scalars: dict[str, Tensor] = dict(outputs.get("terms", {"loss": outputs["loss"]}))
        if norm is not None:
            scalars["gradient_norm"] = norm
        finite = tuple(scalars)
        values = outputs.get("values", {})
        scalars |= {name: value for name, value in values.items() if isinstance(value, Tensor)}
        known = {name: float(value) for name, value in values.items() if name not in scalars}
        number = trainer.global_step - 1 if has_stepped else trainer.global_step
        held = batch.batch if isinstance(batch, LoadedBatch) else batch
        numbers = _Numbers(scalars)
        self._pending = _Step(number, trainer.current_epoch, held, numbers, finite, known, has_stepped)
        if numbers.arrived:
            self._read(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Read what is pending: no checkpoint is ahead of the log, or of a step that is not finite."""
        self._read(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what is pending."""
        self._read(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what is pending."""
        self._read(trainer, pl_module)

    def _read(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        own, means = step.numbers.read()
        _stop_if_not_finite({name: own[name] for name in step.finite}, step, self._folder, module)
        if elsewhere := [name for name in step.finite if not math.isfinite(means[name])]:
            raise NonFiniteError(f"not finite at step {step.number} in another process: {', '.join(elsewhere)}")
        if not step.logged:
            return
        values = {**means, **step.known}
        # There the progress bar and the end of the run find them.
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": step.epoch}, step.number)
            logger.save()


def _stop_if_not_finite(values: dict[str, float], step: _Step, folder: Path, module: pl.LightningModule) -> None:
    """Stop where a value is not finite, naming it, the samples and those that are to blame, and keep the batch.

    The batch's tensors are saved to `folder`, loadable with `weights_only=True`.

    Raises:
        NonFiniteError: with the samples, the terms and the file.
    """
    wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not wrong:
        return
    path = folder / f"non_finite_step{step.number}.pt"
    with atomic_file(path) as file:
        torch.save({"batch": as_plain(step.batch), "terms": values, "step": step.number}, file)
    terms = ", ".join(f"{name} = {value}" for name, value in wrong.items())
    keys = ", ".join(getattr(step.batch, "keys", ()))
    blamed = samples_to_blame(module, step.batch)
    alone = "; ".join(f"{key}: {', '.join(names)}" for key, names in blamed.items())
    raise NonFiniteError(
        f"not finite at step {step.number}: {terms}; samples: {keys}; "
        f"{f'not finite by itself: {alone}; ' if alone else ''}batch saved to {path}"
    )


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
